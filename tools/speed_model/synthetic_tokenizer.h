// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A vocabulary of any size that every engine can load, for models without a language.
#pragma once

#include <cstdint>

#include "text/tokenizer_spec.h"

namespace winnow::tools {

/// Byte-level BPE: the 256 bytes, then all words of two lower-case letters, of three and so on,
/// each made by merging its last letter, and <|endoftext|> as the last token. `vocab_size` is at
/// least 257.
text::TokenizerSpec synthetic_tokenizer(std::uint32_t vocab_size);

}  // namespace winnow::tools
