// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/cached_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/rng.h"
#include "experts/cache_policy.h"
#include "experts/slot_layout.h"
#include "experts/testing.h"

namespace winnow::experts::cached_store_test {
namespace {

using ::testing::ElementsAre;
using testing::expect_expert;
using ::testing::HasSubstr;
using testing::MatrixPlacer;
using testing::NumberedMemory;
using ::testing::UnorderedElementsAre;

constexpr std::size_t kHidden = 16;
constexpr std::size_t kSlot = 4 * os::kReadAlignment;  // of an expert with 64 inner channels

/// Reads when it is told to, in the order in which it is told.
class ManualReader final : public os::AsyncReader {
 public:
  struct Control {
    std::deque<os::AsyncRead> waiting;  ///< submitted, the next to be read by `wait` first
    std::deque<os::ReadResult> done;
    std::vector<os::ReadPriority> priorities;
    std::set<std::uint64_t> failing;  ///< tags
    std::size_t most_waiting = 0;

    void read(std::size_t which) {
      const os::AsyncRead read = waiting[which];
      waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(which));
      for (std::size_t i = 0; i < read.least; ++i) {
        read.out[i] = os::numbered_byte(read.offset + i);
      }
      std::exception_ptr error;
      if (failing.count(read.tag) != 0) {
        error = std::make_exception_ptr(Error(ErrorCode::kSystem, "experts.bin: offset 7: EIO"));
      }
      done.push_back({read.tag, error});
    }
  };
  explicit ManualReader(Control& control) : control_(control) {}

  void submit(std::span<const os::AsyncRead> reads, os::ReadPriority priority) override {
    for (const os::AsyncRead& read : reads) {
      control_.waiting.push_back(read);
      control_.priorities.push_back(priority);
    }
    control_.most_waiting = std::max(control_.most_waiting, control_.waiting.size());
  }
  void promote(std::uint64_t tag) override {
    const auto moved =
        std::stable_partition(control_.waiting.begin(), control_.waiting.end(),
                              [tag](const os::AsyncRead& read) { return read.tag == tag; });
    (void)moved;
  }
  bool cancel(std::uint64_t tag, std::size_t count) override {
    const auto has_tag = [tag](const os::AsyncRead& read) { return read.tag == tag; };
    const auto waiting = std::count_if(control_.waiting.begin(), control_.waiting.end(), has_tag);
    if (static_cast<std::size_t>(waiting) != count) return false;
    std::erase_if(control_.waiting, has_tag);
    return true;
  }
  std::optional<os::ReadResult> poll() override {
    if (control_.done.empty()) return std::nullopt;
    const os::ReadResult result = control_.done.front();
    control_.done.pop_front();
    return result;
  }
  os::ReadResult wait() override {
    if (control_.done.empty()) control_.read(0);
    return *poll();
  }
  std::string_view method() const override { return "manual"; }

 private:
  Control& control_;
};

class CachedStoreTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kExperts = 6;
  static constexpr std::size_t kTopK = 2;

  CachedStoreTest() : file_(std::size_t{4} << 20), catalogue_(3) {
    MatrixPlacer place(file_);
    for (const std::size_t layer : {0, 2}) {
      for (std::uint32_t e = 0; e < kExperts; ++e) {
        catalogue_[layer].emplace_back(place.expert(64, kHidden));
      }
    }
  }

  std::unique_ptr<ExpertStore> manual_store(std::size_t slots) {
    return make_cached_store(
        catalogue_, {.slots = {slots * kSlot}, .top_k = kTopK, .policy = "lru", .reader = {}},
        [this](auto, const auto&) { return std::make_unique<ManualReader>(control_); });
  }
  const ExpertLocation& location(LayerId layer, ExpertId expert) const {
    return std::get<ExpertLocation>(catalogue_[index(layer)][index(expert)]);
  }
  static std::vector<ExpertId> experts(std::initializer_list<std::uint32_t> ids) {
    std::vector<ExpertId> list;
    for (const std::uint32_t id : ids) list.push_back(ExpertId{id});
    return list;
  }
  /// Asks for these and takes them all, each given back at once; their names in order of delivery.
  std::vector<std::uint32_t> use(ExpertStore& store, LayerId layer,
                                 std::initializer_list<std::uint32_t> ids) {
    const auto batch = store.request(layer, experts(ids), Priority::kDemand);
    std::vector<std::uint32_t> names;
    while (const auto expert = batch->next_ready()) {
      names.push_back(index(expert->expert()));
      expect_expert(location(layer, expert->expert()), *expert);
    }
    return names;
  }

