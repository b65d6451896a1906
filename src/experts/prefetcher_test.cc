// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/prefetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "base/error.h"

namespace winnow::experts::prefetcher_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Mode = PrefetchOptions::Mode;

constexpr CacheShape kShape{.num_layers = 3, .num_experts = 6, .top_k = 2, .slots = 4};
constexpr std::uint64_t kExpert = 1000;

/// Experts that are there or not, and what is guessed.
class FakeStore final : public ExpertStore {
 public:
  struct Nothing final : Batch {
    Nothing(FakeStore& store, std::uint64_t bytes) : store_(store), bytes_(bytes) {
      ++store_.alive_;
      store_.statistics_.bytes_read += bytes_;
      store_.statistics_.guessed_bytes += bytes_;
    }
    /// None of the reads has begun.
    ~Nothing() override {
      --store_.alive_;
      store_.statistics_.bytes_read -= bytes_;
      store_.statistics_.guessed_bytes -= bytes_;
    }
    std::optional<PinnedExpert> next_ready() override { return std::nullopt; }
    bool ready() const override { return false; }
    FakeStore& store_;
    std::uint64_t bytes_;
  };
  std::unique_ptr<Batch> request(LayerId layer, std::span<const ExpertId> experts,
                                 Priority priority) override {
    EXPECT_EQ(priority, Priority::kSpeculation);
    for (const ExpertId expert : experts) {
      guessed_.emplace_back(index(layer), index(expert));
    }
    return std::make_unique<Nothing>(*this, experts.size() * kExpert);
  }
  Bytes memory() const override { return {}; }
  const CacheStatistics* statistics() const override { return &statistics_; }
  Bytes absent_bytes(LayerId layer, ExpertId expert) const override {
    return {present_.count({index(layer), index(expert)}) != 0 ? 0 : kExpert};
  }
  double read_rate() const override { return rate_; }

  using Key = std::pair<std::uint32_t, std::uint32_t>;
  std::set<Key> present_;
  std::vector<Key> guessed_;
  CacheStatistics statistics_;
  double rate_ = 0;
  int alive_ = 0;  // batches
};

class FixedPreview final : public RouterPreview {
 public:
  std::span<const float> logits(LayerId /*layer*/) override { return logits_; }
  std::vector<float> logits_ = {0, 5, 1, 4, 3, 2};  // 1, 3, 4, 5, 2, 0
};

class PrefetcherTest : public ::testing::Test {
 protected:
  static std::vector<ExpertId> experts(std::initializer_list<std::uint32_t> ids) {
    std::vector<ExpertId> list;
    for (const std::uint32_t id : ids) list.push_back(ExpertId{id});
    return list;
  }
  /// A token: layer 0 uses 0 and 1, is looked ahead from, and layer 1 uses `chosen`.
  void pass(Prefetcher& prefetcher, std::initializer_list<std::uint32_t> chosen) {
    prefetcher.begin_pass(TokenId{1});
    prefetcher.look_ahead(LayerId{0}, kShape.num_experts, nullptr);
    prefetcher.routed(LayerId{0}, experts({0, 1}));
    store_.statistics_.bytes_read += needed_;
    prefetcher.look_ahead(LayerId{1}, kShape.num_experts, &preview_);
    prefetcher.routed(LayerId{1}, experts(chosen));
  }

  FakeStore store_;
  FixedPreview preview_;
  std::uint64_t needed_ = 0;  // bytes of what layer 0 has to read
};

TEST_F(PrefetcherTest, ReadsTheAbsentOfTheLikeliestAndCountsWhatCameTrue) {
  store_.present_ = {{1, 1}};
  Prefetcher prefetcher(store_, kShape, {.mode = Mode::kAlways, .predictor = "next-router"});
  pass(prefetcher, {3, 5});
  EXPECT_THAT(store_.guessed_, ElementsAre(FakeStore::Key{1, 3}));
  const PrefetchStatistics& statistics = prefetcher.statistics();
  EXPECT_EQ(statistics.read, 1U);
  EXPECT_EQ(statistics.useful, 1U);
  EXPECT_EQ(statistics.layers[0].chosen, 0U) << "nothing is known before the first router";
  EXPECT_EQ(statistics.layers[1].chosen, 2U);
  EXPECT_EQ(statistics.layers[1].among_k, 1U);
  EXPECT_EQ(statistics.layers[1].among_twice, 2U);
  pass(prefetcher, {1, 2});
  EXPECT_EQ(statistics.read, 2U);
  EXPECT_EQ(statistics.useful, 1U);
  EXPECT_EQ(statistics.layers[1].among_twice, 3U);
}

