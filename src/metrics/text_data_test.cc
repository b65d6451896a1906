// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/text_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "text/test_spec.h"

namespace winnow::metrics::text_data_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

/// Bytes are tokens; token 256 is the end of a text.
text::Tokenizer byte_tokenizer(bool has_bos = true) {
  text::TokenizerSpec spec = text::byte_spec();
  const TokenId end = text::add_token(spec, "<|endoftext|>", text::TokenType::kControl);
  if (has_bos) spec.bos = end;
  return text::Tokenizer(spec);
}

std::vector<int> ids(const Window& window) {
  std::vector<int> values;
  for (const TokenId token : window.tokens) values.push_back(index(token));
  return values;
}

/// The text tokens of all windows that are scored, as text.
std::string scored_text(const WindowSet& set, std::size_t domain) {
  std::string text;
  for (const Window& window : set.windows) {
    if (window.domain != domain) continue;
    for (std::size_t t = window.first_scored; t < window.tokens.size(); ++t) {
      text += static_cast<char>(index(window.tokens[t]));
    }
  }
  return text;
}

WindowSet windows_of(const std::vector<Document>& documents, WindowOptions options) {
  return make_windows(byte_tokenizer(), documents, options);
}

class ReadDocuments : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const auto path = folder_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  static std::vector<Document> read(const std::vector<std::string>& paths) {
    return read_documents(paths);
  }
  TemporaryFolder folder_;
};

TEST_F(ReadDocuments, TakesATextFileWholeAndNamesItsDomainAfterIt) {
  const std::string text("a\r\nb\n\n\0c \xEF\xBB\xBF", 11);
  const auto documents = read({write("prose.en.txt", text)});
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(documents[0].domain, "prose.en");
  EXPECT_EQ(documents[0].text, text);
}

TEST_F(ReadDocuments, GivesBytesThatNobodyCalibratesOn) {
  const auto refused = [&](const std::string& text) {
    const std::vector<std::string> paths = {write("x.txt", text)};
    EXPECT_EQ(read(paths)[0].text, text);
    return error_of([&] { read_calibration(paths); }, ErrorCode::kBadData);
  };
  EXPECT_THAT(refused(std::string("some text\0and more", 18)),
              HasSubstr("x.txt: has a zero byte at offset 9"));
  std::string noise;
  for (int i = 0; i < 1000; ++i) noise += static_cast<char>(1 + i * 37 % 255);
  EXPECT_THAT(refused(noise), HasSubstr("UTF-8"));
  // A byte of another encoding here and there is text.
  std::string latin(1000, 'a');
  for (int i = 0; i < 1000; i += 100) latin[i] = static_cast<char>(0xE9);
  EXPECT_EQ(read_calibration(std::vector{write("x.txt", latin)})[0].text, latin);
  latin[50] = static_cast<char>(0xE9);
  EXPECT_THAT(refused(latin), HasSubstr("11 of its 1000 bytes"));
}

TEST_F(ReadDocuments, TakesTheFilesOfAFolderInOrderOfTheirNamesWithoutHiddenOnesAndFolders) {
  write("d/b.txt", "2");
  write("d/a.md", "1");
  write("d/.hidden", "no");
  write("d/nested/c.txt", "no");
  std::filesystem::create_symlink("nowhere", folder_.path() / "d/dangling.txt");
  const auto documents = read({(folder_.path() / "d").string()});
  ASSERT_EQ(documents.size(), 2U);
  EXPECT_EQ(documents[0].domain, "a");
  EXPECT_EQ(documents[1].domain, "b");
}

TEST_F(ReadDocuments, TakesEachLineOfJsonlAsADocumentOfOneDomain) {
  const auto documents =
      read({write("chat.jsonl", "{\"text\": \"one\\n\"}\r\n\n  \n{\"id\": 1, \"text\": \"two\"}")});
  ASSERT_EQ(documents.size(), 2U);
  EXPECT_EQ(documents[0].text, "one\n");
  EXPECT_EQ(documents[1].text, "two");
  EXPECT_EQ(documents[1].domain, "chat");
  EXPECT_THAT(documents[1].source, HasSubstr("chat.jsonl: line 4"));
}

