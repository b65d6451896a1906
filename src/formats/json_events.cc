// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/json_events.h"

#include <array>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "formats/names.h"

namespace winnow::formats {
namespace {

/// Keeps the path and refuses what a valid header never has. The names of the overridden members
/// are those of the JSON library.
class Walker final : public nlohmann::json_sax<Json> {
 public:
  Walker(std::string_view name, std::size_t max_depth, JsonEvents& events)
      : name_(name), max_depth_(max_depth), events_(events) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(std::int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(std::uint64_t{value}); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // JSON text has none

  bool start_object(std::size_t) override { return open(/*is_array=*/false); }
  bool start_array(std::size_t) override { return open(/*is_array=*/true); }
  bool end_array() override { return close(); }
  bool end_object() override {
    path_.pop_back();
    return close();
  }

  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) {
      fail_data("{}: key {} occurs twice in one JSON object", name_, quote_name(key));
    }
    path_.back() = std::move(key);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*last_token*/,
                   const nlohmann::json::exception& error) override {
    fail_data("{}: not valid JSON at byte {}: {}", name_, position, quote_name(error.what()));
  }

 private:
  bool scalar(JsonScalar value) {
    events_.scalar(path_, std::move(value));
    return true;
  }

  bool open(bool is_array) {
    if (keys_.size() == max_depth_) {
      fail_data("{}: JSON nested deeper than {} levels", name_, max_depth_);
    }
    events_.open(path_, is_array);
    keys_.emplace_back();
    if (!is_array) path_.emplace_back();  // the place of the key
    return true;
  }

  bool close() {
    keys_.pop_back();
    events_.close(path_);
    return true;
  }

  std::string_view name_;
  std::size_t max_depth_;
  JsonEvents& events_;
  std::vector<std::string> path_;
  std::vector<std::set<std::string>> keys_;  // of what is open, outermost first; empty for arrays
};

}  // namespace

std::string_view describe(const JsonScalar& scalar) {
  static constexpr std::array<std::string_view, std::variant_size_v<JsonScalar>> kNames = {
      "null",    "a bool", "an integer", "a negative number", "a number that is no integer",
      "a string"};
  return kNames[scalar.index()];
}

void parse_json_events(std::string_view text, std::string_view name, std::size_t max_depth,
                       JsonEvents& events) {
  Walker walker(name, max_depth, events);
  Json::sax_parse(text.begin(), text.end(), &walker);
}

}  // namespace winnow::formats
