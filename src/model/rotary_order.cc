// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/rotary_order.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace winnow::model {

bool is_rotated(Role role) {
  return role == Role::kQueryProj || role == Role::kKeyProj || role == Role::kQueryBias ||
         role == Role::kKeyBias;
}

void reorder_heads(std::span<std::byte> rows, std::size_t row_bytes, std::size_t head_dim,
                   RotaryPairs wanted) {
  WINNOW_CHECK(head_dim % 2 == 0 && rows.size() % (head_dim * row_bytes) == 0);
  const std::size_t half = head_dim / 2;
  std::vector<std::byte> before(head_dim * row_bytes);
  for (std::size_t begin = 0; begin < rows.size(); begin += before.size()) {
    const auto head = rows.subspan(begin, before.size());
    std::copy(head.begin(), head.end(), before.begin());
    for (std::size_t i = 0; i < head_dim; ++i) {
      const std::size_t adjacent = i < half ? 2 * i : 2 * (i - half) + 1;
      const bool apart = wanted == RotaryPairs::kAdjacent;
      std::copy_n(before.data() + (apart ? i : adjacent) * row_bytes, row_bytes,
                  head.data() + (apart ? adjacent : i) * row_bytes);
    }
  }
}

}  // namespace winnow::model