TEST_F(ReadDocuments, NamesFileAndLineOfAWrongJsonlLine) {
  const std::string good = "{\"text\": \"x\"}\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{\"text\": \"x\"", "not valid JSON"},    {"[\"text\"]", "string 'text'"},
      {"{\"text\": 3}", "string 'text'"},        {"{\"other\": \"x\"}", "string 'text'"},
      {"{\"messages\": []}", "chat template"},   {"{\"text\": \"\xFF\"}", "not valid JSON"},
      {"{\"text\":\"\",\"text\":\"\"}", "twice"}};
  for (const auto& [line, words] : cases) {
    const std::string path = write("broken.jsonl", good + "\n" + line + "\n" + good);
    const std::string message = error_of([&] { read({path}); });
    EXPECT_THAT(message, HasSubstr("broken.jsonl: line 3")) << line;
    EXPECT_THAT(message, HasSubstr(words)) << line;
  }
}

TEST_F(ReadDocuments, RefusesWhatIsNotThereOrEmpty) {
  EXPECT_THAT(error_of([&] { read({(folder_.path() / "absent.txt").string()}); }),
              HasSubstr("absent.txt"));
  std::filesystem::create_directory(folder_.path() / "empty");
  EXPECT_THAT(error_of([&] { read({(folder_.path() / "empty").string()}); }),
              HasSubstr("holds no files"));
  EXPECT_THAT(error_of([&] { read({write("blank.jsonl", "\n\n")}); }), HasSubstr("blank.jsonl"));
  error_of([&] { read({}); }, ErrorCode::kUsage);
}

TEST(MakeWindows, CutsTheTextIntoStretchesBehindTheStartTokenAndScoresEachTokenOnce) {
  const std::string text = "abcdefghij";
  const WindowSet set = windows_of({{"d", "d", text}}, {.context = 5});
  ASSERT_EQ(set.windows.size(), 3U);
  EXPECT_THAT(ids(set.windows[0]), ElementsAre(256, 'a', 'b', 'c', 'd'));
  EXPECT_THAT(ids(set.windows[1]), ElementsAre(256, 'e', 'f', 'g', 'h'));
  EXPECT_THAT(ids(set.windows[2]), ElementsAre(256, 'i', 'j'));
  EXPECT_EQ(set.scored_tokens(), text.size());
  EXPECT_EQ(scored_text(set, 0), text);
}

TEST(MakeWindows, ATextOfExactlyOneStretchIsOneWindow) {
  const WindowSet set = windows_of({{"d", "d", std::string(511, 'x')}}, {});
  ASSERT_EQ(set.windows.size(), 1U);
  EXPECT_EQ(set.windows[0].tokens.size(), 512U);
  EXPECT_EQ(windows_of({{"d", "d", std::string(512, 'x')}}, {}).windows.size(), 2U);
}

TEST(MakeWindows, DoesNotParseSpecialTokensInTheText) {
  const WindowSet set = windows_of({{"d", "d", "<|endoftext|>"}}, {});
  EXPECT_EQ(scored_text(set, 0), "<|endoftext|>");
}

TEST(MakeWindows, BrokenUtf8IsScoredByteByByte) {
  const WindowSet set = windows_of({{"d", "d", "a\xFF\xC3"}}, {});
  EXPECT_THAT(ids(set.windows[0]), ElementsAre(256, 'a', 0xFF, 0xC3));
}

TEST(MakeWindows, TakesEndOfTextAsTheStartTokenOfAModelWithoutBos) {
  const std::vector<Document> documents = {{"d", "d", "ab"}};
  const WindowSet set = make_windows(byte_tokenizer(/*has_bos=*/false), documents, {});
  EXPECT_THAT(ids(set.windows[0]), ElementsAre(256, 'a', 'b'));
}

TEST(MakeWindows, WithoutAnyStartTokenTheFirstTokenOfEachFullLengthWindowIsNotScored) {
  const std::vector<Document> documents = {{"d", "d", "abcdefghi"}};
  const WindowSet set = make_windows(text::Tokenizer(text::byte_spec()), documents, {.context = 4});
  // The last window would be "i" alone, with nothing to score.
  ASSERT_EQ(set.windows.size(), 2U);
  EXPECT_THAT(ids(set.windows[0]), ElementsAre('a', 'b', 'c', 'd'));
  EXPECT_EQ(scored_text(set, 0), "bcdfgh");
}

