// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "base/rng.h"

namespace winnow::crc32c_test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::vector<std::byte> numbered(std::size_t count, int first, int step) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < count; ++i) {
    bytes.push_back(static_cast<std::byte>(first + static_cast<int>(i) * step));
  }
  return bytes;
}

// RFC 3720, B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, GivesThePublishedValues) {
  for (const auto sum : {crc32c, crc32c_portable}) {
    EXPECT_EQ(sum({}, 0), 0U);
    EXPECT_EQ(sum(bytes_of("123456789"), 0), 0xE3069283U);
    EXPECT_EQ(sum(numbered(32, 0, 0), 0), 0x8A9136AAU);
    EXPECT_EQ(sum(numbered(32, 0xFF, 0), 0), 0x62A8AB43U);
    EXPECT_EQ(sum(numbered(32, 0, 1), 0), 0x46DD794EU);
    EXPECT_EQ(sum(numbered(32, 31, -1), 0), 0x113FDB5CU);
  }
}

TEST(Crc32c, GoesOnWhereItEndedAndIsTheSameOnEveryProcessor) {
  Rng rng(7);
  std::vector<std::byte> bytes(1000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.next());
  const std::uint32_t whole = crc32c(bytes);
  for (std::size_t cut = 0; cut <= bytes.size(); cut += 37) {
    const auto [first, second] =
        std::pair(std::span(bytes).first(cut), std::span(bytes).subspan(cut));
    EXPECT_EQ(crc32c(second, crc32c(first)), whole) << cut;
    EXPECT_EQ(crc32c_portable(second, crc32c(first)), whole) << cut;
    EXPECT_EQ(crc32c(first), crc32c_portable(first)) << cut;
  }
}

}  // namespace
}  // namespace winnow::crc32c_test
