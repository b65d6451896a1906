// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What Tokenizer promises, on tokenizers of a few tokens and on hostile text.
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/error.h"
#include "base/rng.h"
#include "text/stream_decoder.h"
#include "text/test_spec.h"

namespace winnow::text::tokenizer_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int> numbers(const std::vector<TokenId>& ids) {
  std::vector<int> result;
  for (const TokenId id : ids) result.push_back(index(id));
  return result;
}

std::vector<int> encode(const TokenizerSpec& spec, std::string_view text,
                        SpecialTokens special = SpecialTokens::kAsText) {
  return numbers(Tokenizer(spec).encode(text, special));
}

std::string error_of(const std::function<void()>& action, ErrorCode code) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.message();
  }
  return "no error";
}

std::string refusal(const TokenizerSpec& spec) {
  return error_of([&] { Tokenizer{spec}; }, ErrorCode::kBadData);
}

TEST(Tokenizer, MergesTheMostUrgentPairFirstThenTheLeftmost) {
  TokenizerSpec spec = byte_spec();
  add_merge(spec, "b", "c");  // 256
  add_merge(spec, "a", "b");  // 257
  add_merge(spec, "a", "a");  // 258
  EXPECT_THAT(encode(spec, "abc"), ElementsAre('a', 256));
  EXPECT_THAT(encode(spec, "abx"), ElementsAre(257, 'x'));
  EXPECT_THAT(encode(spec, "aaa"), ElementsAre(258, 'a'));
}

TEST(Tokenizer, NeverMergesAcrossWords) {
  TokenizerSpec spec = byte_spec();
  add_merge(spec, "1", "2");
  EXPECT_THAT(encode(spec, "12"), ElementsAre('1', '2'));
}

TEST(Tokenizer, LetsTheLastOfEqualMergesCountAsTheReferenceDoes) {
  TokenizerSpec spec = byte_spec();
  add_merge(spec, "a", "b");  // 256, overridden below
  add_merge(spec, "b", "c");  // 257
  spec.merges.emplace_back("a", "b");
  EXPECT_THAT(encode(spec, "abc"), ElementsAre('a', 257));
}

TEST(Tokenizer, TakesAWholeWordOnlyWhenMergesAreIgnored) {
  TokenizerSpec spec = byte_spec();
  add_token(spec, "word", TokenType::kNormal);
  EXPECT_THAT(encode(spec, "word"), ElementsAre('w', 'o', 'r', 'd'));
  spec.ignore_merges = true;
  EXPECT_THAT(encode(spec, "word"), ElementsAre(256));
}

TEST(Tokenizer, ParsesControlTokensOnlyWhereAllowed) {
  TokenizerSpec spec = byte_spec();
  add_token(spec, "<|e|>", TokenType::kControl);
  EXPECT_THAT(encode(spec, "a<|e|>", SpecialTokens::kParse), ElementsAre('a', 256));
  EXPECT_THAT(encode(spec, "a<|e|>", SpecialTokens::kAsText),
              ElementsAre('a', '<', '|', 'e', '|', '>'));
}

TEST(Tokenizer, NeverMakesAControlTokenOfPlainTextWhateverTheMergesSay) {
  TokenizerSpec spec = byte_spec();
  add_token(spec, "ab", TokenType::kControl);
  add_merge(spec, "a", "b");
  EXPECT_THAT(encode(spec, "ab"), ElementsAre('a', 'b'));
  spec.ignore_merges = true;
  EXPECT_THAT(encode(spec, "ab"), ElementsAre('a', 'b'));
}

TEST(Tokenizer, FindsUserDefinedTokensInEitherModeTheLongestFirst) {
  TokenizerSpec spec = byte_spec();
  add_token(spec, "<x>", TokenType::kUserDefined);    // 256
  add_token(spec, "<x>>>", TokenType::kUserDefined);  // 257
  for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    EXPECT_THAT(encode(spec, "<x>>>", special), ElementsAre(257));
    EXPECT_THAT(encode(spec, "<x>>", special), ElementsAre(256, '>'));
    EXPECT_THAT(encode(spec, "<<x>", special), ElementsAre('<', 256));
  }
}