TEST(MakeWindows, FilesOfOneNameAreOneDomainAndEmptyOnesAreNone) {
  const WindowSet set =
      windows_of({{"a", "1", "xx"}, {"none", "2", ""}, {"b", "3", "y"}, {"a", "4", "z"}}, {});
  EXPECT_THAT(set.domains, ElementsAre("a", "b"));
  EXPECT_EQ(scored_text(set, 0), "xxz");
  EXPECT_EQ(scored_text(set, 1), "y");
}

TEST(MakeWindows, WeightsAreSharesOfTheTokensAsFarAsADomainReaches) {
  const std::vector<Document> documents = {{"a", "1", std::string(1000, 'a')},
                                           {"b", "2", std::string(1000, 'b')},
                                           {"c", "3", std::string(50, 'c')}};
  const auto scored = [&](const WindowOptions& options) {
    const WindowSet set = windows_of(documents, options);
    std::map<std::string, std::uint64_t> tokens;
    for (const Window& window : set.windows) {
      tokens[set.domains[window.domain]] += window.scored();
    }
    return tokens;
  };
  using Tokens = std::map<std::string, std::uint64_t>;
  EXPECT_EQ(scored({.max_tokens = 400, .weights = {{"a", 3}, {"c", 0}}}),
            (Tokens{{"a", 300}, {"b", 100}}));
  // What the short one leaves is shared as the weights say.
  EXPECT_EQ(scored({.max_tokens = 450, .weights = {{"a", 3}, {"c", 10}}}),
            (Tokens{{"a", 300}, {"b", 100}, {"c", 50}}));
  EXPECT_EQ(scored({.max_tokens = 0, .weights = {{"b", 0}}}), (Tokens{{"a", 1000}, {"c", 50}}));
  EXPECT_THAT(error_of(
                  [&] {
                    scored({.weights = {{"d", 1}}});
                  },
                  ErrorCode::kUsage),
              HasSubstr("no such domain; the text has a, b, c"));
}

TEST(MakeWindows, SharesTheTokensEquallyAndGivesOnWhatAShortDomainLeaves) {
  const std::vector<Document> documents = {{"long", "1", std::string(900, 'l')},
                                           {"short", "2", "sss"},
                                           {"other", "3", std::string(600, 'o')}};
  const WindowSet set = windows_of(documents, {.context = 101, .max_tokens = 1000});
  EXPECT_EQ(set.scored_tokens(), 1000U);
  EXPECT_EQ(scored_text(set, 1), "sss");
  EXPECT_EQ(scored_text(set, 0).size(), 499U);
  EXPECT_EQ(scored_text(set, 2).size(), 498U);
  for (const Window& window : set.windows) EXPECT_LE(window.tokens.size(), 101U);
}

TEST(MakeWindows, KeepsTheBeginningOfEachDomain) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>('!' + i % 90);
  const WindowSet set = windows_of({{"d", "1", text}}, {.context = 11, .max_tokens = 37});
  EXPECT_EQ(scored_text(set, 0), text.substr(0, 37));
  EXPECT_EQ(set.windows.size(), 4U);
}

TEST(MakeWindows, MoreTokensThanThereAreKeepsAll) {
  EXPECT_EQ(windows_of({{"d", "1", "abc"}}, {.max_tokens = 1000}).scored_tokens(), 3U);
  EXPECT_EQ(windows_of({{"d", "1", "abc"}}, {.max_tokens = 0}).scored_tokens(), 3U);
}

TEST(MakeWindows, FewerTokensThanDomainsGoToTheFirstOnes) {
  const WindowSet set =
      windows_of({{"a", "1", "aa"}, {"b", "2", "bb"}, {"c", "3", "cc"}}, {.max_tokens = 2});
  EXPECT_EQ(set.scored_tokens(), 2U);
  EXPECT_EQ(scored_text(set, 0), "a");
  EXPECT_EQ(scored_text(set, 1), "b");
}

TEST(MakeWindows, RefusesTextWithoutTokensAndAContextOfOne) {
  EXPECT_THAT(error_of([] { windows_of({{"d", "void.txt", ""}}, {}); }), HasSubstr("void.txt"));
  EXPECT_THAT(error_of(
                  [] {
                    windows_of({{"d", "d", "abc"}}, {.context = 1});
                  },
                  ErrorCode::kUsage),
              HasSubstr("--context"));
}

}  // namespace
}  // namespace winnow::metrics::text_data_test
