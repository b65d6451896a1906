// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Typed access that names the key when the type is wrong.
#include "text/json_field.h"

#include "base/error.h"

namespace winnow::text {

namespace {

/// The value itself when it is short, else its type.
std::string describe(const SortedJson& value) {
  constexpr std::size_t kLongest = 80;
  if (value.is_structured()) return value.type_name();
  if (value.is_string() && value.get_ref<const std::string&>().size() > kLongest) {
    return value.type_name();
  }
  return value.dump(-1, ' ', false, SortedJson::error_handler_t::replace);
}

}  // namespace

JsonField JsonField::at(std::string_view key) const {
  const SortedJson& members = object();
  const auto found = members.find(key);
  if (found == members.end()) {
    fail_data("{}: key '{}' is missing", file_,
              path_.empty() ? key : fmt::format("{}.{}", path_, key));
  }
  return {*found, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key), file_};
}

std::optional<JsonField> JsonField::find(std::string_view key) const {
  const SortedJson& members = object();
  const auto found = members.find(key);
  if (found == members.end() || found->is_null()) return std::nullopt;
  return at(key);
}

JsonField JsonField::element(std::size_t i) const {
  return {(*value_)[i], fmt::format("{}[{}]", path_, i), file_};
}

const SortedJson& JsonField::object() const {
  if (!value_->is_object()) fail_expected("an object");
  return *value_;
}

const SortedJson& JsonField::array() const {
  if (!value_->is_array()) fail_expected("an array");
  return *value_;
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) fail_expected("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail_expected("true or false");
  return value_->get<bool>();
}

std::size_t JsonField::integer_below(std::size_t limit) const {
  // nlohmann keeps what begins with a minus apart from the unsigned integers.
  if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() >= limit) {
    fail_expected(fmt::format("an integer from 0 to {}", limit - 1));
  }
  return value_->get<std::size_t>();
}

void JsonField::fail_expected(std::string_view what) const {
  fail_data("{}: key '{}' is {}; expected {}", file_, path_, describe(*value_), what);
}

}  // namespace winnow::text
