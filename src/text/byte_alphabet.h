// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The byte-level alphabet: one visible character for each of the 256 bytes, so that any byte string
// can be a vocabulary key (Radford et al. 2019, "Language Models are Unsupervised Multitask
// Learners").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace winnow::text {

/// The character that stands for `byte`: itself when it is a visible character of Latin-1
/// (33-126, 161-172, 174-255), else U+0100 and onward in the order of the bytes.
char32_t byte_to_char(std::uint8_t byte);

/// `bytes` in the alphabet, as UTF-8.
std::string to_byte_alphabet(std::string_view bytes);

/// The bytes that `text` (UTF-8) stands for; nothing when it has a character outside the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace winnow::text
