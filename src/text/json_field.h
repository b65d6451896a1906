// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A JSON value that knows where it stands in its file, so that a wrong type is reported with its
// key. Used by the readers of this module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace winnow::text {

/// Borrows the value. All errors are Error{kBadData}: "file: key 'path' ...".
class JsonField {
 public:
  JsonField(const SortedJson& value, std::string path, std::string_view file)
      : value_(&value), path_(std::move(path)), file_(file) {}

  const SortedJson& value() const { return *value_; }
  const std::string& path() const { return path_; }
  std::string_view file() const { return file_; }

  /// A member that has to be there.
  JsonField at(std::string_view key) const;
  /// A member that may be missing or null.
  std::optional<JsonField> find(std::string_view key) const;
  /// An element of what `array()` has checked.
  JsonField element(std::size_t i) const;

  const SortedJson& object() const;
  const SortedJson& array() const;
  const std::string& string() const;
  bool boolean() const;
  /// An integer in [0, limit).
  std::size_t integer_below(std::size_t limit) const;

  /// "... is (what it is); expected (what)".
  [[noreturn]] void fail_expected(std::string_view what) const;

 private:
  const SortedJson* value_;
  std::string path_;
  std::string_view file_;
};

}  // namespace winnow::text
