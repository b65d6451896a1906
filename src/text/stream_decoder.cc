// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A token may end within a character; the bytes after the last whole one wait in `held_`.
#include "text/stream_decoder.h"

#include <utility>

#include "text/utf8.h"

namespace winnow::text {

std::string StreamDecoder::push(TokenId id) {
  std::string text = std::exchange(held_, {});
  text += tokenizer_->token_bytes(id);
  const std::size_t complete = text.size() - incomplete_suffix(text);
  held_ = text.substr(complete);
  text.resize(complete);
  return text;
}

std::string StreamDecoder::finish() { return std::exchange(held_, {}); }

}  // namespace winnow::text
