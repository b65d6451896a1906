// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Typed key-value metadata as GGUF has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace winnow::formats {

/// A flat array; GGUF allows arrays of arrays, no known key uses them, the reader refuses them.
using Array =
    std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                 std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                 std::vector<float>, std::vector<bool>, std::vector<std::string>,
                 std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;
/// The alternatives stand in the order of GGUF's type numbers, 0 (u8) to 12 (f64).
using Value = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                           std::int32_t, float, bool, std::string, Array, std::uint64_t,
                           std::int64_t, double>;

/// Keys in file order. The typed getters throw Error{kBadData} that names file, key, the type
/// expected and the type found; integers of any width are accepted where the value fits.
class Metadata {
 public:
  /// `source` is the file's name, for messages.
  explicit Metadata(std::string source = "metadata") : source_(std::move(source)) {}

  const std::string& source() const { return source_; }
  const std::vector<std::pair<std::string, Value>>& entries() const { return entries_; }
  /// Appends, or replaces the value of an existing key in its place.
  void set(std::string key, Value value);
  void erase(std::string_view key);
  /// Null when the key is absent.
  const Value* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  const std::string& string(std::string_view key) const;
  std::uint64_t integer(std::string_view key) const;  ///< non-negative
  double number(std::string_view key) const;          ///< finite float or integer
  bool boolean(std::string_view key) const;
  const std::vector<std::string>& strings(std::string_view key) const;
  /// Array of any integer type.
  std::vector<std::int64_t> integers(std::string_view key) const;
  /// Array of any integer or float type; elements may be NaN or infinite.
  std::vector<double> numbers(std::string_view key) const;

 private:
  const Value& at(std::string_view key) const;

  std::string source_;
  std::vector<std::pair<std::string, Value>> entries_;
  /// Key to position in `entries_`; a tree, since files choose the keys (no collisions to aim at).
  std::map<std::string, std::size_t, std::less<>> places_;
};

}  // namespace winnow::formats