TEST(Tokenizer, FindsNormalizedTokensAfterTheOthers) {
  TokenizerSpec spec = byte_spec();
  spec.normalized_added_tokens = {add_token(spec, "ab", TokenType::kUserDefined)};
  add_token(spec, "b", TokenType::kUserDefined);  // refused: also the token of a byte
  EXPECT_THAT(refusal(spec), HasSubstr("tokens 98 and 257 are both 'b'"));
  spec.tokens.back() = std::string("bb");
  EXPECT_THAT(encode(spec, "abb"), ElementsAre('a', 257));
  spec.normalized_added_tokens.clear();
  EXPECT_THAT(encode(spec, "abb"), ElementsAre(256, 'b'));
}

TEST(Tokenizer, KeepsPlainTextOfAddedTokensApartFromTheByteAlphabet) {
  TokenizerSpec spec = byte_spec();
  spec.tokens[0xE9] = "unrelated";  // byte 0xE9 has no token of its own now
  add_token(spec, "\u00e9", TokenType::kUserDefined);
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("\u00e9", SpecialTokens::kAsText)), "\u00e9");
  EXPECT_FALSE(tokenizer.covers_all_bytes());
  EXPECT_THAT(
      error_of([&] { tokenizer.encode("\xE9", SpecialTokens::kAsText); }, ErrorCode::kBadData),
      HasSubstr("no token for byte 0xE9"));
}

TEST(Tokenizer, PutsTheUnknownTokenWhereAByteHasNone) {
  TokenizerSpec spec = byte_spec();
  spec.tokens['q'] = std::string("qq");
  spec.unknown = add_token(spec, "<unk>", TokenType::kControl);
  EXPECT_THAT(encode(spec, "aq"), ElementsAre('a', 256));
}

TEST(Tokenizer, EncodesInvalidBytesOneByOneAndLosesNone) {
  const Tokenizer tokenizer(byte_spec());
  EXPECT_THAT(numbers(tokenizer.encode("a\xFF\xC3(\xE2\x82", SpecialTokens::kParse)),
              ElementsAre('a', 0xFF, 0xC3, '(', 0xE2, 0x82));
}

TEST(Tokenizer, RoundTripsRandomBytes) {
  TokenizerSpec spec = byte_spec();
  for (const char* pair : {"ab", "bc", "aa", "  "}) {
    add_merge(spec, to_byte_alphabet({pair, 1}), to_byte_alphabet({pair + 1, 1}));
  }
  add_token(spec, "<|a|>", TokenType::kControl);
  add_token(spec, "bcb", TokenType::kUserDefined);
  const Tokenizer tokenizer(spec);
  Rng rng(5);
  const std::string letters = "abc <|>\n1\xC3\xA9\xE2\xFF";
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (auto length = rng.below(40); length > 0; --length) {
      text += rng.below(4) == 0 ? static_cast<char>(rng.below(256))
                                : letters[rng.below(letters.size())];
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, SpecialTokens::kParse)), text);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, SpecialTokens::kAsText)), text);
  }
}

TEST(Tokenizer, EncodesAMillionEqualBytesInLittleTime) {
  TokenizerSpec spec = byte_spec();
  for (std::string run = "a"; run.size() < 64; run += run) add_merge(spec, run, run);
  add_merge(spec, "\u0120", "\u0120");
  const Tokenizer tokenizer(spec);
  // A quadratic merge would need 10^12 steps here, and the test would time out.
  const auto ids = tokenizer.encode(std::string(1 << 20, 'a'), SpecialTokens::kAsText);
  EXPECT_EQ(ids.size(), (1U << 20) / 64);
  for (const char byte : {' ', '\n', '!', '1', '\0', '\xFF', '\x80'}) {
    const std::string text(1 << 20, byte);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text + "x", SpecialTokens::kParse)), text + "x");
  }
}

TEST(Tokenizer, EncodesNothingAsNothing) {
  EXPECT_TRUE(encode(byte_spec(), "").empty());
  EXPECT_EQ(Tokenizer(byte_spec()).decode({}), "");
}

