// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/test_models.h"

namespace winnow::engine::kv_cache_test {
namespace {

using kernels::KvType;

/// 2 layers, 2 heads of 16 for keys and values.
model::ModelSpec tiny_spec() {
  return model::Checkpoint::open(model::testing::tiny_model("plain")).spec();
}

TEST(KvCache, HoldsWholeStripsOfPositions) {
  // Keys and values of 2 layers and 2 heads, strips of 16 positions of 16 elements.
  constexpr std::size_t kStrip = 2 * 2 * 2 * 16 * 16;
  EXPECT_EQ(KvCache(tiny_spec(), 16, KvType::kF32).memory().value, kStrip * 4);
  EXPECT_EQ(KvCache(tiny_spec(), 17, KvType::kF16).memory().value, 2 * kStrip * 2);
  EXPECT_EQ(KvCache(tiny_spec(), 1, KvType::kQ8_0).memory().value, kStrip + kStrip / 16 * 2);
}

TEST(KvCache, KeepsHeadsApart) {
  KvCache cache(tiny_spec(), 20, KvType::kF16);
  const std::size_t bytes = 2 * cache.layout().strip_bytes();
  EXPECT_EQ(cache.keys(LayerId{0}, 1) - cache.keys(LayerId{0}, 0),
            static_cast<std::ptrdiff_t>(bytes));
  EXPECT_EQ(cache.values(LayerId{0}, 0) - cache.keys(LayerId{0}, 0),
            static_cast<std::ptrdiff_t>(2 * bytes));
  EXPECT_EQ(cache.values(LayerId{1}, 1) - cache.keys(LayerId{0}, 0),
            static_cast<std::ptrdiff_t>(7 * bytes));
}

TEST(KvCache, GrowsToItsCapacityAndForgets) {
  KvCache cache(tiny_spec(), 20);
  cache.advance(20);
  EXPECT_THROW(cache.advance(1), Error);
  cache.truncate(3);
  EXPECT_EQ(cache.length(), 3U);
  EXPECT_THROW(cache.truncate(4), Error);
}

}  // namespace
}  // namespace winnow::engine::kv_cache_test
