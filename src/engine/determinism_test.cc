// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A sequence's logits depend on neither the number of threads, nor what else is in the batch, nor
// how its tokens are divided among calls: bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "base/rng.h"
#include "engine/engine.h"
#include "formats/test_files.h"
#include "model/exporter.h"
#include "model/test_models.h"

namespace winnow::engine::determinism_test {
namespace {

using formats::testing::TemporaryFolder;

std::vector<TokenId> random_tokens(std::uint64_t seed, std::size_t count) {
  Rng rng(seed);
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < count; ++i) {
    tokens.push_back(TokenId{static_cast<std::int32_t>(rng.below(272))});
  }
  return tokens;
}

using Bits = std::vector<std::uint32_t>;

Bits bits_of(std::span<const float> values) {
  Bits bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

/// The folder of a tiny model, the type of its matrices, the ISA, how keys and values are kept.
using Setting = std::tuple<std::string, std::string, std::string, kernels::KvType>;

class Determinism : public testing::TestWithParam<Setting> {
 protected:
  Determinism() {
    const auto source =
        model::Checkpoint::open(model::testing::tiny_folder(std::get<0>(GetParam())));
    model::ExportOptions options;
    options.codec = [](model::Role, LayerId) -> const quant::Codec& {
      return *quant::find_codec(std::get<1>(GetParam()));
    };
    os::ThreadPool pool(1);
    model::export_model(source, folder_.path() / "m.gguf", options, pool, log_);
  }
  std::unique_ptr<Engine> make_engine(unsigned threads) {
    return std::make_unique<Engine>(
        model::Checkpoint::open(folder_.path() / "m.gguf"),
        EngineOptions{
            .threads = threads, .isa = std::get<2>(GetParam()), .kv_type = std::get<3>(GetParam())},
        log_);
  }
  /// Logits of all tokens of a sequence alone in one call, on one thread.
  Bits reference(std::span<const TokenId> tokens) {
    const auto engine = make_engine(1);
    KvCache cache = engine->make_cache(tokens.size());
    const SequenceInput input{&cache, tokens};
    return all_logits(*engine, engine->forward(std::span(&input, 1)));
  }
  static Bits all_logits(Engine& engine, tensor::MatrixView<const float> hidden) {
    tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
    engine.logits(hidden, logits.view());
    return bits_of(logits.flat());
  }
  TemporaryFolder folder_;
  Log log_;
};

TEST_P(Determinism, TheThreadCountChangesNothing) {
  const auto tokens = random_tokens(1, 37);
  const Bits expected = reference(tokens);
  for (const unsigned threads : {2U, 3U}) {
    const auto engine = make_engine(threads);
    KvCache cache = engine->make_cache(tokens.size());
    const SequenceInput input{&cache, tokens};
    EXPECT_EQ(all_logits(*engine, engine->forward(std::span(&input, 1))), expected) << threads;
  }
}

TEST_P(Determinism, TheBatchChangesNothing) {
  std::vector<std::vector<TokenId>> sequences;
  Bits expected;
  for (const std::size_t length : {1, 5, 70, 3, 1}) {
    sequences.push_back(random_tokens(length, length));
    const Bits alone = reference(sequences.back());
    expected.insert(expected.end(), alone.begin(), alone.end());
  }
  const auto engine = make_engine(2);
  std::vector<KvCache> caches;
  std::vector<SequenceInput> inputs;
  caches.reserve(sequences.size());
  inputs.reserve(sequences.size());
  for (const auto& tokens : sequences) caches.push_back(engine->make_cache(tokens.size()));
  for (std::size_t i = 0; i < sequences.size(); ++i) inputs.push_back({&caches[i], sequences[i]});
  EXPECT_EQ(all_logits(*engine, engine->forward(inputs)), expected);
}

TEST_P(Determinism, TheDivisionIntoCallsChangesNothing) {
  const auto tokens = random_tokens(2, 70);  // beyond a tile of keys
  const Bits expected = reference(tokens);
  const auto engine = make_engine(2);
  for (const std::size_t chunk : {1, 4, 33, 64}) {
    KvCache cache = engine->make_cache(tokens.size());
    Bits all;
    for (std::size_t begin = 0; begin < tokens.size(); begin += chunk) {
      const auto part = std::span(tokens).subspan(begin, std::min(chunk, tokens.size() - begin));
      const SequenceInput input{&cache, part};
      const Bits some = all_logits(*engine, engine->forward(std::span(&input, 1)));
      all.insert(all.end(), some.begin(), some.end());
    }
    EXPECT_EQ(all, expected) << chunk;
  }
}

TEST_P(Determinism, ATruncatedCacheForgetsWhatFollowed) {
  const auto tokens = random_tokens(3, 12);
  const auto other = random_tokens(4, 12);
  const Bits expected = reference(tokens);
  const auto engine = make_engine(1);
  KvCache cache = engine->make_cache(tokens.size());
  (void)engine->next_logits(cache, std::span(tokens).first(6));
  (void)engine->next_logits(cache, std::span(other).last(6));
  cache.truncate(6);
  const auto last = engine->next_logits(cache, std::span(tokens).last(6));
  const std::size_t vocab = engine->spec().vocab_size;
  EXPECT_EQ(bits_of(last),
            Bits(expected.end() - static_cast<std::ptrdiff_t>(vocab), expected.end()));
}

std::vector<std::string> isas_here() {
  std::vector<std::string> names;
  for (const auto* isa : kernels::supported_isas(os::CpuFeatures::detect())) {
    names.emplace_back(isa->isa);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(
    Settings, Determinism,
    testing::Combine(testing::Values("qwen3_moe-plain", "qwen3_moe-dense-first", "olmoe-grouped"),
                     testing::Values("BF16", "Q4_0", "Q8_0"), testing::ValuesIn(isas_here()),
                     testing::ValuesIn(kernels::all_kv_types())),
    [](const auto& setting) {
      std::string name = std::get<0>(setting.param) + "_" + std::get<1>(setting.param) + "_" +
                         std::get<2>(setting.param) + "_" +
                         std::string(to_string(std::get<3>(setting.param)));
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace winnow::engine::determinism_test
