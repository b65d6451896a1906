// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The encoders with llama.cpp's bytes against digests of what that program makes. The peer test
// tests/peer/test_stock_encoders.py compares the bytes themselves, on more weights.
#include "quant/stock_encoders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "quant/codec_test_support.h"

namespace winnow::quant::stock_encoders_test {
namespace {

const std::string kFolder = WINNOW_SOURCE_DIR "/testdata/codecs/";

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path << " is missing";
  return {std::istreambuf_iterator<char>(file), {}};
}

/// One row of importances and rows of weights.
struct GoldenTensor {
  std::vector<float> importance;
  std::vector<float> weights;

  GoldenTensor(const std::string& name, std::size_t columns) : importance(columns) {
    const std::string bytes = read_text(kFolder + "tensor_" + name + ".bin");
    const std::size_t first = columns * sizeof(float);
    EXPECT_GT(bytes.size(), first);
    weights.resize(bytes.size() / sizeof(float) - columns);
    std::memcpy(importance.data(), bytes.data(), first);
    std::memcpy(weights.data(), bytes.data() + first, bytes.size() - first);
  }
};

std::vector<std::byte> encode(const Codec& codec, const std::vector<float>& weights,
                              std::size_t columns, const float* importance) {
  const std::size_t blocks = columns / codec.block_size;
  const std::size_t row_bytes = blocks * codec.block_bytes;
  std::vector<std::byte> out(weights.size() / columns * row_bytes);
  for (std::size_t r = 0; r < weights.size() / columns; ++r) {
    find_stock_encoder(codec)(weights.data() + r * columns, blocks, importance,
                              out.data() + r * row_bytes);
  }
  return out;
}

std::string fnv1a(const std::vector<std::byte>& bytes) {
  std::uint64_t digest = 0xcbf29ce484222325;
  for (const std::byte byte : bytes) {
    digest = (digest ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;
  }
  std::ostringstream text;
  text << std::hex;
  text.width(16);
  text.fill('0');
  text << digest;
  return text.str();
}

std::vector<const Codec*> stock_codecs() {
  std::vector<const Codec*> codecs;
  for (const Codec* codec : all_codecs()) {
    if (!codec->is_float() && find_stock_encoder(*codec) != nullptr) codecs.push_back(codec);
  }
  return codecs;
}

class EveryStockEncoder : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryStockEncoder, testing::ValuesIn(stock_codecs()),
                         codec_test_name);

TEST_P(EveryStockEncoder, GivesTheBytesOfLlamaCpp) {
  const Codec& codec = *GetParam();
  const Json golden = Json::parse(read_text(kFolder + "stock_digests.json")).at("tensors");
  EXPECT_EQ(golden.size(), 4U);
  for (const auto& [name, entry] : golden.items()) {
    const auto columns = entry.at("columns").get<std::size_t>();
    const GoldenTensor tensor(name, columns);
    const Json& digests = entry.at(std::string(codec.name));
    EXPECT_EQ(fnv1a(encode(codec, tensor.weights, columns, nullptr)), digests.at("plain")) << name;
    EXPECT_EQ(fnv1a(encode(codec, tensor.weights, columns, tensor.importance.data())),
              digests.at("weighted"))
        << name;
  }
}

// Only the codecs' own encoders promise finite results for all finite weights.
TEST_P(EveryStockEncoder, MakesScalesThatNoHalfHoldsInfinite) {
  const Codec& codec = *GetParam();
  constexpr std::size_t kColumns = 256;
  std::vector<float> decoded(kColumns);
  for (const float size : {1e9F, 1e10F}) {
    std::vector<float> weights(kColumns);
    for (std::size_t j = 0; j < kColumns; ++j) weights[j] = j % 3 == 0 ? -size : size;
    const auto bytes = encode(codec, weights, kColumns, nullptr);
    codec.decode(bytes.data(), kColumns / codec.block_size, decoded.data());
    EXPECT_FALSE(std::isfinite(decoded[0])) << size;
  }
}

TEST(StockEncoders, AreThoseOfTheTypesInStocksMixesThatHaveNoCodebook) {
  std::vector<std::string> names;
  for (const Codec* codec : stock_codecs()) names.emplace_back(codec->name);
  EXPECT_THAT(names,
              testing::UnorderedElementsAre("Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K", "Q4_1", "Q4_0",
                                            "Q4_K", "IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K"));
  for (const char* name : {"F32", "F16", "BF16"}) {
    EXPECT_EQ(find_stock_encoder(*find_codec(name)), find_codec(name)->encode) << name;
  }
}

}  // namespace
}  // namespace winnow::quant::stock_encoders_test
