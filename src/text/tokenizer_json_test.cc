// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: what is read, what is refused and by which words, and the way back.
#include "text/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/pre_tokenizer.h"
#include "text/test_spec.h"
#include "text/tokenizer.h"

namespace winnow::text::tokenizer_json_test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string read_file(const std::string& path) {
  std::ifstream file(std::string(WINNOW_SOURCE_DIR) + "/" + path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return (std::ostringstream() << file.rdbuf()).str();
}

/// A file with three tokens, one merge and an added token.
Json minimal() {
  return parse_json(R"({
    "added_tokens": [{"id": 3, "content": "<e>", "special": true, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})",
                    "minimal");
}

using Change = std::function<void(Json&)>;

TokenizerSpec read(const Change& change = {}, std::string_view config = "", std::size_t rows = 5) {
  Json json = minimal();
  if (change) change(json);
  return read_tokenizer_json(dump_json(json), config, rows, "t.json");
}

std::string refusal(const Change& change, std::string_view config = "") {
  try {
    read(change, config);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.message(), StartsWith("t.json"));
    return error.message();
  }
  return "no error";
}

TEST(ReadTokenizerJson, ReadsTokensTypesAndMergesAndNamesUnusedRows) {
  const TokenizerSpec spec = read();
  EXPECT_EQ(spec.model, "gpt2");
  EXPECT_EQ(spec.pre_tokenizer, "gpt-2");
  EXPECT_EQ(spec.tokens, (std::vector<std::string>{"a", "b", "ab", "<e>", "[PAD4]"}));
  using enum TokenType;
  EXPECT_EQ(spec.token_types, (std::vector{kNormal, kNormal, kNormal, kControl, kUnused}));
  EXPECT_EQ(spec.merges, (std::vector{std::pair<std::string, std::string>("a", "b")}));
}

TEST(ReadTokenizerJson, ReadsMergesAsPairsToo) {
  const auto pairs = [](Json& j) { j["model"]["merges"][0] = Json::array({"a", "b"}); };
  EXPECT_EQ(read(pairs), read());
}

TEST(ReadTokenizerJson, TakesTheFlagsOfAnAddedTokenThatIsInTheVocabularyToo) {
  const TokenizerSpec spec = read([](Json& j) { j["model"]["vocab"]["<e>"] = 3; });
  EXPECT_EQ(spec.token_types[3], TokenType::kControl);
}

TEST(ReadTokenizerJson, KnowsEachPatternOfTheTableByItsFirstName) {
  for (const PreTokenizerEntry& entry : all_pre_tokenizers()) {
    TokenizerSpec spec = byte_spec();
    spec.pre_tokenizer = entry.name;
    const TokenizerSpec back = read_tokenizer_json(write_tokenizer_json(spec), "", 256, "t.json");
    const auto& patterns = find_pre_tokenizer(back.pre_tokenizer)->patterns;
    EXPECT_TRUE(
        std::equal(patterns.begin(), patterns.end(), entry.patterns.begin(), entry.patterns.end()));
  }
}

TEST(ReadTokenizerJson, ReadsDigitsAndByteLevelAsTheirPatterns) {
  const TokenizerSpec spec = read([](Json& j) {
    j["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Digits"}, {"individual_digits", true}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}};
  });
  EXPECT_EQ(spec.pre_tokenizer, "smollm");
}

TEST(ReadTokenizerJson, ReadsSpecialTokensAndTheTemplateFromTheConfig) {
  const TokenizerSpec spec = read({}, R"({"bos_token": "<e>", "eos_token": {"content": "ab"},
    "pad_token": null, "add_bos_token": true,
    "chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]})");
  EXPECT_EQ(spec.bos, TokenId{3});
  EXPECT_EQ(spec.eos, TokenId{2});
  EXPECT_EQ(spec.pad, std::nullopt);
  EXPECT_TRUE(spec.add_bos);
  EXPECT_FALSE(spec.add_eos);
  EXPECT_EQ(spec.chat_template, "y");
}