  NumberedMemory file_;
  ExpertCatalogue catalogue_;
  ManualReader::Control control_;
};

constexpr LayerId kFirst{0};
constexpr LayerId kLast{2};

TEST_F(CachedStoreTest, ReadsWhatIsAbsentAndFindsItThereTheNextTime) {
  const auto store = manual_store(4);
  EXPECT_THAT(use(*store, kFirst, {1, 4}), ElementsAre(1, 4));
  EXPECT_THAT(use(*store, kLast, {0}), ElementsAre(0));
  EXPECT_THAT(use(*store, kFirst, {4, 1}), UnorderedElementsAre(1, 4));
  const CacheStatistics& statistics = *store->statistics();
  EXPECT_EQ(statistics.hits, 2U);
  EXPECT_EQ(statistics.misses, 3U);
  EXPECT_EQ(statistics.evictions, 0U);
  EXPECT_EQ(statistics.bytes_read, 3 * kSlot);
  EXPECT_EQ(store->memory().value, 4 * kSlot);
}

TEST_F(CachedStoreTest, SubmitsAllMissesOfARequestTogether) {
  const auto store = manual_store(6);
  const auto batch = store->request(kFirst, experts({0, 1, 2, 3, 4}), Priority::kDemand);
  EXPECT_EQ(control_.waiting.size(), 5U);
}

TEST_F(CachedStoreTest, HandsOutResidentExpertsFirstAndOthersAsTheyArrive) {
  const auto store = manual_store(6);
  use(*store, kFirst, {3});
  const auto batch = store->request(kFirst, experts({0, 1, 2, 3}), Priority::kDemand);
  EXPECT_TRUE(batch->ready());
  EXPECT_EQ(index(batch->next_ready()->expert()), 3U);
  EXPECT_FALSE(batch->ready());
  control_.read(2);
  control_.read(0);
  EXPECT_TRUE(batch->ready());
  EXPECT_EQ(index(batch->next_ready()->expert()), 2U);
  EXPECT_EQ(index(batch->next_ready()->expert()), 0U);
  EXPECT_FALSE(batch->ready());
  EXPECT_EQ(index(batch->next_ready()->expert()), 1U);
  EXPECT_FALSE(batch->next_ready().has_value());
}

TEST_F(CachedStoreTest, TakesTheSlotOfAnExpertThatNobodyUses) {
  const auto store = manual_store(2);
  const auto batch = store->request(kFirst, experts({0}), Priority::kDemand);
  const auto held = batch->next_ready();
  use(*store, kFirst, {1});
  use(*store, kFirst, {2});  // in the place of 1, though 0 is older
  EXPECT_EQ(store->statistics()->evictions, 1U);
  expect_expert(location(kFirst, ExpertId{0}), *held);
}

TEST_F(CachedStoreTest, AnswersRequestsForMoreExpertsThanThereAreSlots) {
  const auto store = manual_store(2);
  EXPECT_EQ(use(*store, kFirst, {0, 1, 2, 3, 4, 5}).size(), 6U);
  EXPECT_EQ(control_.most_waiting, 2U);
  EXPECT_EQ(use(*store, kFirst, {5, 4, 3, 2, 1, 0}).size(), 6U);
}

TEST_F(CachedStoreTest, IsNotReadyForMoreWhileReadsWaitForSlotsThatTheCallerHolds) {
  const auto store = manual_store(2);
  use(*store, kFirst, {0, 1});
  const auto batch = store->request(kFirst, experts({0, 1, 2, 3, 4, 5}), Priority::kDemand);
  std::vector<PinnedExpert> held;
  std::size_t taken = 0;
  while (auto expert = batch->next_ready()) {  // as the engine does
    held.push_back(std::move(*expert));
    ++taken;
    if (batch->ready()) continue;
    for (const PinnedExpert& pin : held) expect_expert(location(kFirst, pin.expert()), pin);
    held.clear();
  }
  EXPECT_EQ(taken, 6U);
}

