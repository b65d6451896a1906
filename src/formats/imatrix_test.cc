// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Importance matrices of both forms: written and read back, and hostile ones.
#include "formats/imatrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <limits>

#include "formats/expect_error.h"
#include "formats/test_files.h"

namespace winnow::formats::imatrix_test {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using testing::gguf_string;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::le;
using testing::memory_file;
using testing::TemporaryFolder;

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

ImatrixFile read(const std::string& bytes) { return ImatrixFile::read(memory_file("m", bytes)); }

/// Reads everything that there is.
void read_all(const std::string& bytes) {
  const ImatrixFile file = read(bytes);
  for (const ImatrixEntry& entry : file.entries()) file.values(entry);
}

std::string refusal(const std::string& bytes) {
  return error_of([&] { read_all(bytes); });
}

/// A dense tensor of 700 tokens and two experts, one of which saw none.
std::string small_file(ImatrixForm form) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "m";
  const ImatrixInfo info{{"prose", "code"}, 9, 64};
  const auto writer =
      write_imatrix(path, form, info, {{"blk.0.attn_q.weight", 1, 3}, {"blk.0.exps", 2, 2}});
  writer->append(std::vector{700.0, 0.0, 70.0}, std::vector<std::uint64_t>{700});
  writer->append(std::vector{8.0, 1.0, 0.0, 0.0}, std::vector<std::uint64_t>{4, 0});
  writer->finish();
  return bytes_of(path);
}

TEST(Imatrix, InGgufKeepsSumsAndCounts) {
  const ImatrixFile file = read(small_file(ImatrixForm::kGguf));
  EXPECT_EQ(file.form(), ImatrixForm::kGguf);
  EXPECT_THAT(file.info().datasets, ElementsAre("prose", "code"));
  EXPECT_EQ(file.info().chunk_count, 9U);
  EXPECT_EQ(file.info().chunk_size, 64U);
  ASSERT_EQ(file.entries().size(), 2U);
  EXPECT_EQ(file.find("blk.0.exp"), nullptr);
  const ImatrixValues dense = file.values(*file.find("blk.0.attn_q.weight"));
  EXPECT_THAT(dense.mean_squares, ElementsAre(1.0F, 0.0F, 0.1F));
  EXPECT_THAT(dense.counts, ElementsAre(700.0));
  const ImatrixValues experts = file.values(*file.find("blk.0.exps"));
  EXPECT_THAT(experts.mean_squares, ElementsAre(2.0F, 0.25F, 0.0F, 0.0F));
  EXPECT_THAT(experts.counts, ElementsAre(4.0, 0.0));
}

TEST(Imatrix, InTheBinaryFormKeepsMeansAndChunks) {
  const ImatrixFile file = read(small_file(ImatrixForm::kBinary));
  EXPECT_EQ(file.form(), ImatrixForm::kBinary);
  EXPECT_THAT(file.info().datasets, ElementsAre("code"));
  EXPECT_EQ(file.info().chunk_count, 9U);
  const ImatrixValues dense = file.values(*file.find("blk.0.attn_q.weight"));
  EXPECT_THAT(dense.mean_squares, ElementsAre(1.0F, 0.0F, 0.1F));
  EXPECT_THAT(dense.counts, ElementsAre(11.0 * kUsualChunk));  // 700 tokens are 11 chunks of 64
  const ImatrixValues experts = file.values(*file.find("blk.0.exps"));
  EXPECT_THAT(experts.mean_squares, ElementsAre(2.0F, 0.25F, 1.0F, 1.0F));
  EXPECT_EQ(experts.counts.size(), 1U);
}

TEST(Imatrix, HasTheBytesThatLlamaCppReads) {
  const auto entry = [](const std::string& name, std::int32_t chunks,
                        const std::vector<float>& values) {
    std::string bytes = le(static_cast<std::int32_t>(name.size())) + name + le(chunks) +
                        le(static_cast<std::int32_t>(values.size()));
    for (const float value : values) bytes += le(value);
    return bytes;
  };
  const std::string expected = le(std::int32_t{2}) +
                               entry("blk.0.attn_q.weight", 11, {11.0F, 0.0F, 1.1F}) +
                               entry("blk.0.exps", 1, {2.0F, 0.25F, 1.0F, 1.0F}) +
                               le(std::int32_t{9}) + le(std::int32_t{4}) + "code";
  EXPECT_EQ(small_file(ImatrixForm::kBinary), expected);
}

