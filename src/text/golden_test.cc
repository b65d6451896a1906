// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Token for token against the library `tokenizers` (golden files by
// testdata/tokenizer/make_golden.py) and, for the bundled model, against the files that came with
// it.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/pre_tokenizer.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace winnow::text::golden_test {
namespace {

const std::string kSource = WINNOW_SOURCE_DIR;

std::string read_file(const std::string& path) {
  std::ifstream file(kSource + "/" + path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return (std::ostringstream() << file.rdbuf()).str();
}

Json read_json(const std::string& path) { return parse_json(read_file(path), path); }

std::vector<TokenId> ids_of(const Json& numbers) {
  std::vector<TokenId> ids;
  for (const Json& number : numbers) ids.push_back(static_cast<TokenId>(number.get<int>()));
  return ids;
}

std::string dump(const std::vector<TokenId>& ids) {
  std::string text;
  for (const TokenId id : ids) text += std::to_string(index(id)) + ' ';
  return text;
}

const Tokenizer& grain() {
  static const Tokenizer tokenizer(
      read_tokenizer_json(read_file("models/grain/tokenizer.json"),
                          read_file("models/grain/tokenizer_config.json"), 4096, "grain"));
  return tokenizer;
}

const Tokenizer& small() {
  static const Tokenizer tokenizer(
      read_tokenizer_json(read_file("testdata/tokenizer/small.json"), "", 432, "small"));
  return tokenizer;
}

/// Rows of [text, ids with special tokens parsed, ids with them as text unless the same].
void expect_golden(const Tokenizer& tokenizer, const Json& rows) {
  int differences = 0;
  for (const Json& row : rows) {
    const std::string& text = row[0].get_ref<const std::string&>();
    const auto parsed = tokenizer.encode(text, SpecialTokens::kParse);
    const auto plain = tokenizer.encode(text, SpecialTokens::kAsText);
    if (parsed == ids_of(row[1]) && plain == ids_of(row[row.size() - 1])) continue;
    if (++differences <= 10) {
      ADD_FAILURE() << row.dump() << "\n  parsed " << dump(parsed) << "\n  as text " << dump(plain);
    }
  }
  EXPECT_EQ(differences, 0) << "of " << rows.size();
}

TEST(GoldenTokenizer, EncodesHardStringsAsTheReferenceDoesOnGrain) {
  const Json rows = read_json("testdata/tokenizer/golden.json");
  ASSERT_GE(rows.size(), 2000U);
  expect_golden(grain(), rows);
}

TEST(GoldenTokenizer, DecodesHardStringsToThemselves) {
  for (const Json& row : read_json("testdata/tokenizer/golden.json")) {
    const std::string& text = row[0].get_ref<const std::string&>();
    EXPECT_EQ(grain().decode(grain().encode(text, SpecialTokens::kParse)), text);
    EXPECT_EQ(grain().decode(grain().encode(text, SpecialTokens::kAsText)), text);
  }
}

TEST(GoldenTokenizer, EncodesAsTheReferenceDoesWithFormCAndAddedTokens) {
  expect_golden(small(), read_json("testdata/tokenizer/small_golden.json"));
}

TEST(GoldenTokenizer, EncodesThePromptsOfTheReferenceModel) {
  const Json file = read_json("models/grain/golden/prompts.json");
  for (const Json& prompt : file.at("prompts")) {
    std::vector<TokenId> ids =
        grain().encode(prompt.at("text").get<std::string>(), SpecialTokens::kAsText);
    ids.insert(ids.begin(), *grain().spec().bos);
    EXPECT_EQ(ids, ids_of(prompt.at("ids"))) << prompt.at("name");
    EXPECT_EQ(grain().decode(ids_of(prompt.at("greedy_ids"))), prompt.at("greedy_text"));
  }
}

class Domain : public testing::TestWithParam<const char*> {};

/// FNV-1a over 4 little-endian bytes per id, in hexadecimal.
std::string fnv1a(const std::vector<TokenId>& ids) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<std::uint32_t>(index(id)) >> shift & 0xFF)) * 0x100000001B3U;
    }
  }
  return fmt::format("{:016x}", hash);
}

TEST_P(Domain, EncodesTheValidationTextAsTheReferenceDoes) {
  const std::string text = read_file(fmt::format("models/grain/data/valid/{}.txt", GetParam()));
  const Json expected = read_json("testdata/tokenizer/valid_golden.json").at(GetParam());
  const auto ids = grain().encode(text, SpecialTokens::kAsText);
  EXPECT_EQ(ids.size(), expected.at("tokens").get<std::size_t>());
  EXPECT_EQ(fnv1a(ids), expected.at("fnv1a").get<std::string>());
}

TEST_P(Domain, RoundTripsTheValidationTextAndStreamsItInWholeCharacters) {
  const std::string text = read_file(fmt::format("models/grain/data/valid/{}.txt", GetParam()));
  const auto ids = grain().encode(text, SpecialTokens::kAsText);
  EXPECT_EQ(grain().decode(ids), text);
  StreamDecoder decoder(grain());
  std::string streamed;
  for (const TokenId id : ids) streamed += decoder.push(id);
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_EQ(streamed, text);
}

INSTANTIATE_TEST_SUITE_P(Grain, Domain,
                         testing::Values("cpp", "dict_en", "french", "german", "prose_en", "python",
                                         "structured", "tech_en"));

TEST(PreTokenizer, CutsWordsAsTheReferenceDoes) {
  const Json file = read_json("testdata/tokenizer/split_golden.json");
  for (const auto& [name, rows] : file.items()) {
    const PreTokenizer pre_tokenizer(*find_pre_tokenizer(name));
    for (const Json& row : rows) {
      std::vector<std::string_view> words;
      const std::string& text = row[0].get_ref<const std::string&>();
      if (!text.empty()) pre_tokenizer.split(text, words);
      std::vector<int> ends;  // in code points, as the reference counts
      int end = 0;
      for (const std::string_view word : words) {
        for (const char c : word) end += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
        ends.push_back(end);
      }
      EXPECT_EQ(ends, row[1].get<std::vector<int>>()) << name << ' ' << row[0].dump();
    }
  }
}

}  // namespace
}  // namespace winnow::text::golden_test