TEST_F(CachedStoreTest, SaysWhenTheCallerHoldsAllSlotsAndAsksForMore) {
  const auto store = manual_store(2);
  const auto batch = store->request(kFirst, experts({0, 1, 2}), Priority::kDemand);
  const auto first = batch->next_ready();
  const auto second = batch->next_ready();
  EXPECT_FALSE(batch->ready());
  EXPECT_THROW(batch->next_ready(), Error);
}

TEST_F(CachedStoreTest, TellsTheErrorOfOneExpertAndHandsOutTheOthers) {
  const auto store = manual_store(3);
  control_.failing = {1};
  const auto batch = store->request(kFirst, experts({0, 1, 2}), Priority::kDemand);
  std::vector<std::uint32_t> got;
  std::string message;
  for (int i = 0; i < 3; ++i) {
    try {
      got.push_back(index(batch->next_ready()->expert()));
    } catch (const Error& error) {
      message = error.message();
      EXPECT_EQ(error.code(), ErrorCode::kSystem);
    }
  }
  EXPECT_THAT(got, ElementsAre(0, 2));
  EXPECT_EQ(message, "expert 1 of layer 0: experts.bin: offset 7: EIO");
  EXPECT_FALSE(batch->next_ready().has_value());
  control_.failing.clear();
  EXPECT_THAT(use(*store, kFirst, {1}), ElementsAre(1));  // its slot was not lost
  EXPECT_EQ(use(*store, kFirst, {3, 4, 5}).size(), 3U);
}

TEST_F(CachedStoreTest, ChecksAnExpertsBytesWhenItIsFirstRead) {
  const auto checksum_of = [this](std::uint32_t expert) {
    const ExpertLocation& found = location(kFirst, ExpertId{expert});
    const std::uint64_t end = found.down_proj.offset + std::uint64_t{64} * kHidden * sizeof(float);
    std::vector<std::byte> bytes(end - found.gate_proj.offset);
    file_.read_at(found.gate_proj.offset, bytes);
    return crc32c(bytes);
  };
  for (const std::uint32_t e : {0, 1}) {
    std::get<ExpertLocation>(catalogue_[0][e]).crc32c = checksum_of(e);
  }
  *std::get<ExpertLocation>(catalogue_[0][1]).crc32c ^= 4;
  const auto store = manual_store(3);
  EXPECT_THAT(use(*store, kFirst, {0, 2}), ElementsAre(0, 2));
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      use(*store, kFirst, {1});
      FAIL() << "a damaged expert was handed out";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadData);
      EXPECT_THAT(error.message(), HasSubstr("expert 1 of layer 0: experts.bin"));
      EXPECT_THAT(error.message(), HasSubstr("CRC-32C"));
    }
  }
  EXPECT_EQ(use(*store, kFirst, {3, 4, 5}).size(), 3U);  // no slot was lost
}

TEST_F(CachedStoreTest, KeepsWhatArrivesForABatchThatIsGone) {
  const auto store = manual_store(3);
  control_.failing = {1};
  store->request(kFirst, experts({0, 1, 2}), Priority::kDemand).reset();
  control_.failing.clear();
  EXPECT_EQ(use(*store, kFirst, {3, 4, 5}).size(), 3U);
  EXPECT_EQ(use(*store, kFirst, {0, 1, 2}).size(), 3U);
  EXPECT_EQ(store->request(kFirst, experts({3, 4, 5}), Priority::kDemand)->ready(), false);
}

