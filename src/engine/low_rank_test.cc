// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A model with low-rank corrections computes what the model computes whose matrices they are added
// to, however its tokens are divided, and on every ISA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/cost.h"
#include "engine/engine.h"
#include "engine/layer_runner.h"
#include "formats/test_files.h"
#include "model/corrected_models.h"

namespace winnow::engine::low_rank_test {
namespace {

using formats::testing::TemporaryFolder;
using model::testing::EditableGguf;

constexpr std::size_t kTokens = 45;  // more than are corrected at a time
constexpr std::size_t kRank = 3;

std::vector<TokenId> random_tokens() {
  Rng rng(11);
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < kTokens; ++i) {
    tokens.push_back(TokenId{static_cast<std::int32_t>(rng.below(272))});
  }
  return tokens;
}

/// Logits of all tokens, `chunk` at a time.
std::vector<float> logits_of(const model::Checkpoint& checkpoint, const EngineOptions& options,
                             std::size_t chunk = kTokens) {
  Log log;
  Engine engine(checkpoint, options, log);
  const std::vector<TokenId> tokens = random_tokens();
  KvCache cache = engine.make_cache(kTokens);
  std::vector<float> all;
  for (std::size_t first = 0; first < kTokens; first += chunk) {
    const SequenceInput input{&cache,
                              std::span(tokens).subspan(first, std::min(chunk, kTokens - first))};
    const auto hidden = engine.forward(std::span(&input, 1));
    tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
    engine.logits(hidden, logits.view());
    all.insert(all.end(), logits.flat().begin(), logits.flat().end());
  }
  return all;
}

std::vector<float> layered_logits(const model::Checkpoint& checkpoint, const std::string& isa) {
  LayerRunner runner(checkpoint, {.threads = 2, .isa = isa});
  const std::vector<std::size_t> lengths = {kTokens};
  tensor::Matrix<float> hidden(kTokens, checkpoint.spec().hidden_size);
  runner.embed(random_tokens(), hidden.view());
  for (std::uint32_t layer = 0; layer < checkpoint.spec().num_hidden_layers; ++layer) {
    runner.load(LayerId{layer});
    runner.run(lengths, hidden.view());
  }
  runner.load_output();
  runner.normalize_output(hidden.view());
  tensor::Matrix<float> logits(kTokens, checkpoint.spec().vocab_size);
  runner.logits(hidden.view(), logits.view());
  return {logits.flat().begin(), logits.flat().end()};
}

double largest(std::span<const float> values) {
  double most = 0;
  for (const float value : values) most = std::max(most, std::fabs(double{value}));
  return most;
}

double largest_difference(std::span<const float> a, std::span<const float> b) {
  WINNOW_CHECK(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::fabs(double{a[i]} - b[i]));
  }
  return most;
}

/// The folder of a tiny model, the ISA.
class LowRankCorrections : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  /// The tiny model with corrections, matrices in `codec`.
  model::Checkpoint corrected(const std::string& codec) {
    const auto source =
        model::Checkpoint::open(model::testing::tiny_folder(std::get<0>(GetParam())));
    const auto path = folder_.path() / (codec + ".gguf");
    model::testing::write_corrected(source, path, codec, kRank);
    return model::Checkpoint::open(path);
  }
  /// The same model, corrections added to F32 matrices.
  model::Checkpoint folded(const model::Checkpoint& source) {
    const auto path = folder_.path() / "folded.gguf";
    model::ExportOptions options;
    options.codec = [](model::Role, LayerId) -> const quant::Codec& {
      return *quant::find_codec("F32");
    };
    os::ThreadPool pool(1);
    Log log;
    model::export_model(source, path, options, pool, log);
    return model::Checkpoint::open(path);
  }
  static EngineOptions with(unsigned threads, WeightMemory weights = WeightMemory::kCopied) {
    return {.threads = threads, .isa = std::get<1>(GetParam()), .weights = weights};
  }
  TemporaryFolder folder_;
};

// F32 sums of the same products in another order: a few units of 2^-24 a layer, well below 1e-4.
TEST_P(LowRankCorrections, GiveTheLogitsOfTheModelTheyAreAddedTo) {
  const model::Checkpoint model = corrected("F32");
  const auto expected = logits_of(folded(model), with(1));
  const auto found = logits_of(model, with(1));
  EXPECT_LE(largest_difference(found, expected), 1e-4 * largest(expected));
  const auto without = logits_of(
      model::Checkpoint::open(model::testing::tiny_folder(std::get<0>(GetParam()))), with(1));
  EXPECT_GT(largest_difference(without, expected), 1e-2 * largest(expected));
}

