// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Unicode normalisation form C (UAX #15), which some tokenizers apply to text first.
#pragma once

#include <string>
#include <string_view>

namespace winnow::text {

/// `text` in form C, by the Unicode version of the installed utf8proc. Bytes that are not valid
/// UTF-8 stay as they are. O(n log n) whatever the text. `tokenizers` 0.23 has older tables: it
/// leaves combining marks that Unicode has added since (U+09FE, U+1E4EC) in the order it finds
/// them.
std::string normalize_nfc(std::string_view text);

}  // namespace winnow::text
