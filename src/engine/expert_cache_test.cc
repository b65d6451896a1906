// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Experts that are read when they are needed give the bits of experts that are held.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "base/rng.h"
#include "engine/engine.h"
#include "engine/memory_plan.h"
#include "engine/weights.h"
#include "formats/test_files.h"
#include "model/varied_models.h"

namespace winnow::engine::expert_cache_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Checkpoint;
using model::Role;
using ::testing::HasSubstr;

/// Logits of a prompt and of tokens one by one after it, as `run` asks for them.
std::vector<float> logits_of(const Checkpoint& checkpoint, const EngineOptions& options) {
  Log log;
  Engine engine(checkpoint, options, log);
  std::vector<TokenId> tokens(30);
  Rng rng(1);
  for (TokenId& token : tokens) token = TokenId{static_cast<std::int32_t>(rng.below(256))};
  KvCache cache = engine.make_cache(tokens.size());
  std::vector<float> all;
  const auto run = [&](std::size_t first, std::size_t count) {
    const auto logits = engine.next_logits(cache, std::span(tokens).subspan(first, count));
    all.insert(all.end(), logits.begin(), logits.end());
  };
  run(0, 20);
  for (std::size_t i = 20; i < tokens.size(); ++i) run(i, 1);
  EXPECT_EQ(engine.expert_cache() != nullptr, options.expert_cache.has_value());
  return all;
}

/// The bits of the resident store, for the least memory, a little, half and all of it.
void expect_same_bits(const Checkpoint& checkpoint) {
  const experts::SlotLayout layout(catalogue_experts(checkpoint));
  const std::uint64_t least = layout.minimum(checkpoint.spec().moe.top_k).value;
  const std::uint64_t all = layout.all().value;
  for (const unsigned threads : {1U, 3U}) {
    const auto expected = logits_of(checkpoint, {.threads = threads});
    for (const std::uint64_t slots : {least, least + all / 8, (least + all) / 2, least + all}) {
      for (const auto method : {os::ReadMethod::kAuto, os::ReadMethod::kThreads}) {
        experts::CacheOptions cache;
        cache.slots = {slots};
        cache.reader.method = method;
        const EngineOptions options{.threads = threads, .expert_cache = cache};
        EXPECT_EQ(logits_of(checkpoint, options), expected)
            << slots << " bytes, " << threads << " threads";
      }
    }
  }
}

/// Whatever is read early on a guess.
void expect_same_bits_with_guesses(const Checkpoint& checkpoint) {
  using Mode = experts::PrefetchOptions::Mode;
  const experts::SlotLayout layout(catalogue_experts(checkpoint));
  const std::uint64_t least = layout.minimum(checkpoint.spec().moe.top_k).value;
  const auto expected = logits_of(checkpoint, {.threads = 2});
  for (const experts::PredictorEntry* predictor : experts::route_predictors()) {
    for (const std::uint64_t slots : {least, (least + layout.all().value) / 2}) {
      for (const Mode mode : {Mode::kAuto, Mode::kAlways}) {
        experts::CacheOptions cache;
        cache.slots = {slots};
        const EngineOptions options{
            .threads = 2, .expert_cache = cache, .prefetch = {mode, std::string(predictor->name)}};
        EXPECT_EQ(logits_of(checkpoint, options), expected) << predictor->name << ", " << slots;
      }
    }
  }
}

class ExpertCache : public ::testing::TestWithParam<std::string> {
 protected:
  Checkpoint written(const std::vector<std::vector<model::ExportExpert>>& experts,
                     const char* type) const {
    const auto path = folder_.path() / "model.gguf";
    model::testing::write_varied(source_, path, experts,
                                 [type](Role, LayerId, ExpertId) -> const quant::Codec& {
                                   return *quant::find_codec(type);
                                 });
    return Checkpoint::open(path);
  }
  TemporaryFolder folder_;
  Checkpoint source_ = Checkpoint::open(model::testing::tiny_model(GetParam()));
};

INSTANTIATE_TEST_SUITE_P(Models, ExpertCache, ::testing::Values("plain", "odd-sizes"),
                         [](const auto& model) {
                           return model.param == "plain" ? "Plain" : "OddSizes";
                         });

TEST_P(ExpertCache, GivesTheBitsOfResidentStacks) {
  expect_same_bits(source_);
  expect_same_bits_with_guesses(source_);
}

