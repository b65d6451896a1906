// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// UTF-8 as hostile input: which bytes are well-formed (Unicode 15, table 3-7: no overlong forms, no
// surrogates, nothing beyond U+10FFFF), and which may still become so.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace winnow::text {

/// Bytes (1-4) of the well-formed sequence at the start of `text`, 0 when there is none.
std::size_t sequence_length(std::string_view text);

/// Bytes before the first one that does not belong to a well-formed sequence.
std::size_t valid_prefix(std::string_view text);

/// Bytes that belong to no well-formed sequence.
std::size_t stray_bytes(std::string_view text);

/// Bytes (0-3) at the end of `text` that begin a sequence which more bytes could complete.
std::size_t incomplete_suffix(std::string_view text);

/// The code point at the start of `text`, which is well-formed there; `length` of its bytes.
char32_t decode_code_point(std::string_view text, std::size_t length);

/// Appends the UTF-8 form of a code point in [0, 0x10FFFF].
void append_code_point(char32_t code_point, std::string& out);

}  // namespace winnow::text
