// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Names of tensors and keys come from files: what is accepted as a name, and how a name of unknown
// content is shown in a message.
#pragma once

#include <string>
#include <string_view>

namespace winnow::formats {

/// Whether `text` is well-formed UTF-8: shortest forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

/// `name` in single quotes for a message; bytes that are not printable ASCII or well-formed UTF-8
/// appear as \xNN, and what follows the first 100 bytes as "...".
std::string quote_name(std::string_view name);

/// Why `name` cannot name a tensor or key ("is empty" ...), or "" when it can: 1 to 65535 bytes of
/// UTF-8 without control characters.
std::string name_defect(std::string_view name);

/// Whether `name` names a file in the same folder: no separators, not "." or "..", a good name.
bool is_plain_file_name(std::string_view name);

}  // namespace winnow::formats
