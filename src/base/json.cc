// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <set>
#include <vector>

#include "base/error.h"

namespace winnow {

namespace {

/// The parser's message quotes the text up to the error, which need not be UTF-8.
std::string ascii(std::string message) {
  for (char& c : message) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return message;
}

template <typename Value>
Value parse(std::string_view text, std::string_view name) {
  constexpr int kMaxDepth = 100;
  std::vector<std::set<std::string>> keys;  // of the objects that are open, outermost first
  const auto on_event = [&](int depth, typename Value::parse_event_t event, Value& parsed) {
    if (depth > kMaxDepth) fail_data("{}: JSON nested deeper than {} levels", name, kMaxDepth);
    if (event == Value::parse_event_t::object_start) keys.emplace_back();
    if (event == Value::parse_event_t::object_end) keys.pop_back();
    if (event == Value::parse_event_t::key &&
        !keys.back().insert(parsed.template get_ref<const std::string&>()).second) {
      fail_data("{}: key '{}' occurs twice in one JSON object", name,
                parsed.template get_ref<const std::string&>());
    }
    return true;
  };
  try {
    return Value::parse(text.begin(), text.end(), on_event);
  } catch (const nlohmann::json::exception& error) {
    fail_data("{}: not valid JSON: {}", name, ascii(error.what()));
  }
}

}  // namespace

Json parse_json(std::string_view text, std::string_view name) { return parse<Json>(text, name); }

SortedJson parse_sorted_json(std::string_view text, std::string_view name) {
  return parse<SortedJson>(text, name);
}

std::string dump_json(const Json& value, bool pretty) {
  return value.dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace winnow