TEST_F(PrefetcherTest, HoldsItsGuessesUntilTheLayerHasAskedForItsOwn) {
  Prefetcher prefetcher(store_, kShape, {.mode = Mode::kAlways, .predictor = "next-router"});
  pass(prefetcher, {3, 5});
  EXPECT_EQ(store_.alive_, 1);
  prefetcher.look_ahead(LayerId{2}, kShape.num_experts, &preview_);
  EXPECT_EQ(store_.alive_, 1) << "those of the layer after";
  prefetcher.begin_pass(TokenId{2});
  EXPECT_EQ(store_.alive_, 0);
}

TEST_F(PrefetcherTest, NamesNoExpertThatASmallerLayerLacks) {
  Prefetcher prefetcher(store_, kShape, {.mode = Mode::kAlways, .predictor = "next-router"});
  preview_.logits_ = {1, 2, 3};
  prefetcher.begin_pass(TokenId{1});
  prefetcher.routed(LayerId{0}, experts({0, 1}));
  prefetcher.look_ahead(LayerId{1}, 3, &preview_);
  EXPECT_THAT(store_.guessed_, ElementsAre(FakeStore::Key{1, 2}, FakeStore::Key{1, 1}));
}

TEST_F(PrefetcherTest, ReadsOnceItPaysAndPredictsNowAndThenUntilThen) {
  Prefetcher prefetcher(store_, kShape, {.predictor = "next-router"});
  // No rate is known yet: nothing is read, one pass in eight is predicted.
  for (int i = 0; i < 80; ++i) pass(prefetcher, {1, 3});
  EXPECT_THAT(store_.guessed_, IsEmpty());
  EXPECT_EQ(prefetcher.statistics().layers[1].chosen, 20U);
  // The disk had nothing to do in all that time: a read takes next to none of it.
  store_.rate_ = 1e15;
  for (int i = 0; i < 8000 && store_.guessed_.empty(); ++i) pass(prefetcher, {1, 3});
  EXPECT_FALSE(store_.guessed_.empty());
  const std::uint64_t before = prefetcher.statistics().layers[1].chosen;
  for (int i = 0; i < 10; ++i) pass(prefetcher, {1, 3});
  EXPECT_EQ(prefetcher.statistics().layers[1].chosen, before + 20) << "now each pass is predicted";
}

TEST_F(PrefetcherTest, ReadsNothingWhileTheDiskIsBusy) {
  Prefetcher prefetcher(store_, kShape, {.predictor = "next-router"});
  store_.rate_ = 1;  // a thousand seconds an expert
  needed_ = kExpert;
  for (int i = 0; i < 2000; ++i) {
    pass(prefetcher, {1, 3});
  }
  EXPECT_THAT(store_.guessed_, IsEmpty());
  EXPECT_GT(prefetcher.gate().precision(0), 0.9);
  EXPECT_EQ(prefetcher.statistics().named_right, prefetcher.statistics().named);
}

TEST_F(PrefetcherTest, CountsNeitherGuessesNorWhatBecameOfThemAsNeeded) {
  Prefetcher prefetcher(store_, kShape, {.mode = Mode::kAlways, .predictor = "next-router"});
  store_.rate_ = 1;  // a single byte would fill the time
  for (int i = 0; i < 50; ++i) {
    pass(prefetcher, {3, 5});
    prefetcher.look_ahead(LayerId{2}, kShape.num_experts, &preview_);
    prefetcher.routed(LayerId{2}, experts({3, 5}));
  }
  EXPECT_FALSE(store_.guessed_.empty());
  EXPECT_EQ(prefetcher.gate().busy_share(), 0);
}

TEST_F(PrefetcherTest, RefusesAPredictorThatThereIsNot) {
  EXPECT_THROW(Prefetcher(store_, kShape, {.predictor = "oracle"}), Error);
}

}  // namespace
}  // namespace winnow::experts::prefetcher_test
