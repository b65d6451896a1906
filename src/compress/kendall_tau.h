// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How far two ways of judging the same things agree on their order.
#pragma once

#include <span>

namespace winnow::compress {

/// Kendall's tau-b (Kendall 1945): over all pairs, those that both order alike less those that they
/// order differently, divided by the geometric mean of the numbers of pairs that each does order.
/// In [-1, 1]; 0 where one of them orders none. a, b: values of the same things, finite; O(n^2).
double kendall_tau(std::span<const double> a, std::span<const double> b);

}  // namespace winnow::compress
