// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace winnow::formats {
namespace {

constexpr std::size_t kLongestName = 65535;  // as the GGUF specification has it for keys
constexpr std::size_t kLongestShown = 100;

/// Bytes of the well-formed UTF-8 sequence at the beginning of `text` (not empty), 0 if there is
/// none (table 3-7 of the Unicode standard).
std::size_t sequence_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  const std::uint8_t lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const std::uint8_t highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (at(1) < lowest || at(1) > highest) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (at(i) < 0x80 || at(i) > 0xBF) return 0;
  }
  return length;
}

bool is_control(char c) { return static_cast<std::uint8_t>(c) < 0x20 || c == 0x7F; }

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string quote_name(std::string_view name) {
  std::string shown = "'";
  while (!name.empty()) {
    if (shown.size() > kLongestShown) {
      shown += "...";
      break;
    }
    const std::size_t length = is_control(name.front()) ? 0 : sequence_length(name);
    if (length == 0) {
      shown += fmt::format("\\x{:02x}", static_cast<std::uint8_t>(name.front()));
    } else {
      shown += name.substr(0, length);
    }
    name.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return shown + "'";
}

std::string name_defect(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kLongestName) {
    return fmt::format("is {} bytes long (limit {})", name.size(), kLongestName);
  }
  if (!is_utf8(name)) return "is not UTF-8";
  if (std::any_of(name.begin(), name.end(), is_control)) return "holds a control character";
  return "";
}

bool is_plain_file_name(std::string_view name) {
  return name_defect(name).empty() && name != "." && name != ".." &&
         name.find_first_of("/\\") == std::string_view::npos;
}

}  // namespace winnow::formats
