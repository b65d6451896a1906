// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The loop with a model that says a fixed text: what reaches the user, and when it stops.
#include "engine/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/test_spec.h"

namespace winnow::engine::generate_test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// Token i is byte i; 256 ends the text.
text::Tokenizer make_tokenizer(const std::vector<std::string>& words = {}) {
  text::TokenizerSpec spec = text::byte_spec();
  spec.eos = text::add_token(spec, "<end>", text::TokenType::kControl);
  for (const std::string& word : words) {
    text::add_token(spec, word, text::TokenType::kUserDefined);
  }
  return text::Tokenizer(std::move(spec));
}

/// Says the tokens of a script one after the other, whatever it is given, and keeps what it is
/// given.
class ScriptedModel {
 public:
  ScriptedModel(std::vector<int> script, std::size_t vocab_size)
      : script_(std::move(script)), logits_(vocab_size, 0.0F) {}

  std::span<const float> operator()(std::span<const TokenId> tokens) {
    calls.emplace_back();
    for (const TokenId token : tokens) calls.back().push_back(index(token));
    std::fill(logits_.begin(), logits_.end(), 0.0F);
    // The script begins once the prompt, which is made of zeros, has been read.
    if (calls.back().back() != 0) ++next_;
    logits_[static_cast<std::size_t>(script_.at(next_))] = 1.0F;
    return logits_;
  }
  std::vector<std::vector<int>> calls;

 private:
  std::vector<int> script_;
  std::vector<float> logits_;
  std::size_t next_ = 0;
};

