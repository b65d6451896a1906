// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/test_models.h"
#include "text/test_spec.h"

namespace winnow::model::tokenizer_metadata_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

text::TokenizerSpec sample_spec() {
  text::TokenizerSpec spec = text::byte_spec();
  text::add_merge(spec, "a", "b");
  spec.bos = text::add_token(spec, "<bos>", text::TokenType::kControl);
  spec.eot = text::add_token(spec, "<turn>", text::TokenType::kUserDefined);
  text::add_token(spec, "", text::TokenType::kUnused);
  spec.add_bos = true;
  spec.chat_template = "{{ messages }}";
  return spec;
}

formats::Metadata written(const text::TokenizerSpec& spec) {
  formats::Metadata metadata("m.gguf");
  write_tokenizer_metadata(spec, metadata);
  return metadata;
}

TEST(TokenizerMetadata, ReadsWhatItWrites) {
  EXPECT_EQ(read_tokenizer_metadata(written(sample_spec())), sample_spec());
}

TEST(TokenizerMetadata, KeepsWhatGgufHasNoKeyFor) {
  text::TokenizerSpec spec = sample_spec();
  spec.normalize_nfc = true;
  spec.ignore_merges = true;
  spec.normalized_added_tokens = {*spec.eot};
  EXPECT_EQ(read_tokenizer_metadata(written(spec)), spec);
}

TEST(TokenizerMetadata, WritesNoKeysOfItsOwnForAPlainTokenizer) {
  const auto metadata = written(sample_spec());
  for (const auto& [key, value] : metadata.entries()) {
    EXPECT_TRUE(key.starts_with("tokenizer.")) << key;
  }
}

void expect_refused(const formats::Metadata& metadata, const char* key, const char* word) {
  const Error error = error_of([&] { read_tokenizer_metadata(metadata); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData) << error.message();
  EXPECT_THAT(error.message(), AllOf(HasSubstr("m.gguf"), HasSubstr(key), HasSubstr(word)));
}

TEST(TokenizerMetadata, RefusesAMissingKey) {
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.tokens"}) {
    auto metadata = written(sample_spec());
    metadata.erase(key);
    expect_refused(metadata, key, "");
  }
}

TEST(TokenizerMetadata, RefusesAnotherKindOfTokenizer) {
  auto metadata = written(sample_spec());
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  expect_refused(metadata, "tokenizer.ggml.model", "llama");
}

TEST(TokenizerMetadata, RefusesTypesThatDoNotMatchTheTokens) {
  auto metadata = written(sample_spec());
  metadata.set("tokenizer.ggml.token_type", formats::Array(std::vector<std::int32_t>{1, 1}));
  expect_refused(metadata, "tokenizer.ggml.token_type", "2");
  metadata.set("tokenizer.ggml.token_type",
               formats::Array(std::vector<std::int32_t>(sample_spec().tokens.size(), 7)));
  expect_refused(metadata, "tokenizer.ggml.token_type", "7");
}

TEST(TokenizerMetadata, RefusesAMergeWithoutABlank) {
  auto metadata = written(sample_spec());
  for (const char* merge : {"ab", "a ", ""}) {
    metadata.set("tokenizer.ggml.merges", formats::Array(std::vector<std::string>{merge}));
    expect_refused(metadata, "tokenizer.ggml.merges", merge);
  }
}

TEST(TokenizerMetadata, RefusesASpecialIdBeyondTheVocabulary) {
  auto metadata = written(sample_spec());
  metadata.set("tokenizer.ggml.bos_token_id", std::uint32_t{100000});
  expect_refused(metadata, "tokenizer.ggml.bos_token_id", "100000");
}

}  // namespace
}  // namespace winnow::model::tokenizer_metadata_test
