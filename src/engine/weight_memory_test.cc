// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Weights that are mapped, or moved while they are used, give the same bits as copied ones, and a
// file that changes under them gives an error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "engine/engine.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::engine::weight_memory_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::HasSubstr;

class Weights : public ::testing::Test {
 protected:
  Weights() { std::filesystem::copy(model::testing::tiny_model("plain"), folder_.path() / "m"); }

  std::filesystem::path file() const { return folder_.path() / "m/model.safetensors"; }
  std::unique_ptr<Engine> make_engine(WeightMemory weights) {
    return std::make_unique<Engine>(model::Checkpoint::open(folder_.path() / "m"),
                                    EngineOptions{2, "", weights}, log_);
  }
  static std::vector<float> logits(Engine& engine) {
    const std::vector<TokenId> tokens = {TokenId{3}, TokenId{77}, TokenId{5}};
    KvCache cache = engine.make_cache(tokens.size());
    const auto logits = engine.next_logits(cache, tokens);
    return {logits.begin(), logits.end()};
  }

  TemporaryFolder folder_;
  Log log_;
};

TEST_F(Weights, GiveTheSameLogitsWhereverTheyAre) {
  const auto expected = logits(*make_engine(WeightMemory::kCopied));
  EXPECT_EQ(logits(*make_engine(WeightMemory::kMappedOnly)), expected);
  const auto moving = make_engine(WeightMemory::kMapped);
  EXPECT_EQ(logits(*moving), expected);
  moving->settle();
  EXPECT_EQ(logits(*moving), expected);
}

TEST_F(Weights, CountTheSameMemoryButForTheAlignment) {
  const auto copied = make_engine(WeightMemory::kCopied)->weight_memory().value;
  const auto mapped = make_engine(WeightMemory::kMapped)->weight_memory().value;
  EXPECT_LE(mapped, copied);
  EXPECT_GT(mapped, copied * 9 / 10);
}

TEST_F(Weights, ThatAreTruncatedWhileMappedAreAnErrorThatNamesTheFile) {
  const auto engine = make_engine(WeightMemory::kMappedOnly);
  std::filesystem::resize_file(file(), 4096);
  const Error error = model::testing::error_of([&] { logits(*engine); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), HasSubstr("model.safetensors: was changed, truncated"));
  EXPECT_THAT(error.message(), HasSubstr("start again"));
}

TEST_F(Weights, ThatAreTruncatedBetweenForwardAndLogitsAreAnError) {
  const auto engine = make_engine(WeightMemory::kMappedOnly);
  const std::vector<TokenId> tokens = {TokenId{3}};
  KvCache cache = engine->make_cache(1);
  const SequenceInput input{&cache, tokens};
  const auto hidden = engine->forward(std::span(&input, 1));
  std::filesystem::resize_file(file(), 4096);
  tensor::Matrix<float> out(1, engine->spec().vocab_size);
  const Error error = model::testing::error_of([&] { engine->logits(hidden, out.view()); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
}

TEST_F(Weights, NeedTheFileNoLongerOnceCopiedOrMoved) {
  for (const auto weights : {WeightMemory::kCopied, WeightMemory::kMapped}) {
    const auto engine = make_engine(weights);
    engine->settle();
    const auto expected = logits(*engine);
    std::filesystem::rename(file(), folder_.path() / "kept");
    std::filesystem::copy(folder_.path() / "kept", file());
    std::filesystem::resize_file(folder_.path() / "kept", 0);
    EXPECT_EQ(logits(*engine), expected);
  }
}

}  // namespace
}  // namespace winnow::engine::weight_memory_test