TEST_P(ExpertCache, ReadsAnExpertAtMostOnceForAChunkOfAPrompt) {
  const experts::SlotLayout layout(catalogue_experts(source_));
  experts::CacheOptions cache;
  cache.slots = layout.minimum(source_.spec().moe.top_k);
  Log log;
  Engine engine(source_, {.threads = 2, .expert_cache = cache}, log);
  KvCache kv = engine.make_cache(64);
  std::vector<TokenId> tokens(60);
  Rng rng(4);
  for (TokenId& token : tokens) token = TokenId{static_cast<std::int32_t>(rng.below(256))};
  (void)engine.next_logits(kv, tokens);
  const experts::CacheStatistics& statistics = *engine.expert_cache();
  EXPECT_GT(statistics.evictions, 0U);
  std::uint64_t all = 0;
  for (std::uint32_t l = 0; l < source_.spec().num_hidden_layers; ++l) {
    if (source_.spec().is_moe_layer(LayerId{l})) all += source_.spec().num_experts(LayerId{l});
  }
  EXPECT_LE(statistics.misses, all);
  EXPECT_LE(statistics.bytes_read, layout.all().value);
}

TEST_P(ExpertCache, SequencesTogetherReadTheUnionAndEachHasItsOwnBits) {
  constexpr std::size_t kSequences = 4;
  experts::CacheOptions cache;
  cache.slots = experts::SlotLayout(catalogue_experts(source_)).minimum(source_.spec().moe.top_k);
  Log log;
  Engine cached(source_, {.threads = 2, .expert_cache = cache}, log);
  Engine alone(source_, {.threads = 2, .expert_cache = cache}, log);
  Engine resident(source_, {.threads = 2}, log);
  Rng rng(5);
  std::vector<std::vector<TokenId>> texts(kSequences, std::vector<TokenId>(12));
  for (auto& text : texts) {
    for (TokenId& token : text) token = TokenId{static_cast<std::int32_t>(rng.below(256))};
  }
  std::vector<KvCache> together, apart, expected;
  for (std::size_t s = 0; s < kSequences; ++s) {
    together.push_back(cached.make_cache(16));
    apart.push_back(alone.make_cache(16));
    expected.push_back(resident.make_cache(16));
  }
  for (std::size_t t = 0; t < texts.front().size(); ++t) {
    std::vector<SequenceInput> inputs;
    for (std::size_t s = 0; s < kSequences; ++s) {
      inputs.push_back({&together[s], std::span(texts[s]).subspan(t, 1)});
    }
    const auto hidden = cached.forward(inputs);
    for (std::size_t s = 0; s < kSequences; ++s) {
      SequenceInput one{&expected[s], std::span(texts[s]).subspan(t, 1)};
      const auto own = resident.forward(std::span(&one, 1)).row(0);
      const auto row = hidden.row(s);
      EXPECT_TRUE(std::equal(row.begin(), row.end(), own.begin())) << s << " at " << t;
      one.cache = &apart[s];
      (void)alone.forward(std::span(&one, 1));
    }
  }
  EXPECT_LT(cached.expert_cache()->bytes_read, alone.expert_cache()->bytes_read);
}

TEST_P(ExpertCache, PredictsTokensOneByOneAndCountsWhatItNamed) {
  experts::CacheOptions cache;
  cache.slots = experts::SlotLayout(catalogue_experts(source_)).all();
  Log log;
  Engine engine(source_,
                {.threads = 1,
                 .expert_cache = cache,
                 .prefetch = {experts::PrefetchOptions::Mode::kAlways, "next-router"}},
                log);
  KvCache kv = engine.make_cache(64);
  const std::vector<TokenId> prompt = {TokenId{3}, TokenId{77}, TokenId{5}};
  (void)engine.next_logits(kv, prompt);
  const experts::PrefetchStatistics& statistics = *engine.prefetch();
  EXPECT_EQ(statistics.read, 0U) << "a prompt needs most experts anyway";
  for (std::int32_t token = 0; token < 20; ++token) {
    const TokenId id{token};
    (void)engine.next_logits(kv, std::span(&id, 1));
  }
  const std::uint32_t last = source_.spec().num_hidden_layers - 1;
  const auto& recall = statistics.layers[last];
  EXPECT_EQ(recall.chosen, std::uint64_t{20} * source_.spec().moe.top_k);
  EXPECT_LE(recall.among_k, recall.among_twice);
  EXPECT_LE(recall.among_twice, recall.chosen);
  EXPECT_GT(recall.among_twice, 0U);
  EXPECT_EQ(statistics.layers[0].chosen, 0U);
}

