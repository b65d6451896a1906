// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "speed_model/synthetic_tokenizer.h"

#include "base/error.h"
#include "text/byte_alphabet.h"

namespace winnow::tools {

text::TokenizerSpec synthetic_tokenizer(std::uint32_t vocab_size) {
  constexpr std::uint32_t kBytes = 256;
  WINNOW_CHECK(vocab_size > kBytes);
  text::TokenizerSpec spec;
  spec.model = "gpt2";
  spec.pre_tokenizer = "qwen2";
  for (std::uint32_t byte = 0; byte < kBytes; ++byte) {
    spec.tokens.push_back(text::to_byte_alphabet(std::string(1, static_cast<char>(byte))));
  }
  std::vector<std::string> stems;  // every word, shorter ones first
  for (char letter = 'a'; letter <= 'z'; ++letter) stems.emplace_back(1, letter);
  for (std::size_t i = 0; spec.tokens.size() + 1 < vocab_size; ++i) {
    for (char letter = 'a'; letter <= 'z' && spec.tokens.size() + 1 < vocab_size; ++letter) {
      const std::string stem = stems[i];  // a copy: the vector grows
      spec.merges.emplace_back(stem, std::string(1, letter));
      stems.push_back(stem + letter);
      spec.tokens.push_back(stems.back());
    }
  }
  spec.token_types.assign(vocab_size, text::TokenType::kNormal);
  spec.tokens.emplace_back("<|endoftext|>");
  spec.token_types.back() = text::TokenType::kControl;
  const TokenId end{static_cast<std::int32_t>(vocab_size - 1)};
  spec.bos = spec.eos = spec.pad = end;
  return spec;
}

}  // namespace winnow::tools
