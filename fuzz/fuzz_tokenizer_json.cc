// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Any bytes as tokenizer.json: either refused with a message, or a tokenizer that loses nothing and
// a spec that survives being written and read.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace {

using namespace winnow::text;

constexpr std::size_t kVocabSize = 600;

void require(bool condition) {
  if (!condition) std::abort();  // libFuzzer keeps the input
}

void check_text(const Tokenizer& tokenizer, std::string_view text, SpecialTokens special) {
  const std::vector<winnow::TokenId> ids = tokenizer.encode(text, special);
  const std::string decoded = tokenizer.decode(ids);
  StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const winnow::TokenId id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  require(streamed == decoded);
  if (tokenizer.covers_all_bytes() && !tokenizer.spec().normalize_nfc) require(decoded == text);
  if (special == SpecialTokens::kAsText && tokenizer.covers_all_bytes()) {
    for (const winnow::TokenId id : ids) require(!tokenizer.is_control(id));
  }
}

void check_texts(const Tokenizer& tokenizer, std::string_view input) {
  constexpr std::string_view kText =
      "It's  12 caf\xC3\xA9s\r\n\n\te\xCC\x81 <|endoftext|><tool>> \xF0\x9F\x98\x80 "
      "\xE4\xB8\xAD\xE6\x96\x87 \xFF\xC3\xE2\x82";
  for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    check_text(tokenizer, "", special);
    check_text(tokenizer, kText, special);
    check_text(tokenizer, input.substr(0, 512), special);
    check_text(tokenizer, input.substr(input.size() - std::min<std::size_t>(512, input.size())),
               special);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    // A config may follow the first NUL, which JSON cannot contain.
    const std::size_t nul = input.find('\0');
    const std::string_view config =
        nul == std::string_view::npos ? std::string_view() : input.substr(nul + 1);
    const TokenizerSpec spec =
        read_tokenizer_json(input.substr(0, nul), config, kVocabSize, "fuzz");
    const TokenizerSpec again = read_tokenizer_json(
        write_tokenizer_json(spec), write_tokenizer_config_json(spec), kVocabSize, "written");
    require(again == spec);
    check_texts(Tokenizer(spec), input);
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ErrorCode::kBadData);
    // What was written must be readable; what was read must run, unless bytes lack tokens.
    require(error.message().rfind("written", 0) != 0);
  }
  return 0;
}
