// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/quantizer_methods.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"
#include "model/test_models.h"
#include "quant/codec_test_support.h"

namespace winnow::compress::quantizer_methods_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 256;
constexpr std::size_t kRows = 40;

class EveryCodecMethods : public ::testing::TestWithParam<const quant::Codec*> {
 protected:
  QuantizerCandidate run(std::string_view name) {
    bytes.assign(kRows * (kSize / codec.block_size) * codec.block_bytes, std::byte{});
    const QuantizerMethod* method = find_quantizer_method(name);
    return quantize_matrix(weights.view(), codec, hessian, &held_out, method->options, pool, bytes)
        .chosen();
  }
  std::vector<std::byte> encoded(const std::vector<float>& importance) const {
    std::vector<std::byte> result(bytes.size());
    for (std::size_t r = 0; r < kRows; ++r) {
      codec.encode(weights.row(r).data(), kSize / codec.block_size,
                   importance.empty() ? nullptr : importance.data(),
                   result.data() + r * (result.size() / kRows));
    }
    return result;
  }

  const quant::Codec& codec = *GetParam();
  testing::OwnWorkers pool{2};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  Hessian hessian = correlated_hessian(2, 1500, kSize);
  Hessian held_out = correlated_hessian(3, 700, kSize);
  std::vector<std::byte> bytes;
};
INSTANTIATE_TEST_SUITE_P(Registry, EveryCodecMethods, ::testing::ValuesIn(codecs_with_grid()),
                         quant::codec_test_name);

TEST_P(EveryCodecMethods, RtnIsTheEncoderWithoutImportance) {
  run("rtn");
  EXPECT_EQ(bytes, encoded({}));
}

TEST_P(EveryCodecMethods, ImatrixIsTheEncoderWithTheDiagonal) {
  run("imatrix");
  EXPECT_EQ(bytes, encoded(importance_of(hessian)));
}

TEST_P(EveryCodecMethods, EachLosesLessThanTheOneBeforeOnItsHessian) {
  const double rtn = run("rtn").loss;
  const double gptq = run("gptq").loss;
  const double hessian_loss = run("hessian").loss;
  EXPECT_LT(gptq, rtn);
  EXPECT_LT(hessian_loss, gptq);
}

TEST_P(EveryCodecMethods, EachThatIsNotRefusedFillsItsBytesWithFiniteWeights) {
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.refusal.empty() || method.encoders != EncoderKind::kOwn) continue;
    const double loss = run(method.name).held_out_loss;
    std::vector<float> decoded(kSize);
    codec.decode(bytes.data(), kSize / codec.block_size, decoded.data());
    for (const float w : decoded) ASSERT_TRUE(std::isfinite(w)) << method.name;
    EXPECT_GT(loss, 0) << method.name;
    EXPECT_LT(loss, 2 * run("rtn").held_out_loss) << method.name;
  }
}

// Its scales begin as those of imatrix and change only where the damped loss falls.
TEST_P(EveryCodecMethods, LlmFp4IsImatrixOrBetter) {
  const double imatrix = run("imatrix").loss;
  const std::vector<std::byte> start = bytes;
  const double searched = run("llm-fp4").loss;
  if (has_one_scale(*codec.grid)) {
    EXPECT_LT(searched, imatrix);
  } else {
    EXPECT_EQ(bytes, start);
  }
}

TEST(QuantizerMethods, OnlyStockHasOtherEncoders) {
  for (const QuantizerMethod& method : quantizer_methods()) {
    EXPECT_EQ(method.encoders == EncoderKind::kStock, method.name == "stock") << method.name;
  }
}

TEST(QuantizerMethods, HaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    EXPECT_TRUE(names.insert(method.name).second) << method.name;
    EXPECT_EQ(find_quantizer_method(method.name), &method);
  }
  EXPECT_EQ(find_quantizer_method("RTN2"), nullptr);
}

TEST(QuantizerMethods, AreUsableUnlessGgufHasNoPlaceForThem) {
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (method.refusal.empty()) {
      EXPECT_EQ(&usable_quantizer_method(method.name), &method);
      continue;
    }
    const Error error = model::testing::error_of([&] { usable_quantizer_method(method.name); });
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), ::testing::HasSubstr(std::string(method.name)));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("GGUF"));
    EXPECT_FALSE(method.source.empty());
  }
  const Error unknown = model::testing::error_of([&] { usable_quantizer_method("gtpq"); });
  EXPECT_EQ(unknown.code(), ErrorCode::kUsage);
  EXPECT_THAT(unknown.what(), ::testing::HasSubstr("gptq"));
  EXPECT_THAT(unknown.what(), ::testing::Not(::testing::HasSubstr("adadim")));
}

}  // namespace
}  // namespace winnow::compress::quantizer_methods_test
