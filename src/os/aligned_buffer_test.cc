// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/aligned_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "base/error.h"

namespace winnow::os::aligned_buffer_test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

bool aligned(const AlignedBuffer& buffer, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(buffer.data()) % alignment == 0;
}

TEST(AlignedBuffer, IsZeroedWritableAndAligned) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4095}, std::size_t{4097}, 3 * kMiB}) {
    const AlignedBuffer buffer(bytes);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(buffer.bytes().size(), bytes);
    EXPECT_TRUE(aligned(buffer, 4096));
    const auto all = buffer.bytes();
    EXPECT_EQ(std::count(all.begin(), all.end(), std::byte{0}), static_cast<std::ptrdiff_t>(bytes));
    std::fill(all.begin(), all.end(), std::byte{7});
    EXPECT_EQ(all.back(), std::byte{7});
  }
}

TEST(AlignedBuffer, BeginsALargeOneOnAHugePage) {
  EXPECT_TRUE(aligned(AlignedBuffer(5 * kMiB), 2 * kMiB));
}

TEST(AlignedBuffer, OfNoBytesIsEmpty) {
  const AlignedBuffer buffer(0);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_TRUE(buffer.bytes().empty());
}

TEST(AlignedBuffer, MovesItsMemory) {
  AlignedBuffer first(100);
  first.data()[99] = std::byte{5};
  const std::byte* address = first.data();
  AlignedBuffer second(std::move(first));
  EXPECT_EQ(second.data(), address);
  AlignedBuffer third(7);
  third = std::move(second);
  EXPECT_EQ(third.data(), address);
  EXPECT_EQ(third.size(), 100U);
  EXPECT_EQ(third.data()[99], std::byte{5});
}

TEST(AlignedBuffer, RefusesMoreThanTheSystemHas) {
  // The second and third would wrap when the room for alignment is added.
  for (const std::size_t bytes : {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max(),
                                  std::numeric_limits<std::size_t>::max() - kMiB}) {
    try {
      const AlignedBuffer buffer(bytes);
      FAIL() << "got " << bytes << " bytes";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kSystem);
      EXPECT_NE(error.message().find("EiB of memory"), std::string::npos) << error.message();
    }
  }
}

TEST(PeakResidentBytes, GrowsWithTouchedMemory) {
  const std::size_t before = peak_resident_bytes();
  EXPECT_GT(before, 0U);
  const AlignedBuffer buffer(64 * kMiB);
  const auto all = buffer.bytes();
  std::fill(all.begin(), all.end(), std::byte{1});
  EXPECT_GE(peak_resident_bytes(), 64 * kMiB);
  EXPECT_GE(peak_resident_bytes(), before);
}

}  // namespace
}  // namespace winnow::os::aligned_buffer_test
