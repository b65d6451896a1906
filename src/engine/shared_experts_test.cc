// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Experts that use the matrices of others compute as copies of them, and cost no memory.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/rng.h"
#include "engine/cost.h"
#include "engine/engine.h"
#include "engine/expert_census.h"
#include "formats/test_files.h"
#include "model/varied_models.h"

namespace winnow::engine::shared_experts_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Checkpoint;
using model::Role;

// An expert of testdata/models/qwen3_moe-plain in Q8_0: three matrices of 32 x 32.
constexpr std::uint64_t kExpertBytes = std::uint64_t{3} * 32 * 34;

std::vector<float> logits_of(Engine& engine) {
  std::vector<TokenId> tokens(24);
  Rng rng(1);
  for (TokenId& token : tokens) token = TokenId{static_cast<std::int32_t>(rng.below(256))};
  KvCache cache = engine.make_cache(tokens.size());
  const SequenceInput input{&cache, tokens};
  const auto hidden = engine.forward(std::span(&input, 1));
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());
  return {logits.flat().begin(), logits.flat().end()};
}

/// A plain file of one type: experts are in Q8_0, other matrices in F32.
void write_plain(const Checkpoint& source, const std::filesystem::path& path) {
  model::ExportOptions options;
  options.codec = [](Role role, LayerId) -> const quant::Codec& {
    return *quant::find_codec(model::traits(role).per_expert ? "Q8_0" : "F32");
  };
  os::ThreadPool pool(1);
  Log log;
  model::export_model(source, path, options, pool, log);
}

class SharedExperts : public ::testing::TestWithParam<std::string> {
 protected:
  SharedExperts() {
    model::testing::write_varied(
        source_, shared_, model::testing::shared_experts(source_.spec()),
        [](Role, LayerId, ExpertId) -> const quant::Codec& { return *quant::find_codec("Q8_0"); });
    // Expert 0 of each layer becomes that of 3, expert 5 that of 1.
    model::testing::EditableModel edited(GetParam());
    for (const auto& [to, from] : {std::pair(0, 3), std::pair(5, 1)}) {
      for (std::uint32_t layer = 0; layer < source_.spec().num_hidden_layers; ++layer) {
        for (const char* const matrix : {"gate_proj", "up_proj", "down_proj"}) {
          const auto name = [&](int expert) {
            return fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", layer, expert, matrix);
          };
          edited.tensor(name(to)).bytes = edited.tensor(name(from)).bytes;
        }
      }
    }
    edited.write(folder_.path() / "edited");
    write_plain(Checkpoint::open(folder_.path() / "edited"), copied_);
    write_plain(source_, plain_);
  }

  TemporaryFolder folder_;
  std::filesystem::path shared_ = folder_.path() / "shared.gguf";
  std::filesystem::path copied_ = folder_.path() / "copied.gguf";
  std::filesystem::path plain_ = folder_.path() / "plain.gguf";
  Checkpoint source_ = Checkpoint::open(model::testing::tiny_model(GetParam()));
};

TEST_P(SharedExperts, HaveTheBitsOfCopies) {
  const Checkpoint shared = Checkpoint::open(shared_);
  const Checkpoint copied = Checkpoint::open(copied_);
  const Checkpoint plain = Checkpoint::open(plain_);
  Log log;
  for (const WeightMemory weights : {WeightMemory::kCopied, WeightMemory::kMappedOnly}) {
    const EngineOptions options{.threads = 2, .weights = weights};
    Engine of_shared(shared, options, log);
    Engine of_copied(copied, options, log);
    Engine of_plain(plain, options, log);
    EXPECT_EQ(logits_of(of_shared), logits_of(of_copied));
    EXPECT_NE(logits_of(of_shared), logits_of(of_plain));
  }
}

TEST_P(SharedExperts, TakeNoMemory) {
  Log log;
  const auto memory = [&](const std::filesystem::path& path) {
    return Engine(Checkpoint::open(path), {.threads = 1}, log).weight_memory().value;
  };
  // Buffers may end on larger pages than they need.
  EXPECT_LE(memory(shared_) + std::uint64_t{2} * 2 * kExpertBytes, memory(copied_) + 4096);
  EXPECT_LT(memory(shared_), memory(copied_));
}

TEST_P(SharedExperts, AreCopiedAsTheyAre) {
  const Checkpoint shared = Checkpoint::open(shared_);
  const auto again = folder_.path() / "again.gguf";
  write_plain(shared, again);
  const Checkpoint copy = Checkpoint::open(again);
  EXPECT_EQ(copy.spec().varied_experts, shared.spec().varied_experts);
  EXPECT_EQ(copy.spec().source_experts, shared.spec().source_experts);
  Log log;
  Engine of_copy(copy, {}, log);
  Engine of_shared(shared, {}, log);
  EXPECT_EQ(logits_of(of_copy), logits_of(of_shared));
}

TEST_P(SharedExperts, CostATokenWhatCopiesCost) {
  const TokenCost shared = token_cost(Checkpoint::open(shared_), kernels::KvType::kF32);
  const TokenCost copied = token_cost(Checkpoint::open(copied_), kernels::KvType::kF32);
  EXPECT_EQ(shared.expert_bytes, copied.expert_bytes);
  EXPECT_EQ(shared.multiply_adds, copied.multiply_adds);
}

TEST_P(SharedExperts, AreReadOnceByAPassThatChoosesBoth) {
  ExpertCensus census(Checkpoint::open(shared_));
  const std::vector<ExpertId> chosen{ExpertId{0}, ExpertId{3}, ExpertId{3}, ExpertId{5}};
  const std::vector<float> weights(chosen.size(), 0.5F);
  census.on_routing(LayerId{0}, {}, {2, chosen, weights});
  EXPECT_EQ(census.experts(), 2U);
  EXPECT_EQ(census.bytes(), 2 * kExpertBytes);
}

INSTANTIATE_TEST_SUITE_P(Models, SharedExperts, ::testing::Values("plain", "not-renormalised"),
                         model::testing::test_name);

}  // namespace
}  // namespace winnow::engine::shared_experts_test