TEST_P(ExpertCache, GivesTheBitsOfResidentExpertsOfEveryKind) {
  const Checkpoint checkpoint = written(model::testing::every_kind(source_.spec()), "F32");
  expect_same_bits(checkpoint);
  expect_same_bits_with_guesses(checkpoint);
}

TEST_P(ExpertCache, GivesTheBitsOfResidentExpertsThatShareMatrices) {
  expect_same_bits(written(model::testing::shared_experts(source_.spec()), "Q8_0"));
}

TEST_P(ExpertCache, EndsARequestWhenAFileIsTruncatedAndLives) {
  const Checkpoint checkpoint = written(model::testing::every_kind(source_.spec()), "F32");
  experts::CacheOptions cache;
  cache.slots =
      experts::SlotLayout(catalogue_experts(checkpoint)).minimum(source_.spec().moe.top_k);
  Log log;
  Engine engine(checkpoint, {.threads = 2, .expert_cache = cache}, log);
  KvCache kv = engine.make_cache(64);
  const std::vector<TokenId> tokens = {TokenId{3}, TokenId{77}, TokenId{5}};
  (void)engine.next_logits(kv, tokens);
  const auto path = folder_.path() / "model.gguf";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Error error = model::testing::error_of([&] { (void)engine.next_logits(kv, tokens); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData) << error.message();
    EXPECT_THAT(error.message(), HasSubstr("model.gguf"));
    EXPECT_THAT(error.message(), HasSubstr("expert "));
  }
}

class MemoryPlans : public ::testing::Test {
 protected:
  MemoryNeeds needs_{.positions = 64,
                     .kv_type = kernels::KvType::kF16,
                     .threads = 2,
                     .other = {},
                     .process = {std::uint64_t{9} << 20}};
  Checkpoint checkpoint_ = Checkpoint::open(std::string(WINNOW_SOURCE_DIR) + "/models/grain");
};

TEST_F(MemoryPlans, AddUpToNoMoreThanTheirBudgetAndGrowWithIt) {
  const MemoryRange range = memory_range(checkpoint_, needs_);
  std::size_t slots = 0;
  for (std::uint64_t budget = range.minimum.value; budget < range.resident.value + 20'000'000;
       budget += 1'234'567) {
    const MemoryPlan plan = plan_memory(checkpoint_, needs_, {budget});
    EXPECT_LE(plan.total().value, budget);
    ASSERT_EQ(plan.slots.size(), 1U);
    EXPECT_GE(plan.slots[0].slots + 16, slots);  // longer pieces of a prompt take some
    EXPECT_TRUE(plan.resident || slots < plan.slots[0].experts);
    EXPECT_EQ(plan.resident, plan.covered() == 1);
    slots = plan.slots[0].slots;
  }
  EXPECT_TRUE(plan_memory(checkpoint_, needs_, range.resident).resident);
  EXPECT_EQ(plan_memory(checkpoint_, needs_, range.resident + Bytes{100 << 20}).tokens,
            needs_.tokens);
}

TEST_F(MemoryPlans, NameTheMinimum) {
  const MemoryRange range = memory_range(checkpoint_, needs_);
  EXPECT_EQ(plan_memory(checkpoint_, needs_, range.minimum).minimum, range.minimum);
  const Error error =
      model::testing::error_of([&] { plan_memory(checkpoint_, needs_, range.minimum - Bytes{1}); });
  EXPECT_EQ(error.code(), ErrorCode::kBudget);
  EXPECT_THAT(error.message(), HasSubstr(std::to_string(range.minimum.value)));
  EXPECT_THAT(error.message(), HasSubstr("64 positions"));
}

TEST_F(MemoryPlans, TakeMoreForLongerTextsAndMoreSequences) {
  const Bytes before = memory_range(checkpoint_, needs_).minimum;
  needs_.positions = 512;
  const Bytes longer = memory_range(checkpoint_, needs_).minimum;
  needs_.caches = 4;
  const Bytes more = memory_range(checkpoint_, needs_).minimum;
  EXPECT_LE(before, longer);
  EXPECT_LT(longer, more);
}

}  // namespace
}  // namespace winnow::engine::expert_cache_test