TEST_F(CachedStoreTest, GivesExpertsWithoutMatricesNoSlotAndSharedOnesTheirOwners) {
  catalogue_[0][1] = ZeroExpert{};
  catalogue_[0][2] = SharedSource{ExpertId{0}};
  catalogue_[0][3] = ConstantSource{{1, 2, 3}};
  catalogue_[0][4] = IdentityExpert{};
  const auto store = manual_store(2);
  const auto batch = store->request(kFirst, experts({0, 1, 2, 3, 4}), Priority::kDemand);
  EXPECT_EQ(control_.waiting.size(), 1U);
  std::map<std::uint32_t, std::size_t> forms;
  while (const auto expert = batch->next_ready()) {
    forms[index(expert->expert())] = expert->form().index();
    if (expert->expert() == ExpertId{0} || expert->expert() == ExpertId{2}) {
      expect_expert(location(kFirst, ExpertId{0}), *expert);
    }
    if (const auto* constant = std::get_if<ConstantExpert>(&expert->form())) {
      EXPECT_THAT(constant->values, ElementsAre(1, 2, 3));
    }
  }
  const std::map<std::uint32_t, std::size_t> expected = {{0, 0}, {1, 1}, {2, 0}, {3, 3}, {4, 2}};
  EXPECT_EQ(forms, expected);
  EXPECT_EQ(store->statistics()->misses, 1U);
}

TEST_F(CachedStoreTest, KeepsWhatIsExpectedAgainLongerThanWhatAPromptStreamsThrough) {
  const auto store = manual_store(3);
  store->expect_again(experts({0}));
  use(*store, kFirst, {0, 1, 2});
  use(*store, kLast, {3, 4});  // in the place of 1 and 2, though 0 was not used after them
  EXPECT_EQ(store->statistics()->evictions, 2U);
  const auto batch = store->request(kFirst, experts({0}), Priority::kDemand);
  EXPECT_TRUE(batch->ready());
}

TEST_F(CachedStoreTest, ReadsGuessesWithoutWaitingForThemAndHurriesThoseThatCameTrue) {
  const auto store = manual_store(4);
  const auto guess = store->request(kLast, experts({3, 4}), Priority::kSpeculation);
  EXPECT_THAT(control_.priorities,
              ElementsAre(os::ReadPriority::kSpeculation, os::ReadPriority::kSpeculation));
  EXPECT_THAT(use(*store, kLast, {4}), ElementsAre(4));
  EXPECT_EQ(control_.waiting.size(), 1U);  // expert 3
  EXPECT_EQ(store->statistics()->hits, 1U);
}

TEST_F(CachedStoreTest, TakesGuessesBackThatNobodyWantsAndThatHaveNotBegun) {
  const auto store = manual_store(4);
  EXPECT_EQ(store->absent_bytes(kLast, ExpertId{3}).value, kSlot);
  auto guess = store->request(kLast, experts({3, 4}), Priority::kSpeculation);
  EXPECT_EQ(store->absent_bytes(kLast, ExpertId{3}).value, 0U);
  EXPECT_EQ(store->statistics()->bytes_read, 2 * kSlot);
  const auto batch = store->request(kLast, experts({4}), Priority::kDemand);
  guess.reset();
  ASSERT_EQ(control_.waiting.size(), 1U);  // expert 4, for the batch
  EXPECT_EQ(store->absent_bytes(kLast, ExpertId{3}).value, kSlot);
  EXPECT_EQ(store->statistics()->bytes_read, kSlot);
  EXPECT_EQ(store->statistics()->guessed_bytes, kSlot);
  const auto four = batch->next_ready();
  ASSERT_TRUE(four.has_value());
  expect_expert(location(kLast, ExpertId{4}), *four);
  // The slot is free again.
  EXPECT_THAT(use(*store, kFirst, {0, 1, 2}), ElementsAre(0, 1, 2));
  EXPECT_EQ(store->statistics()->evictions, 0U);
}

TEST_F(CachedStoreTest, GivesTheSlotsOfGuessesToWhatIsNeeded) {
  const auto store = manual_store(2);
  const auto guess = store->request(kLast, experts({3, 4}), Priority::kSpeculation);
  EXPECT_THAT(use(*store, kLast, {0, 1}), UnorderedElementsAre(0, 1));
  EXPECT_EQ(store->statistics()->evictions, 2U);
}

TEST_F(CachedStoreTest, KeepsGuessesWhoseReadsHaveBegun) {
  const auto store = manual_store(4);
  auto guess = store->request(kLast, experts({3}), Priority::kSpeculation);
  control_.read(0);
  guess.reset();
  EXPECT_EQ(store->absent_bytes(kLast, ExpertId{3}).value, 0U);
  EXPECT_THAT(use(*store, kLast, {3}), ElementsAre(3));
  EXPECT_EQ(store->statistics()->misses, 0U);
}

