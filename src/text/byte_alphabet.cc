// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Both directions of the byte-level alphabet, derived at compile time from its rule.
#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace winnow::text {

namespace {

constexpr bool is_visible_latin1(unsigned byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct Alphabet {
  std::array<char32_t, 256> chars{};
  std::array<std::int16_t, 512> bytes{};  // by character; -1: not in the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.bytes) byte = -1;
  char32_t next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char32_t character = is_visible_latin1(byte) ? byte : next++;
    alphabet.chars[byte] = character;
    alphabet.bytes[character] = static_cast<std::int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

char32_t byte_to_char(std::uint8_t byte) { return kAlphabet.chars[byte]; }

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char byte : bytes) {
    append_code_point(byte_to_char(static_cast<std::uint8_t>(byte)), text);
  }
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) return std::nullopt;
    const char32_t character = decode_code_point(text, length);
    if (character >= kAlphabet.bytes.size() || kAlphabet.bytes[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.bytes[character]);
    text.remove_prefix(length);
  }
  return bytes;
}

}  // namespace winnow::text