TEST(Tokenizer, KnowsWhichTokensEndAText) {
  TokenizerSpec spec = byte_spec();
  EXPECT_FALSE(Tokenizer(spec).ends_generation(TokenId{0}));
  spec.eos = TokenId{3};
  spec.eot = TokenId{4};
  const Tokenizer tokenizer(spec);
  EXPECT_TRUE(tokenizer.ends_generation(TokenId{3}));
  EXPECT_TRUE(tokenizer.ends_generation(TokenId{4}));
  EXPECT_FALSE(tokenizer.ends_generation(TokenId{5}));
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabularyByNumber) {
  const Tokenizer tokenizer(byte_spec());
  for (const int id : {-1, 256, 2147483647}) {
    const std::string message =
        error_of([&] { tokenizer.token_bytes(static_cast<TokenId>(id)); }, ErrorCode::kUsage);
    EXPECT_THAT(message, HasSubstr(fmt::format("token id {} is outside", id)));
  }
}

TEST(Tokenizer, RefusesInconsistentSpecs) {
  const auto changed = [](const std::function<void(TokenizerSpec&)>& change) {
    TokenizerSpec spec = byte_spec();
    change(spec);
    return refusal(spec);
  };
  EXPECT_THAT(changed([](auto& s) { s.model = "llama"; }), HasSubstr("'llama' is not supported"));
  EXPECT_THAT(changed([](auto& s) { s.pre_tokenizer = "klingon"; }), HasSubstr("'klingon'"));
  EXPECT_THAT(changed([](auto& s) { s.token_types.pop_back(); }), HasSubstr("255 token types"));
  EXPECT_THAT(changed([](auto& s) { s.token_types[7] = TokenType{9}; }), HasSubstr("type 9"));
  EXPECT_THAT(changed([](auto& s) { s.tokens[7] = std::string("\xFF"); }),
              HasSubstr("token 7 is not valid UTF-8"));
  EXPECT_THAT(changed([](auto& s) { s.eos = TokenId{256}; }), HasSubstr("eos token is 256"));
  EXPECT_THAT(changed([](auto& s) { s.bos = TokenId{-1}; }), HasSubstr("bos token is -1"));
  EXPECT_THAT(changed([](auto& s) { s.add_bos = true; }), HasSubstr("none is named"));
  EXPECT_THAT(changed([](auto& s) { s.merges.emplace_back("a", "b"); }), HasSubstr("token 'ab'"));
  EXPECT_THAT(changed([](auto& s) { s.normalized_added_tokens = {TokenId{1}}; }),
              HasSubstr("token 1 is not an added token"));
  EXPECT_THAT(changed([](auto& s) { add_token(s, std::string(1025, 'x'), TokenType::kControl); }),
              HasSubstr("has 1025 bytes"));
  EXPECT_THAT(changed([](auto& s) {
                s.tokens.clear();
                s.token_types.clear();
              }),
              HasSubstr("vocabulary is empty"));
}

TEST(StreamDecoder, HoldsBackACharacterUntilItIsWhole) {
  const Tokenizer tokenizer(byte_spec());
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(TokenId{'a'}), "a");
  EXPECT_EQ(decoder.push(TokenId{0xF0}), "");
  EXPECT_EQ(decoder.push(TokenId{0x9F}), "");
  EXPECT_EQ(decoder.push(TokenId{0x98}), "");
  EXPECT_EQ(decoder.push(TokenId{0x80}), "\U0001F600");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, LetsBytesPassThatCanNoLongerBecomeACharacter) {
  const Tokenizer tokenizer(byte_spec());
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(TokenId{0xE2}), "");
  EXPECT_EQ(decoder.push(TokenId{'b'}),
            "\xE2"
            "b");
  EXPECT_EQ(decoder.push(TokenId{0xFF}), "\xFF");
  EXPECT_EQ(decoder.push(TokenId{0xC3}), "");
  EXPECT_EQ(decoder.finish(), "\xC3");
  EXPECT_EQ(decoder.push(TokenId{'c'}), "c");
}

}  // namespace
}  // namespace winnow::text::tokenizer_test
