// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Units and ids as types: they cost nothing and remove the swapped integer argument.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace winnow {

/// A count of bytes. Adding it to an element or token count does not compile.
struct Bytes {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(Bytes, Bytes) = default;
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return {a.value + b.value}; }
  friend constexpr Bytes operator-(Bytes a, Bytes b) { return {a.value - b.value}; }
  constexpr Bytes& operator+=(Bytes other) {
    value += other.value;
    return *this;
  }
};

/// Reads "8GiB", "500MB", "1.5GiB", "4096". Decimal suffixes kB MB GB TB are powers of 1000,
/// KiB MiB GiB TiB powers of 1024; case is ignored.
/// Throws Error{kUsage} that names `what` on anything else, negatives and overflow included.
Bytes parse_bytes(std::string_view text, std::string_view what);

/// "3.62 GiB", "12.1 MiB", "812 B": for people.
std::string format_bytes(Bytes bytes);

/// One transformer layer, in [0, num_hidden_layers). An id, so it has no arithmetic.
enum class LayerId : std::uint32_t {};
/// One routed expert of one layer, in [0, num_experts).
enum class ExpertId : std::uint32_t {};
/// One entry of the vocabulary, in [0, vocab_size).
enum class TokenId : std::int32_t {};

constexpr std::uint32_t index(LayerId id) { return static_cast<std::uint32_t>(id); }
constexpr std::uint32_t index(ExpertId id) { return static_cast<std::uint32_t>(id); }
constexpr std::int32_t index(TokenId id) { return static_cast<std::int32_t>(id); }

}  // namespace winnow