std::vector<int> bytes_of(std::string_view text) {
  std::vector<int> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

struct Outcome {
  GenerateResult result;
  std::vector<std::string> pieces;
  std::string text;
  std::vector<std::vector<int>> calls;
};

Outcome say(const std::vector<int>& script, GenerateOptions options, std::size_t prompt_size = 1,
            std::size_t capacity = 1000, const std::vector<std::string>& words = {},
            const Log& log = {}) {
  const text::Tokenizer tokenizer = make_tokenizer(words);
  ScriptedModel model(script, tokenizer.vocab_size());
  const std::vector<TokenId> prompt(prompt_size, TokenId{0});
  Outcome outcome;
  outcome.result = generate(
      std::ref(model), tokenizer, prompt, capacity, options,
      [&](std::string_view piece) {
        outcome.pieces.emplace_back(piece);
        outcome.text += piece;
      },
      log);
  outcome.calls = model.calls;
  return outcome;
}

Outcome say(std::string_view text, GenerateOptions options) {
  return say(bytes_of(text), std::move(options));
}

TEST(Generate, PassesOnEachTokenAsItIsMade) {
  const Outcome outcome = say("abc", {.max_tokens = 3});
  EXPECT_THAT(outcome.pieces, ElementsAre("a", "b", "c"));
  EXPECT_EQ(outcome.result.reason, StopReason::kLimit);
}

TEST(Generate, HoldsBackACharacterUntilItIsWhole) {
  EXPECT_THAT(say("a\xC3\xA9z", {.max_tokens = 4}).pieces, ElementsAre("a", "\xC3\xA9", "z"));
  EXPECT_THAT(say("\xF0\x9F\x98\x80!", {.max_tokens = 5}).pieces,
              ElementsAre("\xF0\x9F\x98\x80", "!"));
}

TEST(Generate, GivesOutAnUnfinishedCharacterAtTheEnd) {
  EXPECT_EQ(say("a\xC3\xA9", {.max_tokens = 2}).text, "a\xC3");
}

TEST(Generate, StopsAtTheEndTokenWithoutPrintingIt) {
  auto script = bytes_of("ab");
  script.push_back(256);
  const Outcome outcome = say(script, {.max_tokens = 10});
  EXPECT_EQ(outcome.text, "ab");
  EXPECT_EQ(outcome.result.reason, StopReason::kEndToken);
  EXPECT_EQ(outcome.result.tokens.size(), 3U);
}

TEST(Generate, GoesOnAfterTheEndTokenWhenAskedTo) {
  std::vector<int> script = {'a', 256, 'b'};
  const Outcome outcome = say(script, {.max_tokens = 3, .ignore_end = true});
  EXPECT_EQ(outcome.text, "a<end>b");
  EXPECT_EQ(outcome.result.reason, StopReason::kLimit);
}

TEST(Generate, EndsBeforeAStopStringThatCrossesTokens) {
  const Outcome outcome = say("one STOP two", {.max_tokens = 12, .stop = {"STOP"}});
  EXPECT_EQ(outcome.text, "one ");
  EXPECT_EQ(outcome.result.reason, StopReason::kStopString);
  EXPECT_EQ(outcome.result.tokens.size(), 8U);
}

TEST(Generate, EndsBeforeAStopStringInTheMiddleOfAToken) {
  const Outcome outcome =
      say(std::vector<int>{'x', 257, 'y'}, {.max_tokens = 3, .stop = {"ll"}}, 1, 100, {"hello"});
  EXPECT_EQ(outcome.text, "xhe");
  EXPECT_EQ(outcome.result.tokens.size(), 2U);
}

TEST(Generate, GivesOutWhatOnlyLookedLikeAStopString) {
  const Outcome outcome = say("STO STOP", {.max_tokens = 8, .stop = {"STOP"}});
  EXPECT_EQ(outcome.text, "STO ");
  EXPECT_EQ(say("aaab", {.max_tokens = 4, .stop = {"aab"}}).text, "a");
  EXPECT_EQ(say("STO", {.max_tokens = 3, .stop = {"STOP"}}).text, "STO");
}

TEST(Generate, FindsAStopStringThatIsAWholeCharacter) {
  EXPECT_EQ(say("a\xC3\xA9z", {.max_tokens = 4, .stop = {"\xC3\xA9"}}).text, "a");
}

TEST(Generate, MakesAsManyTokensAsTheCacheHoldsAndOneMore) {
  // 3 positions of prompt in a cache of 5: tokens 1 and 2 take the rest, the third needs none.
  const Outcome outcome = say(bytes_of("abcdef"), {.max_tokens = 10}, 3, 5);
  EXPECT_EQ(outcome.text, "abc");
  EXPECT_EQ(outcome.result.reason, StopReason::kLimit);
}

TEST(Generate, RunsThePromptInChunks) {
  const Outcome outcome = say(bytes_of("ab"), {.max_tokens = 2, .prefill_chunk = 4}, 10);
  EXPECT_THAT(outcome.calls, ElementsAre(std::vector<int>(4, 0), std::vector<int>(4, 0),
                                         std::vector<int>(2, 0), std::vector<int>{'a'}));
}

TEST(Generate, MakesNothingForALimitOfZero) {
  const Outcome outcome = say("ab", {.max_tokens = 0});
  EXPECT_THAT(outcome.pieces, IsEmpty());
  EXPECT_EQ(outcome.calls.size(), 1U);
  EXPECT_EQ(outcome.result.decode_seconds, 0);
}

class StoppedAfter final : public Log {
 public:
  explicit StoppedAfter(int questions) : left_(questions) {}
  bool stop_requested() const override { return left_-- <= 0; }

 private:
  mutable int left_;
};

TEST(Generate, StopsWhereItIsInterruptedAndKeepsTheText) {
  const Outcome outcome =
      say(bytes_of("abcdef"), {.max_tokens = 6, .stop = {"bz"}}, 1, 100, {}, StoppedAfter(2));
  EXPECT_EQ(outcome.text, "ab");  // with the b that was held back
  EXPECT_EQ(outcome.result.reason, StopReason::kInterrupted);
}

TEST(Generate, StopsBetweenChunksOfThePrompt) {
  const Outcome outcome =
      say(bytes_of("a"), {.max_tokens = 1, .prefill_chunk = 2}, 10, 100, {}, StoppedAfter(3));
  EXPECT_EQ(outcome.calls.size(), 3U);
  EXPECT_THAT(outcome.result.tokens, IsEmpty());
  EXPECT_EQ(outcome.result.reason, StopReason::kInterrupted);
}

/// Where a text ends by the definition: before the stop string that is whole first, and of several
/// that are whole at once before the one that begins first.
std::string cut(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t begin = std::string::npos;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) begin = std::min(begin, end - stop.size());
    }
    if (begin != std::string::npos) return text.substr(0, begin);
  }
  return text;
}

TEST(StopFinder, GivesTheSameTextHoweverItIsCutIntoPieces) {
  Rng rng(5);
  const auto random_text = [&](std::size_t least, std::size_t most) {
    std::string text(least + rng.below(most - least + 1), ' ');
    for (char& c : text) c = static_cast<char>('a' + rng.below(2));
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + rng.below(3));
    for (std::string& stop : stops) stop = random_text(1, 6);
    const std::string text = random_text(0, 24);
    StopFinder finder(stops);
    std::string out;
    std::string_view rest = text;
    while (!rest.empty()) {
      const std::size_t n = 1 + rng.below(rest.size());
      out += finder.push(rest.substr(0, n));
      rest.remove_prefix(n);
    }
    out += finder.finish();
    EXPECT_EQ(out, cut(text, stops)) << text;
    stopped += finder.found();
  }
  EXPECT_GT(stopped, 1000);
  EXPECT_LT(stopped, 2900);
}

}  // namespace
}  // namespace winnow::engine::generate_test
