// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The search for points of a codebook on every ISA gives the codes of the codecs' own search.
#include <array>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "kernels/testing.h"
#include "quant/block_grid.h"

namespace winnow::kernels::points_test {
namespace {

using quant::Codebook;
using quant::SignParity;

class Points : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

/// Every codec with a codebook.
std::vector<const quant::Codec*> codecs_with_points() {
  std::vector<const quant::Codec*> codecs;
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (codec->grid != nullptr && codec->grid->codebook != nullptr) codecs.push_back(codec);
  }
  return codecs;
}

/// A sign field: weights near the levels or far outside, some zero, some equal, and a step of
/// either sign, which now and then is zero or too small for an inverse.
struct Field {
  Field(const Codebook& book, Rng& rng) {
    const float spread = rng.below(4) == 0 ? 3.0F : 0.5F;
    for (std::size_t i = 0; i < quant::kSignGroup; ++i) {
      target[i] = spread * static_cast<float>(book.magnitudes.back() * rng.normal());
      if (rng.below(8) == 0) target[i] = 0;
      if (rng.below(8) == 0 && i > 0) target[i] = target[i - 1];
      weights[i] = static_cast<float>(std::exp(2 * rng.normal()));
      if (rng.below(4) == 0 && i > 0) weights[i] = weights[i - 1];
    }
    const float steps[] = {1.0F, -1.0F, 0.37F, -1.9F, 0.0F, 0x1p-130F};
    step = steps[rng.below(rng.below(8) == 0 ? 6 : 4)];
  }
  std::array<float, quant::kSignGroup> target{};
  std::array<float, quant::kSignGroup> weights{};
  float step = 0;
};

TEST_P(Points, NearestOnesAreThoseOfTheCodecs) {
  Rng rng(1);
  for (const quant::Codec* codec : codecs_with_points()) {
    const Codebook& book = *codec->grid->codebook;
    for (int i = 0; i < 2000; ++i) {
      const Field field(book, rng);
      for (const SignParity parity : {SignParity::kAny, SignParity::kEven, SignParity::kOdd}) {
        const std::size_t count = 1 + rng.below(Codebook::kMostChoices);
        std::vector<std::uint8_t> wanted(count * book.group);
        std::vector<std::uint8_t> got(count * book.group);
        book.nearest(field.target.data(), field.weights.data(), field.step, parity, count,
                     wanted.data());
        kernels().nearest_points(book, field.target.data(), field.weights.data(), field.step,
                                 parity, count, got.data());
        ASSERT_EQ(got, wanted) << codec->name << " field " << i << " of " << count;
      }
    }
  }
}

TEST_P(Points, ChosenForASignFieldAreThoseOfTheCodecs) {
  Rng rng(2);
  for (const quant::Codec* codec : codecs_with_points()) {
    const Codebook& book = *codec->grid->codebook;
    for (int i = 0; i < 5000; ++i) {
      const Field field(book, rng);
      std::array<std::uint8_t, quant::kSignGroup> wanted{};
      std::array<std::uint8_t, quant::kSignGroup> got{};
      book.choose(field.target.data(), field.weights.data(), field.step, wanted.data());
      kernels().choose_points(book, field.target.data(), field.weights.data(), field.step,
                              got.data());
      ASSERT_EQ(got, wanted) << codec->name << " field " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Points, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

}  // namespace
}  // namespace winnow::kernels::points_test