TEST_P(LowRankCorrections, AreTheSameForEveryDivisionIntoCallsAndThreads) {
  for (const char* codec : {"F32", "Q8_0"}) {
    const model::Checkpoint model = corrected(codec);
    const auto expected = logits_of(model, with(1));
    EXPECT_EQ(logits_of(model, with(1), 1), expected) << codec << " one token at a time";
    EXPECT_EQ(logits_of(model, with(3), 7), expected) << codec << " on three threads";
    EXPECT_EQ(logits_of(model, with(2, WeightMemory::kMappedOnly)), expected) << codec << " mapped";
    EXPECT_EQ(layered_logits(model, std::get<1>(GetParam())), expected) << codec << " by layers";
  }
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const auto* isa : kernels::supported_isas(os::CpuFeatures::detect())) {
    names.emplace_back(isa->isa);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(
    Models, LowRankCorrections,
    testing::Combine(testing::Values("qwen3_moe-plain", "qwen3_moe-dense-first", "qwen3-plain",
                                     "olmoe-plain", "qwen3_moe-odd-sizes", "llama-plain"),
                     testing::ValuesIn(isas())),
    [](const auto& setting) {
      std::string name = std::get<0>(setting.param) + "_" + std::get<1>(setting.param);
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

class CorrectedFile : public ::testing::Test {
 protected:
  CorrectedFile() {
    model::testing::write_corrected(
        model::Checkpoint::open(model::testing::tiny_model("dense-first")), path(), "Q8_0", kRank);
  }
  std::filesystem::path path() const { return folder_.path() / "m.gguf"; }
  TemporaryFolder folder_;
};

TEST_F(CorrectedFile, IsRefusedWithTheFactorThatHoldsNoNumber) {
  for (const char* name :
       {"blk.0.ffn_down.low_rank_right.weight", "blk.1.ffn_down_exps.low_rank_left.weight"}) {
    EditableGguf file(path());
    const std::uint16_t infinite = 0x7c00;
    std::memcpy(file.tensor(name).bytes.data() + 2, &infinite, sizeof infinite);
    file.write(folder_.path() / "damaged.gguf");
    const auto damaged = model::Checkpoint::open(folder_.path() / "damaged.gguf");
    const Error error = model::testing::error_of([&] {
      Log log;
      const Engine engine(damaged, {.threads = 1}, log);
    });
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.what(), testing::HasSubstr(name));
  }
}

TEST_F(CorrectedFile, CountsItsFactorsInMemoryAndInTheCostOfAToken) {
  const auto model = model::Checkpoint::open(path());
  model::testing::EditableGguf plain(path());
  std::erase_if(plain.tensors,
                [](const auto& t) { return model::is_low_rank_name(t.planned.name); });
  plain.metadata.erase("winnow.layout");
  plain.write(folder_.path() / "plain.gguf");
  const auto without = model::Checkpoint::open(folder_.path() / "plain.gguf");
  std::uint64_t touched = 0;
  std::uint64_t products = 0;
  model.for_each_role([&](model::Role role, LayerId layer) {
    const model::TensorRef ref = model.at(role, layer);
    if (ref.low_rank == nullptr) return;
    const std::uint64_t used = model::traits(role).per_expert ? model.spec().moe.top_k : 1;
    const std::uint64_t values = used * kRank * (ref.rows + ref.cols);
    touched += 2 * values;
    products += values;
  });
  const TokenCost with = token_cost(model);
  const TokenCost base = token_cost(without);
  EXPECT_DOUBLE_EQ(with.weight_bytes - base.weight_bytes, static_cast<double>(touched));
  EXPECT_EQ(with.multiply_adds + with.output_multiply_adds,
            base.multiply_adds + base.output_multiply_adds + products);
  Log log;
  EXPECT_GT(Engine(model, {.threads = 1}, log).weight_memory(),
            Engine(without, {.threads = 1}, log).weight_memory());
  EXPECT_GT(LayerRunner::largest_weights(model), LayerRunner::largest_weights(without));
}

}  // namespace
}  // namespace winnow::engine::low_rank_test
