// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// JSON values (nlohmann-json) and a parser for files of unknown origin.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace winnow {

/// Keys keep their order, so that what is written reads as it was meant.
using Json = nlohmann::ordered_json;

/// Parses hostile text: refuses duplicate keys, nesting beyond 100 levels and anything that is not
/// JSON (comments, NaN) with Error{kBadData} whose message begins with `name`.
Json parse_json(std::string_view text, std::string_view name);

/// Objects sorted by key. Finding or adding a key costs O(log n) here and O(n) in `Json`, so files
/// with objects of 100,000 keys (vocabularies) are read as this.
using SortedJson = nlohmann::json;

/// As `parse_json`, in O(n log n) however many keys an object has.
SortedJson parse_sorted_json(std::string_view text, std::string_view name);

/// One line without blanks, or indented by 2 when `pretty`. Invalid UTF-8 is replaced by U+FFFD.
std::string dump_json(const Json& value, bool pretty = false);

}  // namespace winnow
