// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The order of the rows of queries and keys within a head: formats differ in which two numbers the
// rotary embedding (arXiv:2104.09864) turns together, and so in nothing but this order.
#pragma once

#include <cstddef>
#include <span>

#include "model/roles.h"
#include "model/spec.h"

namespace winnow::model {

/// Whether the tensor's rows (a bias's numbers) are those of queries or keys.
bool is_rotated(Role role);

/// Brings whole heads of `head_dim` rows, `row_bytes` bytes each, into the order of `wanted` from
/// the other one: rows i and head_dim / 2 + i of kHalves are rows 2 i and 2 i + 1 of kAdjacent.
/// rows: a multiple of head_dim * row_bytes; head_dim even.
void reorder_heads(std::span<std::byte> rows, std::size_t row_bytes, std::size_t head_dim,
                   RotaryPairs wanted);

}  // namespace winnow::model