TEST(Imatrix, OfTheOldestProgramsEndsAfterTheEntriesOrTheChunks) {
  const std::string all = small_file(ImatrixForm::kBinary);
  const std::string entries = all.substr(0, all.size() - 12);
  EXPECT_EQ(read(entries).info().chunk_count, 11U);
  EXPECT_TRUE(read(entries).info().datasets.empty());
  EXPECT_EQ(read(entries + le(std::int32_t{5})).info().chunk_count, 5U);
}

TEST(Imatrix, ThatIsCutShortAnywhereIsRefused) {
  for (const ImatrixForm form : {ImatrixForm::kGguf, ImatrixForm::kBinary}) {
    const std::string all = small_file(form);
    // Two lengths of the binary form are those of the oldest programs' files.
    for (std::size_t size = 0; size < all.size(); ++size) {
      const bool is_old =
          form == ImatrixForm::kBinary && (size + 12 == all.size() || size + 8 == all.size());
      if (is_old) continue;
      // A GGUF file may end within the padding after its last payload.
      if (form == ImatrixForm::kGguf && size + 24 >= all.size()) continue;
      refusal(all.substr(0, size));
    }
  }
}

TEST(Imatrix, WithAnyByteChangedIsReadOrRefused) {
  for (const ImatrixForm form : {ImatrixForm::kGguf, ImatrixForm::kBinary}) {
    const std::string all = small_file(form);
    std::size_t refused = 0;
    for (std::size_t at = 0; at < all.size(); ++at) {
      for (const char byte : {'\0', '\x7f', '\xff'}) {
        std::string changed = all;
        changed[at] = byte;
        try {
          read_all(changed);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::kBadData) << error.message();
          ++refused;
        }
      }
    }
    EXPECT_GT(refused, all.size() / 2);
  }
}

TEST(Imatrix, ThatIsNoneIsRefusedWithWhatItCouldBe) {
  EXPECT_THAT(refusal("just some text that is long enough"),
              HasSubstr("importance matrix of llama.cpp"));
  GgufBuilder model;
  model.tensor("norm.weight", {8}, 0, 0);
  EXPECT_THAT(refusal(model.build(32)), HasSubstr("without an importance matrix"));
}

TEST(Imatrix, OfCountsThatDoNotFitTheSumsIsRefused) {
  const auto with = [](const std::vector<std::uint64_t>& sums,
                       const std::vector<std::uint64_t>& counts, std::uint32_t type) {
    GgufBuilder builder;
    builder.tensor("a.in_sum2", sums, 0, 0).tensor("a.counts", counts, type, 64);
    return builder.build(128);
  };
  EXPECT_THAT(refusal(with({4, 2}, {1, 3}, 0)), HasSubstr("not of 3 matrices"));
  EXPECT_THAT(refusal(with({4, 2}, {1, 2}, 1)), HasSubstr("expected F32"));
  GgufBuilder alone;
  alone.tensor("a.in_sum2", {4, 2}, 0, 0);
  EXPECT_THAT(refusal(alone.build(32)), HasSubstr("no counts"));
}

TEST(Imatrix, WithValuesThatAreNoSquaresIsRefused) {
  std::string all = small_file(ImatrixForm::kBinary);
  const std::size_t first_value = 4 + 4 + 19 + 4 + 4;
  for (const float bad :
       {-1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    all.replace(first_value, 4, le(bad));
    EXPECT_THAT(refusal(all), HasSubstr("'blk.0.attn_q.weight'"));
  }
}

TEST(Imatrix, WithTheSameNameTwiceIsRefused) {
  std::string all = small_file(ImatrixForm::kBinary);
  const std::string entry = all.substr(4, 4 + 19 + 4 + 4 + 12);
  EXPECT_THAT(refusal(le(std::int32_t{2}) + entry + entry), HasSubstr("two entries"));
}

}  // namespace
}  // namespace winnow::formats::imatrix_test