TEST(ReadTokenizerJson, LetsTheTemplateOfThePostProcessorDecideAboutBosWhenTheConfigDoesNot) {
  const Change with_template = [](Json& j) {
    j["post_processor"] = {{"type", "TemplateProcessing"},
                           {"single",
                            {{{"SpecialToken", {{"id", "<e>"}, {"type_id", 0}}}},
                             {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  };
  EXPECT_TRUE(read(with_template, R"({"bos_token": "<e>"})").add_bos);
  EXPECT_FALSE(read(with_template, R"({"bos_token": "<e>", "eos_token": "<e>"})").add_eos);
  EXPECT_FALSE(read(with_template, R"({"bos_token": "<e>", "add_bos_token": false})").add_bos);
}

TEST(ReadTokenizerJson, RefusesWrongOrMissingKeysByName) {
  const auto set = [](const char* pointer, Json value) {
    return [=](Json& j) { j[Json::json_pointer(pointer)] = value; };
  };
  const auto expect = [](const Change& change, const char* words) {
    EXPECT_THAT(refusal(change), HasSubstr(words));
  };
  expect([](Json& j) { j.erase("model"); }, "key 'model' is missing");
  expect([](Json& j) { j["model"].erase("vocab"); }, "key 'model.vocab' is missing");
  expect([](Json& j) { j["model"].erase("merges"); }, "key 'model.merges' is missing");
  expect([](Json& j) { j.erase("pre_tokenizer"); }, "key 'pre_tokenizer' is missing");
  expect(set("/pre_tokenizer", nullptr), "key 'pre_tokenizer' is null");
  expect(set("/model", 1), "key 'model' is 1; expected an object");
  expect(set("/model/type", "Unigram"), R"(key 'model.type' is "Unigram"; expected "BPE")");
  expect(set("/model/vocab", Json::array()), "key 'model.vocab' is array; expected an object");
  expect(set("/model/dropout", 0.1), "key 'model.dropout' is 0.1");
  expect(set("/model/byte_fallback", true), "key 'model.byte_fallback' is true");
  expect(set("/model/end_of_word_suffix", "</w>"), "key 'model.end_of_word_suffix'");
  expect(set("/model/continuing_subword_prefix", "##"), "key 'model.continuing_subword_prefix'");
  expect(set("/model/ignore_merges", 1), "key 'model.ignore_merges' is 1");
  expect(set("/added_tokens", 1), "key 'added_tokens' is 1");
  expect(set("/added_tokens/0", "x"), "key 'added_tokens[0]'");
  expect(set("/added_tokens/0/content", 1), "key 'added_tokens[0].content' is 1");
  expect(set("/added_tokens/0/lstrip", true), "key 'added_tokens[0].lstrip' is true");
  expect(set("/normalizer", {{"type", "NFKC"}}), R"(key 'normalizer.type' is "NFKC")");
}

TEST(ReadTokenizerJson, RefusesIdsThatAreNotRowsOfTheEmbedding) {
  for (const Json& id : {Json(-1), Json(5), Json(1LL << 31), Json(UINT64_MAX), Json(1.5), Json("1"),
                         Json(nullptr), Json(1e300)}) {
    EXPECT_THAT(refusal([&](Json& j) { j["model"]["vocab"]["b"] = id; }),
                HasSubstr("'model.vocab.b'"));
    EXPECT_THAT(refusal([&](Json& j) { j["added_tokens"][0]["id"] = id; }),
                HasSubstr("'added_tokens[0].id'"));
  }
}

TEST(ReadTokenizerJson, RefusesTwoTokensOfOneIdAndTwoIdsOfOneToken) {
  EXPECT_THAT(refusal([](Json& j) { j["model"]["vocab"]["b"] = 0; }),
              HasSubstr("id 0 belongs to both"));
  EXPECT_THAT(refusal([](Json& j) { j["added_tokens"][0]["id"] = 2; }),
              HasSubstr("id 2 belongs to both"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["vocab"]["<e>"] = 4; }),
              HasSubstr("tokens 3 and 4 are both '<e>'"));
  EXPECT_THAT(refusal([](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }),
              HasSubstr("'added_tokens[1]'"));
}

TEST(ReadTokenizerJson, RefusesMergesThatNameNoTokenOrAreNotTwo) {
  const auto merge = [](Json value) {
    return refusal([=](Json& j) { j["model"]["merges"][0] = value; });
  };
  EXPECT_THAT(merge("b a"), HasSubstr("needs token 'ba'"));
  EXPECT_THAT(merge("c a"), HasSubstr("needs token 'c'"));
  for (const Json& wrong :
       {Json("ab"), Json("a b c"), Json(" b"), Json("a "), Json(""), Json(1), Json::array({"a"}),
        Json::array({"a", "b", "c"}), Json::array({"a", 1})}) {
    EXPECT_THAT(merge(wrong), HasSubstr("'model.merges[0]")) << wrong;
  }
}

TEST(ReadTokenizerJson, RefusesUnknownPatternsAndStepsByTheirText) {
  const auto split = [](const char* pattern) {
    return Json{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
  };
  const auto bytes = Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto steps = [](std::vector<Json> parts) {
    return refusal([=](Json& j) {
      j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", parts}};
    });
  };
  EXPECT_THAT(steps({split("[a-z]+|x"), bytes}), HasSubstr("[a-z]+|x; known are: qwen2"));
  EXPECT_THAT(steps({split("[a-z]+")}), HasSubstr("no step ByteLevel"));
  EXPECT_THAT(steps({bytes, split("a")}), HasSubstr("expected nothing after ByteLevel"));
  EXPECT_THAT(steps({{{"type", "Metaspace"}}}), HasSubstr(R"(is "Metaspace")"));
  EXPECT_THAT(refusal([](Json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; }),
              HasSubstr("add_prefix_space"));
}

TEST(ReadTokenizerJson, RefusesAConfigThatNamesNoToken) {
  EXPECT_THAT(refusal({}, R"({"eos_token": "</s>"})"),
              HasSubstr(R"((tokenizer_config.json): key 'eos_token' is "</s>"; expected a token)"));
  EXPECT_THAT(refusal({}, R"({"eos_token": 2})"), HasSubstr("'eos_token'"));
  EXPECT_THAT(refusal({}, "[]"), HasSubstr("tokenizer_config.json"));
  EXPECT_THAT(refusal({}, "{"), HasSubstr("not valid JSON"));
}

TEST(ReadTokenizerJson, RefusesEveryTruncationOfAFile) {
  const std::string whole = dump_json(minimal());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(read_tokenizer_json(whole.substr(0, size), "", 5, "t.json"), Error) << size;
  }
}

TEST(ReadTokenizerJson, ReadsAVocabularyOfAHundredThousandTokensInLittleTime) {
  // With a linear search for each key, as ordered JSON objects do it, this would take minutes.
  TokenizerSpec spec = byte_spec();
  for (int i = 0; i < 100'000; ++i) add_token(spec, fmt::format("t{}", i), TokenType::kNormal);
  EXPECT_EQ(read_tokenizer_json(write_tokenizer_json(spec), "", spec.tokens.size(), "t.json"),
            spec);
}

void expect_round_trip(const TokenizerSpec& spec) {
  EXPECT_EQ(read_tokenizer_json(write_tokenizer_json(spec), write_tokenizer_config_json(spec),
                                spec.tokens.size(), "again"),
            spec);
}

TEST(WriteTokenizerJson, GivesBackTheSpecOfTheBundledModel) {
  const TokenizerSpec spec =
      read_tokenizer_json(read_file("models/grain/tokenizer.json"),
                          read_file("models/grain/tokenizer_config.json"), 4096, "grain");
  EXPECT_EQ(spec.pre_tokenizer, "qwen2");
  EXPECT_EQ(spec.bos, TokenId{4095});
  EXPECT_TRUE(spec.add_bos);
  expect_round_trip(spec);
}

TEST(WriteTokenizerJson, GivesBackSpecsWithEveryKindOfToken) {
  expect_round_trip(
      read_tokenizer_json(read_file("testdata/tokenizer/small.json"), "", 500, "small"));
  TokenizerSpec spec = byte_spec();
  add_token(spec, "<c>", TokenType::kControl);
  add_token(spec, "plain \u00e9 text", TokenType::kUserDefined);
  add_token(spec, "[PAD258]", TokenType::kUnused);
  spec.normalized_added_tokens = {add_token(spec, "<d>", TokenType::kControl)};
  add_merge(spec, "a", "b");
  spec.bos = spec.pad = TokenId{256};
  spec.eos = TokenId{257};
  spec.eot = spec.unknown = TokenId{259};
  spec.add_bos = spec.add_eos = spec.normalize_nfc = spec.ignore_merges = true;
  spec.chat_template = "{% for m in messages %}\n{{ m }}{% endfor %}";
  expect_round_trip(spec);
}

}  // namespace
}  // namespace winnow::text::tokenizer_json_test
