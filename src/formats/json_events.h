// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// JSON of unknown origin as a stream of events. A header may hold a million tensors: a tree of it
// would take many times its size, and objects that keep their order find keys in linear time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace winnow::formats {

/// null, a bool, an integer from 0 to 2^64 - 1, a negative integer, any other number, a string.
using JsonScalar =
    std::variant<std::nullptr_t, bool, std::uint64_t, std::int64_t, double, std::string>;

/// "null", "a bool", "a negative number" ...: for messages.
std::string_view describe(const JsonScalar& scalar);

/// Receives the events of one text. `path` holds the keys from the outermost object to the value;
/// the elements of an array have the path of the array.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void open(std::span<const std::string> path, bool is_array) = 0;
  virtual void close(std::span<const std::string> path) = 0;
  virtual void scalar(std::span<const std::string> path, JsonScalar value) = 0;
};

/// Parses `text`. Refuses duplicate keys, more than `max_depth` open objects and arrays, and
/// anything that is not JSON, with Error{kBadData} whose message begins with `name`. Does not
/// recurse. What `events` throws passes through.
void parse_json_events(std::string_view text, std::string_view name, std::size_t max_depth,
                       JsonEvents& events);

}  // namespace winnow::formats
