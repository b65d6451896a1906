// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: how much the test program has allocated.
#pragma once

#include <cstdint>

namespace winnow::formats::testing {

/// Bytes that `operator new` has been asked for since the program began; never falls.
std::uint64_t allocated_bytes();

}  // namespace winnow::formats::testing
