// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The registry, and what every codec has to satisfy: decoding as published, the integer form equal
// to it. The tests run over the registry; a new codec needs a golden file only.
#include "quant/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "quant/codec_test_support.h"

namespace winnow::quant::codec_test {

namespace {

std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

bool same_value(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

TEST(CodecRegistry, NamesAndTypeNumbersAreUnique) {
  std::set<std::string_view> names;
  std::set<std::uint32_t> types;
  for (const Codec* codec : all_codecs()) {
    EXPECT_TRUE(names.insert(codec->name).second) << codec->name;
    EXPECT_TRUE(types.insert(codec->ggml_type).second) << codec->name;
  }
}

TEST(CodecRegistry, FindsEveryCodecByNameInAnyCaseAndByTypeNumber) {
  for (const Codec* codec : all_codecs()) {
    std::string lower(codec->name);
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    EXPECT_EQ(find_codec(lower), codec);
    EXPECT_EQ(find_codec_by_ggml_type(codec->ggml_type), codec);
  }
  EXPECT_EQ(find_codec("Q4_KX"), nullptr);
  EXPECT_EQ(find_codec(""), nullptr);
  EXPECT_EQ(find_codec_by_ggml_type(4), nullptr);  // a type that GGUF withdrew
}

TEST(CodecRegistry, HasThePublishedBlockSizes) {
  const std::map<std::string_view, std::pair<std::uint32_t, std::uint32_t>> published = {
      {"F32", {1, 4}},        {"F16", {1, 2}},      {"BF16", {1, 2}},       {"Q8_0", {32, 34}},
      {"Q4_0", {32, 18}},     {"Q4_1", {32, 20}},   {"Q5_0", {32, 22}},     {"Q5_1", {32, 24}},
      {"Q2_K", {256, 84}},    {"Q3_K", {256, 110}}, {"Q4_K", {256, 144}},   {"Q5_K", {256, 176}},
      {"Q6_K", {256, 210}},   {"IQ4_NL", {32, 18}}, {"IQ4_XS", {256, 136}}, {"IQ3_S", {256, 110}},
      {"IQ3_XXS", {256, 98}}, {"IQ2_S", {256, 82}}, {"IQ2_XS", {256, 74}},  {"IQ2_XXS", {256, 66}}};
  for (const auto& [name, sizes] : published) {
    const Codec* codec = find_codec(name);
    ASSERT_NE(codec, nullptr) << name;
    EXPECT_EQ(codec->block_size, sizes.first) << name;
    EXPECT_EQ(codec->block_bytes, sizes.second) << name;
  }
}

TEST(CodecRegistry, FallsBackAsLlamaCppDoesForRowsThatDoNotDivide) {
  const std::map<std::string_view, std::string_view> at_128 = {
      {"Q2_K", "IQ4_NL"},    {"Q3_K", "IQ4_NL"},  {"IQ4_XS", "IQ4_NL"}, {"Q4_K", "Q5_0"},
      {"Q5_K", "Q5_1"},      {"Q6_K", "Q8_0"},    {"Q4_0", "Q4_0"},     {"IQ3_S", "IQ4_NL"},
      {"IQ3_XXS", "IQ4_NL"}, {"IQ2_S", "IQ4_NL"}, {"IQ2_XS", "IQ4_NL"}, {"IQ2_XXS", "IQ4_NL"}};
  for (const auto& [wanted, used] : at_128) {
    EXPECT_EQ(codec_for_row(*find_codec(wanted), 128).name, used);
    EXPECT_EQ(codec_for_row(*find_codec(wanted), 512).name, wanted);
    EXPECT_EQ(codec_for_row(*find_codec(wanted), 33).name, "F16");
  }
}

TEST(CodecRegistry, EveryFallbackChainEnds) {
  for (const Codec* codec : all_codecs()) EXPECT_EQ(codec_for_row(*codec, 1).block_size, 1U);
}

class EveryCodec : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryCodec, testing::ValuesIn(all_codecs()), codec_test_name);

TEST_P(EveryCodec, DecodesRandomBytesAsTheIndependentDecoderDoes) {
  const Codec& codec = *GetParam();
  const std::string path = WINNOW_SOURCE_DIR "/testdata/codecs/" + std::string(codec.name) + ".bin";
  const std::vector<std::byte> file = read_file(path);
  const std::size_t per_block = codec.block_bytes + codec.block_size * sizeof(float);
  ASSERT_GT(file.size(), 0U) << path << " is missing; run testdata/codecs/make_golden.py";
  ASSERT_EQ(file.size() % per_block, 0U) << path;
  const std::size_t blocks = file.size() / per_block;
  std::vector<float> expected(blocks * codec.block_size);
  std::memcpy(expected.data(), file.data() + blocks * codec.block_bytes,
              expected.size() * sizeof(float));
  std::vector<float> decoded(expected.size());
  codec.decode(file.data(), blocks, decoded.data());
  for (std::size_t j = 0; j < decoded.size(); ++j) {
    ASSERT_TRUE(same_value(decoded[j], expected[j]))
        << "weight " << j << ": " << decoded[j] << ", expected " << expected[j];
  }
}

class EveryIntegerCodec : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryIntegerCodec, testing::ValuesIn(integer_codecs()),
                         codec_test_name);

// The error of scale * code - offset in f32 against exact arithmetic is at most half an ulp for the
// product and half for the difference; decode makes the same two roundings. 4 * 2^-24 covers both
// sides with room for another order of operations.
TEST_P(EveryIntegerCodec, UnpacksToScaleTimesCodeMinusOffset) {
  const Codec& codec = *GetParam();
  constexpr std::size_t kBlocks = 37;
  const std::size_t count = kBlocks * codec.block_size;
  const std::vector<std::byte> packed = random_blocks(codec, kBlocks, 11);
  std::vector<float> decoded(count);
  codec.decode(packed.data(), kBlocks, decoded.data());

  constexpr float kUntouched = -12345.0F;
  UnpackedBlocks form(codec, packed, kUntouched);
  if (!codec.has_offsets) {
    EXPECT_THAT(form.offsets, testing::Each(kUntouched));
    form.offsets.assign(form.offsets.size(), 0.0F);
  }
  std::size_t finite = 0;
  for (std::size_t j = 0; j < count; ++j) {
    if (!std::isfinite(decoded[j])) continue;
    ++finite;
    const double product =
        static_cast<double>(form.scales[j / IntegerForm::kGroup]) * form.codes[j];
    const double offset = form.offsets[j / IntegerForm::kGroup];
    const double bound = 4 * 0x1p-24 * (std::fabs(product) + std::fabs(offset));
    ASSERT_LE(std::fabs(product - offset - decoded[j]), bound) << "weight " << j;
  }
  EXPECT_GT(finite, count / 2);
}

TEST_P(EveryIntegerCodec, UnpacksCodesThatFitTheIntegerKernels) {
  const Codec& codec = *GetParam();
  const UnpackedBlocks form(codec, random_blocks(codec, 64, 12));
  const std::set<std::int8_t> seen(form.codes.begin(), form.codes.end());
  EXPECT_GE(seen.size(), 4U);
  if (codec.has_offsets) {
    EXPECT_GE(*seen.begin(), 0);
    EXPECT_LE(*seen.rbegin(), 31);
  }
}

}  // namespace
}  // namespace winnow::quant::codec_test
