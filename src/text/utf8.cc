// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Well-formedness by the lead byte: it fixes the length and the range of the second byte.
#include "text/utf8.h"

#include <algorithm>

namespace winnow::text {

namespace {

struct Lead {
  std::size_t length;                     // of the whole sequence; 0: not a lead byte
  unsigned char second_low, second_high;  // range of the second byte
};

Lead classify(unsigned char lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

/// Leading bytes of `text`, at most `lead.length`, that fit the sequence its first byte announces.
std::size_t matching_bytes(std::string_view text, const Lead& lead) {
  const std::size_t limit = std::min(lead.length, text.size());
  for (std::size_t i = 1; i < limit; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const unsigned char low = i == 1 ? lead.second_low : 0x80;
    const unsigned char high = i == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) return i;
  }
  return limit;
}

}  // namespace

std::size_t sequence_length(std::string_view text) {
  if (text.empty()) return 0;
  const Lead lead = classify(static_cast<unsigned char>(text.front()));
  return lead.length != 0 && matching_bytes(text, lead) == lead.length ? lead.length : 0;
}

std::size_t valid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t length = sequence_length(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

std::size_t stray_bytes(std::string_view text) {
  std::size_t stray = 0;
  for (;;) {
    text.remove_prefix(valid_prefix(text));
    if (text.empty()) return stray;
    text.remove_prefix(1);
    ++stray;
  }
}

std::size_t incomplete_suffix(std::string_view text) {
  const std::size_t longest = std::min<std::size_t>(3, text.size());
  for (std::size_t length = 1; length <= longest; ++length) {
    const std::string_view suffix = text.substr(text.size() - length);
    const Lead lead = classify(static_cast<unsigned char>(suffix.front()));
    if (lead.length > length && matching_bytes(suffix, lead) == length) return length;
  }
  return 0;
}

char32_t decode_code_point(std::string_view text, std::size_t length) {
  const auto lead = static_cast<unsigned char>(text.front());
  if (length == 1) return lead;
  char32_t code_point = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
  }
  return code_point;
}

void append_code_point(char32_t code_point, std::string& out) {
  const auto continuation = [&](int shift) {
    out += static_cast<char>(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | code_point >> 6);
    continuation(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | code_point >> 12);
    continuation(6);
    continuation(0);
  } else {
    out += static_cast<char>(0xF0 | code_point >> 18);
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

}  // namespace winnow::text
