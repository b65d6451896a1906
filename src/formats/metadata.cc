// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/metadata.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>

#include "base/error.h"
#include "formats/names.h"

namespace winnow::formats {
namespace {

constexpr std::array<std::string_view, 12> kElementNames = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "u64", "i64", "f64"};
constexpr std::array<std::string_view, 13> kValueNames = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
static_assert(std::variant_size_v<Array> == kElementNames.size());
static_assert(std::variant_size_v<Value> == kValueNames.size());

template <typename T>
constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;
template <typename T>
constexpr bool kIsNumber = kIsInteger<T> || std::is_floating_point_v<T>;

std::string type_name(const Value& value) {
  if (const auto* array = std::get_if<Array>(&value)) {
    return fmt::format("array of {}", kElementNames[array->index()]);
  }
  return std::string(kValueNames[value.index()]);
}

[[noreturn]] void fail_type(const std::string& source, std::string_view key,
                            std::string_view expected, const Value& found) {
  fail_data("{}: key {} is of type {}, expected {}", source, quote_name(key), type_name(found),
            expected);
}

/// The array of a value, or an error that says what was expected.
const Array& as_array(const std::string& source, std::string_view key, std::string_view expected,
                      const Value& value) {
  const auto* array = std::get_if<Array>(&value);
  if (array == nullptr) fail_type(source, key, expected, value);
  return *array;
}

}  // namespace

void Metadata::set(std::string key, Value value) {
  const auto [place, is_new] = places_.try_emplace(key, entries_.size());
  if (is_new) {
    entries_.emplace_back(std::move(key), std::move(value));
  } else {
    entries_[place->second].second = std::move(value);
  }
}

void Metadata::erase(std::string_view key) {
  const auto place = places_.find(key);
  if (place == places_.end()) return;
  const std::size_t erased = place->second;
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(erased));
  places_.erase(place);
  for (auto& [other, position] : places_) {
    if (position > erased) --position;
  }
}

const Value* Metadata::find(std::string_view key) const {
  const auto place = places_.find(key);
  return place == places_.end() ? nullptr : &entries_[place->second].second;
}

const Value& Metadata::at(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) fail_data("{}: key {} is missing", source_, quote_name(key));
  return *value;
}

const std::string& Metadata::string(std::string_view key) const {
  const Value& value = at(key);
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) fail_type(source_, key, "string", value);
  return *text;
}

std::uint64_t Metadata::integer(std::string_view key) const {
  const Value& value = at(key);
  return std::visit(
      [&](const auto& held) -> std::uint64_t {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsInteger<T>) {
          if constexpr (std::is_signed_v<T>) {
            if (held < 0) {
              fail_data("{}: key {} is {}, expected 0 or more", source_, quote_name(key), held);
            }
          }
          return static_cast<std::uint64_t>(held);
        } else {
          fail_type(source_, key, "an integer", value);
        }
      },
      value);
}

double Metadata::number(std::string_view key) const {
  const Value& value = at(key);
  return std::visit(
      [&](const auto& held) -> double {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsNumber<T>) {
          const double number = static_cast<double>(held);
          if (!std::isfinite(number)) {
            fail_data("{}: key {} is {}, expected a finite number", source_, quote_name(key),
                      number);
          }
          return number;
        } else {
          fail_type(source_, key, "a number", value);
        }
      },
      value);
}

bool Metadata::boolean(std::string_view key) const {
  const Value& value = at(key);
  const auto* held = std::get_if<bool>(&value);
  if (held == nullptr) fail_type(source_, key, "bool", value);
  return *held;
}

const std::vector<std::string>& Metadata::strings(std::string_view key) const {
  const Value& value = at(key);
  const Array& array = as_array(source_, key, "array of string", value);
  const auto* texts = std::get_if<std::vector<std::string>>(&array);
  if (texts == nullptr) fail_type(source_, key, "array of string", value);
  return *texts;
}

std::vector<std::int64_t> Metadata::integers(std::string_view key) const {
  constexpr std::string_view kExpected = "array of integers";
  const Value& value = at(key);
  return std::visit(
      [&](const auto& held) -> std::vector<std::int64_t> {
        using T = typename std::decay_t<decltype(held)>::value_type;
        if constexpr (kIsInteger<T>) {
          if constexpr (std::is_same_v<T, std::uint64_t>) {
            const auto large = std::find_if(held.begin(), held.end(), [](T v) { return v >> 63; });
            if (large != held.end()) {
              fail_data("{}: key {}: element {} is {}, which is above 2^63 - 1", source_,
                        quote_name(key), large - held.begin(), *large);
            }
          }
          return std::vector<std::int64_t>(held.begin(), held.end());
        } else {
          fail_type(source_, key, kExpected, value);
        }
      },
      as_array(source_, key, kExpected, value));
}

std::vector<double> Metadata::numbers(std::string_view key) const {
  constexpr std::string_view kExpected = "array of numbers";
  const Value& value = at(key);
  return std::visit(
      [&](const auto& held) -> std::vector<double> {
        using T = typename std::decay_t<decltype(held)>::value_type;
        if constexpr (kIsNumber<T>) {
          return std::vector<double>(held.begin(), held.end());
        } else {
          fail_type(source_, key, kExpected, value);
        }
      },
      as_array(source_, key, kExpected, value));
}

}  // namespace winnow::formats
