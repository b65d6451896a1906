// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/rotary_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace winnow::model::rotary_order_test {
namespace {

std::string reordered(std::string rows, std::size_t row_bytes, std::size_t head_dim,
                      RotaryPairs wanted) {
  reorder_heads(std::as_writable_bytes(std::span(rows)), row_bytes, head_dim, wanted);
  return rows;
}

TEST(RotaryOrder, PairsOfTheTwoHalvesBecomeNeighbours) {
  EXPECT_EQ(reordered("aabbccddeeff", 2, 6, RotaryPairs::kAdjacent), "aaddbbeeccff");
}

TEST(RotaryOrder, EachHeadIsReorderedByItself) {
  EXPECT_EQ(reordered("abcdefgh", 1, 4, RotaryPairs::kAdjacent), "acbdegfh");
}

TEST(RotaryOrder, TheOtherWayIsTheInverse) {
  std::string rows(std::size_t{3} * 10 * 7, ' ');
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<char>(i);
  const std::string there = reordered(rows, 7, 10, RotaryPairs::kAdjacent);
  EXPECT_NE(there, rows);
  EXPECT_EQ(reordered(there, 7, 10, RotaryPairs::kHalves), rows);
}

TEST(RotaryOrder, OnlyQueriesAndKeysAreRotated) {
  EXPECT_TRUE(is_rotated(Role::kQueryBias));
  EXPECT_TRUE(is_rotated(Role::kKeyProj));
  EXPECT_FALSE(is_rotated(Role::kValueProj));
  EXPECT_FALSE(is_rotated(Role::kAttentionOutput));
}

}  // namespace
}  // namespace winnow::model::rotary_order_test
