// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Text of a growing sequence of tokens, for output while a model generates.
#pragma once

#include <string>

#include "base/units.h"
#include "text/tokenizer.h"

namespace winnow::text {

/// Holds back the beginning of a UTF-8 sequence until the token that completes it. What `push` and
/// `finish` return is together `decode` of all tokens: bytes that can never become valid pass.
class StreamDecoder {
 public:
  /// The tokenizer must outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  /// The text that is complete with this token, possibly empty. Errors as Tokenizer::decode.
  std::string push(TokenId id);
  /// What was held back (0-3 bytes); the decoder can start anew.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string held_;
};

}  // namespace winnow::text
