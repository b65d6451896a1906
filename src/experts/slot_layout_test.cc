// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/slot_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "experts/testing.h"
#include "os/read_source.h"

namespace winnow::experts::slot_layout_test {
namespace {

using testing::MatrixPlacer;
using testing::NumberedMemory;

constexpr std::size_t kBlock = os::kReadAlignment;
constexpr std::size_t kHidden = 16;

ExpertRecord record_of(const ExpertLocation& location) {
  return SlotLayout({{location}}).record(LayerId{0}, ExpertId{0});
}

TEST(SlotLayout, ReadsMatricesThatFollowEachOtherAtOnce) {
  const NumberedMemory file(1 << 20);
  MatrixPlacer place(file);
  const ExpertRecord record = record_of(place.expert(64, kHidden));
  ASSERT_EQ(record.reads.size(), 1U);
  EXPECT_EQ(record.reads[0].offset, 0U);
  EXPECT_EQ(record.reads[0].size, 4 * kBlock);
  EXPECT_EQ(record.reads[0].least, place.end());
  EXPECT_EQ(record.bytes, 4 * kBlock);
}

TEST(SlotLayout, ReadsMatricesOfStacksInThreeSlices) {
  const NumberedMemory file(1 << 20);
  MatrixPlacer place(file);
  ExpertLocation expert;
  expert.gate_proj = place.next(64, kHidden);  // bytes 32 to 4128
  place.skip(2 * kBlock);
  expert.up_proj = place.next(64, kHidden);
  place.skip(2 * kBlock);
  expert.down_proj = place.next(kHidden, 64);
  const SlotLayout layout({{expert}});
  const ExpertRecord& record = layout.record(LayerId{0}, ExpertId{0});
  ASSERT_EQ(record.reads.size(), 3U);
  EXPECT_EQ(record.bytes, 6 * kBlock);
  EXPECT_EQ(layout.position(record, expert.gate_proj), 32U);
  EXPECT_EQ(layout.position(record, expert.up_proj), 2 * kBlock + 32);
  EXPECT_EQ(layout.position(record, expert.down_proj), 4 * kBlock + 32);
}

TEST(SlotLayout, ReadsFactorsOfCorrectionsToo) {
  const NumberedMemory file(1 << 20);
  MatrixPlacer place(file);
  ExpertLocation expert = place.expert(64, kHidden);
  place.skip(64 * kBlock);
  expert.up_proj.left = place.next(64, 2);
  expert.up_proj.right = place.next(2, kHidden);
  const ExpertRecord record = record_of(expert);
  ASSERT_EQ(record.reads.size(), 2U);
  EXPECT_EQ(record.bytes, 5 * kBlock);
}

TEST(SlotLayout, NeedsNoBytesForExpertsWithoutMatricesOfTheirOwn) {
  const NumberedMemory file(1 << 20);
  MatrixPlacer place(file);
  const SlotLayout layout({{ZeroExpert{}, place.expert(64, kHidden), SharedSource{ExpertId{1}},
                            ConstantSource{{1, 2}}, IdentityExpert{}},
                           {}});
  EXPECT_EQ(layout.all().value, 4 * kBlock);
  EXPECT_EQ(layout.minimum(3).value, 4 * kBlock);
  EXPECT_EQ(layout.record(LayerId{0}, ExpertId{2}).bytes, 0U);
}

/// `widths` of the experts of each layer.
SlotLayout layout_of(const os::RandomAccessFile& file,
                     const std::vector<std::vector<std::size_t>>& widths) {
  MatrixPlacer place(file);
  place.skip(kBlock - 32);
  ExpertCatalogue catalogue;
  for (const auto& layer : widths) {
    auto& sources = catalogue.emplace_back();
    // 64 inner channels are 3 blocks.
    for (const std::size_t width : layer) sources.emplace_back(place.expert(64 * width, kHidden));
  }
  return SlotLayout(catalogue);
}

TEST(SlotLayout, MakesAsManySlotsAsFitWhereAllExpertsAreAlike) {
  const NumberedMemory file(1 << 20);
  const SlotLayout layout = layout_of(file, {{1, 1, 1, 1}, {1, 1, 1, 1}});
  const std::size_t slot = 3 * kBlock;
  EXPECT_EQ(layout.minimum(2).value, 2 * slot);
  for (const std::size_t slots : {2, 3, 7, 8}) {
    const auto classes = layout.divide({slots * slot + slot - 1}, 2);
    ASSERT_EQ(classes.size(), 1U);
    EXPECT_EQ(classes[0].slots, slots);
    EXPECT_EQ(classes[0].bytes, slot);
  }
  EXPECT_EQ(layout.divide({1000 * slot}, 2)[0].slots, 8U);
}

TEST(SlotLayout, GivesEachSizeItsShareWhereThereIsRoom) {
  const NumberedMemory file(1 << 22);
  const SlotLayout layout = layout_of(file, {{1, 1, 1, 1, 4, 4}, {1, 1, 1, 1, 4, 4}});
  const std::size_t small = 3 * kBlock;
  const auto classes = layout.divide({22 * small}, 2);  // 24 are all
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_EQ(classes[0].bytes, small);
  EXPECT_EQ(classes[0].experts, 8U);
  EXPECT_EQ(classes[1].bytes, 4 * small);
  EXPECT_EQ(classes[1].experts, 4U);
  EXPECT_GE(classes[0].slots, 2U);
  EXPECT_GE(classes[1].slots, 2U);
  EXPECT_LE(total_bytes(classes).value, 22 * small);
  EXPECT_GT(total_bytes(classes).value, 18 * small);
}

TEST(SlotLayout, MakesSlotsOfOneSizeWhereThereIsLittleRoom) {
  const NumberedMemory file(1 << 22);
  const SlotLayout layout = layout_of(file, {{1, 1, 1, 1, 4, 4}});
  const auto classes = layout.divide(layout.minimum(2), 2);
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_EQ(classes[0].slots, 2U);
}

TEST(SlotLayout, NeverExceedsItsBytesWhateverTheSizes) {
  const NumberedMemory file(1 << 26);
  const SlotLayout layout = layout_of(
      file, {{1, 2, 3, 5, 8, 13}, {}, {2, 2, 2, 2, 2, 2, 9}, {1, 1, 1, 1, 1, 1, 1, 1, 40}});
  for (const std::size_t top_k : {1, 2, 4, 9}) {
    const std::size_t least = layout.minimum(top_k).value;
    for (std::size_t bytes = least; bytes < layout.all().value + least; bytes += 3000) {
      const auto classes = layout.divide({bytes}, top_k);
      EXPECT_LE(total_bytes(classes).value, bytes);
      std::size_t experts = 0;
      for (const SlotClass& c : classes) {
        EXPECT_GE(c.slots, c.needed);
        EXPECT_LE(c.slots, c.experts);
        experts += c.experts;
      }
      EXPECT_EQ(experts, 22U);
    }
    const auto all = layout.divide({2 * layout.all().value}, top_k);
    for (const SlotClass& c : all) EXPECT_EQ(c.slots, c.experts);
  }
}

}  // namespace
}  // namespace winnow::experts::slot_layout_test
