// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The tokenizer files of a Hugging Face folder: tokenizer.json and tokenizer_config.json.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "text/tokenizer_spec.h"

namespace winnow::text {

/// Reads the texts of both files; `tokenizer_config_json` may be empty (no such file).
///
/// Byte-level BPE only: normalizer null or NFC, a pre-tokenizer of the table in pre_tokenizer.cc,
/// no dropout and no affixes of words; anything else is refused, because its tokens would differ
/// from those of the model. vocab_size: rows of the embedding; ids that no token has become kUnused
/// "[PAD<id>]". `name` stands for tokenizer.json in messages.
/// Throws Error{kBadData} naming the key. Memory is a multiple of the texts and of vocab_size.
TokenizerSpec read_tokenizer_json(std::string_view tokenizer_json,
                                  std::string_view tokenizer_config_json, std::size_t vocab_size,
                                  std::string_view name);

/// The text of tokenizer.json. Reading it and `write_tokenizer_config_json` with the same
/// vocab_size gives an equal spec when the spec came from such files. These have no names for what
/// only GGUF has: kUnknown and kByte tokens come back as kNormal, unused ones as "[PAD<id>]", a
/// pre-tokenizer under the first name of its patterns.
std::string write_tokenizer_json(const TokenizerSpec& spec);

/// The text of tokenizer_config.json: bos, eos and so on by their text, the chat template.
std::string write_tokenizer_config_json(const TokenizerSpec& spec);

}  // namespace winnow::text