TEST_F(CachedStoreTest, WarmsUpOneByOneIntoFreeSlotsWhileNothingIsRead) {
  const auto store = manual_store(3);
  store->warm_up(std::vector<ExpertUses>{{kLast, ExpertId{5}, 9},
                                         {kFirst, ExpertId{0}, 8},
                                         {kLast, ExpertId{2}, 7},
                                         {kLast, ExpertId{1}, 6}});
  EXPECT_TRUE(control_.waiting.empty());
  store->idle();
  store->idle();
  ASSERT_EQ(control_.waiting.size(), 1U) << "one at a time";
  EXPECT_EQ(control_.priorities.back(), os::ReadPriority::kSpeculation);
  EXPECT_EQ(store->absent_bytes(kLast, ExpertId{5}).value, 0U);
  for (int i = 0; i < 5; ++i) {
    if (!control_.waiting.empty()) control_.read(0);
    store->idle();
  }
  EXPECT_EQ(store->absent_bytes(kLast, ExpertId{2}).value, 0U);
  EXPECT_NE(store->absent_bytes(kLast, ExpertId{1}).value, 0U) << "there was no slot for it";
  EXPECT_EQ(store->statistics()->evictions, 0U);
  EXPECT_THAT(use(*store, kLast, {5}), ElementsAre(5));
  EXPECT_EQ(store->statistics()->hits, 1U);
  EXPECT_EQ(store->hottest().front(), (ExpertUses{kLast, ExpertId{5}, 5}));
}

TEST_F(CachedStoreTest, DropsGuessesThatNoSlotIsLeftFor) {
  const auto store = manual_store(2);
  const auto batch = store->request(kFirst, experts({0, 1}), Priority::kDemand);
  const auto guess = store->request(kLast, experts({3, 4}), Priority::kSpeculation);
  EXPECT_EQ(control_.waiting.size(), 2U);
  EXPECT_FALSE(guess->next_ready().has_value());
}

TEST_F(CachedStoreTest, RefusesLessMemoryThanATokenNeeds) {
  try {
    manual_store(1);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBudget);
    EXPECT_THAT(error.message(), HasSubstr("32.0 KiB"));
  }
}

/// Random requests over all policies: bytes are right, pins stay, memory never grows.
TEST_F(CachedStoreTest, HoldsExpertsAndItsMemoryThroughAnyRequests) {
  for (const PolicyEntry* policy : cache_policies()) {
    for (const std::size_t slots : {2, 3, 5, 12}) {
      for (const auto method : {os::ReadMethod::kAuto, os::ReadMethod::kThreads}) {
        SCOPED_TRACE(fmt::format("{} with {} slots", policy->name, slots));
        const auto store =
            make_cached_store(catalogue_, {.slots = {slots * kSlot + 17},
                                           .top_k = kTopK,
                                           .policy = std::string(policy->name),
                                           .reader = {.method = method, .in_flight = {2 * kSlot}}});
        Rng rng(slots);
        for (int i = 0; i < 60; ++i) {
          const LayerId layer{rng.below(2) == 0 ? 0U : 2U};
          std::vector<ExpertId> wanted;
          for (std::uint32_t e = 0; e < kExperts; ++e) {
            if (rng.below(3) == 0) wanted.push_back(ExpertId{e});
          }
          const auto priority = rng.below(5) == 0 ? Priority::kSpeculation : Priority::kDemand;
          const auto batch = store->request(layer, wanted, priority);
          if (rng.below(7) == 0) continue;  // given up
          std::deque<PinnedExpert> held;
          std::size_t taken = 0;
          while (auto expert = batch->next_ready()) {
            held.push_back(std::move(*expert));
            ++taken;
            for (const PinnedExpert& pin : held) expect_expert(location(layer, pin.expert()), pin);
            if (held.size() + 1 >= slots || !batch->ready()) held.clear();
          }
          EXPECT_TRUE(taken == wanted.size() || priority == Priority::kSpeculation);
          EXPECT_LE(store->memory().value, slots * kSlot + 17);
        }
      }
    }
  }
}

}  // namespace
}  // namespace winnow::experts::cached_store_test
