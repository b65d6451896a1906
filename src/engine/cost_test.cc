// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/cost.h"

#include <gtest/gtest.h>

#include "model/test_models.h"

namespace winnow::engine::cost_test {
namespace {

// Of testdata/models/qwen3_moe-plain: hidden 32, 4 heads of 16 with 2 for keys and values, 8
// experts top-2 of width 32, 2 layers, 272 tokens, embedding tied, 2 bytes a weight.
constexpr std::uint64_t kAttention = (64 + 2 * 32) * 32 + 32 * 64;
constexpr std::uint64_t kRouter = 8 * 32;
constexpr std::uint64_t kExpert = 3 * 32 * 32;
constexpr std::uint64_t kNorms = 2 * 32 + 2 * 16;
constexpr std::uint64_t kOutput = 272 * 32;

TEST(TokenCost, CountsTheChosenExpertsAndAllDenseMatrices) {
  const auto cost = token_cost(model::Checkpoint::open(model::testing::tiny_model("plain")));
  const std::uint64_t layer = kAttention + kRouter + 2 * kExpert;
  EXPECT_EQ(cost.multiply_adds, 2 * layer);
  EXPECT_EQ(cost.output_multiply_adds, kOutput);
  EXPECT_EQ(cost.weight_bytes, 2.0 * static_cast<double>(2 * (layer + kNorms) + 32 + kOutput + 32));
  EXPECT_EQ(cost.kv_bytes_per_position, 2 * 2 * 32 * sizeof(float));
}

TEST(TokenCost, CountsKeysAndValuesOfTheirType) {
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_model("plain"));
  // 2 layers, keys and values, 2 heads of 16; a scale of 2 bytes for each head in Q8_0.
  EXPECT_EQ(token_cost(checkpoint, kernels::KvType::kF16).kv_bytes_per_position, 2U * 2 * 2 * 32);
  EXPECT_EQ(token_cost(checkpoint, kernels::KvType::kQ8_0).kv_bytes_per_position,
            2U * 2 * 2 * (16 + 2));
}

TEST(TokenCost, GrowsWithThePositionAndSharesTheOutputAmongThePrompt) {
  const auto cost = token_cost(model::Checkpoint::open(model::testing::tiny_model("plain")));
  EXPECT_EQ(cost.decode_bytes(10) - cost.decode_bytes(0), 10.0 * 2 * 2 * 32 * sizeof(float));
  EXPECT_EQ(cost.prefill_multiply_adds(1), static_cast<double>(cost.multiply_adds + kOutput));
  EXPECT_EQ(cost.prefill_multiply_adds(272), static_cast<double>(cost.multiply_adds + 32));
}

TEST(TokenCost, AStepOfSeveralSequencesReadsDenseWeightsOnce) {
  const auto cost = token_cost(model::Checkpoint::open(model::testing::tiny_model("plain")));
  EXPECT_EQ(cost.expert_bytes, 2.0 * 2 * 2 * kExpert);
  EXPECT_EQ(cost.step_bytes(1, cost.expert_bytes, 10), cost.decode_bytes(10));
  const double more = 2.0 * 7 * 32 + 7 * 10.0 * 2 * 2 * 32 * sizeof(float);  // rows, keys, values
  EXPECT_EQ(cost.step_bytes(8, cost.expert_bytes, 10), cost.decode_bytes(10) + more);
  EXPECT_EQ(cost.step_bytes(1, 0, 0), cost.decode_bytes(0) - cost.expert_bytes);
}

TEST(TokenCost, OfAShareOfTheExpertsLeavesTheRestAsItIs) {
  const auto cost = token_cost(model::Checkpoint::open(model::testing::tiny_model("plain")));
  const TokenCost half = cost.with_experts(0.5);
  EXPECT_EQ(half.decode_bytes(10), cost.decode_bytes(10) - 2.0 * 2 * kExpert);
  EXPECT_EQ(half.multiply_adds, cost.multiply_adds - 2 * kExpert);
  EXPECT_EQ(cost.with_experts(1).decode_bytes(10), cost.decode_bytes(10));
  EXPECT_EQ(cost.with_experts(1).multiply_adds, cost.multiply_adds);
}

TEST(TokenCost, CountsTheOutputMatrixOfItsOwnAndDenseLayers) {
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_model("dense-first"));
  const auto& spec = checkpoint.spec();
  const auto cost = token_cost(checkpoint);
  const std::uint64_t attention =
      std::uint64_t{spec.hidden_size} * (2 * spec.query_width() + 2 * spec.key_value_width());
  const std::uint64_t dense = std::uint64_t{3} * spec.hidden_size * spec.intermediate_size;
  const std::uint64_t experts =
      std::uint64_t{spec.hidden_size} *
      (spec.moe.num_experts + 3 * spec.moe.top_k * spec.moe.moe_intermediate_size);
  EXPECT_EQ(cost.multiply_adds, 3 * attention + dense + 2 * experts);
  // The embedding gives one row, the output matrix all of its own.
  EXPECT_LT(cost.weight_bytes, static_cast<double>(checkpoint.tensor_bytes().value));
}

}  // namespace
}  // namespace winnow::engine::cost_test
