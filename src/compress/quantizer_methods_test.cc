// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/quantizer_methods.h"

#include <gtest/gtest.h>

#include <set>

#include "compress/quantizer_test_support.h"
#include "quant/codec_test_support.h"

namespace winnow::compress {
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
  os::ThreadPool pool{2};
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

TEST(QuantizerMethods, HaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    EXPECT_TRUE(names.insert(method.name).second) << method.name;
    EXPECT_EQ(find_quantizer_method(method.name), &method);
  }
  EXPECT_EQ(find_quantizer_method("RTN2"), nullptr);
}

}  // namespace
}  // namespace winnow::compress
