// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products with every codec on every ISA: exact where all values are small integers, bounded
// against f64 on random data, and independent of how tokens and rows are divided among calls.
#include <cmath>
#include <limits>
#include <tuple>

#include "base/rng.h"
#include "kernels/testing.h"
#include "os/thread_pool.h"

namespace winnow::kernels::matmul_test {
namespace {

using testing::Guarded;
using testing::kUnit;

// On both sides of the number from which kernels unpack into panels, and of its tiles.
constexpr std::size_t kTokenCounts[] = {1, 2, 3, 4, 5, 8, 12, 17, 31};
// Less and more than the four rows of a direct tile, a vector of rows, a panel.
constexpr std::size_t kRowCounts[] = {1, 3, 4, 9, 16, 37};

/// [rows, cols] weights packed by `codec` from normal random numbers, or from integers in [-3, 3].
struct Weights {
  Weights(const quant::Codec& codec, std::size_t rows, std::size_t cols, bool integers)
      : packed(rows * (cols / codec.block_size) * codec.block_bytes),
        matrix{&codec, packed.data(), rows, cols} {
    Rng rng(rows * 1000 + cols);
    std::vector<float> values(rows * cols);
    for (float& v : values) {
      v = integers ? static_cast<float>(rng.below(7)) - 3.0F : static_cast<float>(rng.normal());
    }
    codec.encode(values.data(), values.size() / codec.block_size, nullptr, packed.data());
  }
  Guarded<std::byte> packed;
  quant::PackedMatrix matrix;
};

/// int8 activations of [tokens, cols] in guarded, unaligned memory. Scales are random, or powers of
/// two with codes in [-4, 4].
struct Codes {
  Codes(std::size_t tokens, std::size_t cols, bool integers)
      : codes(tokens * cols),
        scales(tokens * cols / kActivationBlock),
        sums(tokens * cols / kActivationSumGroup),
        view{tokens, cols, codes.data(), scales.data(), sums.data(), nullptr} {
    Rng rng(tokens * 1000 + cols);
    const std::uint64_t bound = integers ? 4 : 127;
    std::fill(sums.data(), sums.data() + sums.size(), 0);
    for (std::size_t j = 0; j < codes.size(); ++j) {
      const auto code = static_cast<int>(rng.below(2 * bound + 1)) - static_cast<int>(bound);
      codes[j] = static_cast<std::int8_t>(code);
      sums[j / kActivationSumGroup] += code;
    }
    for (std::size_t b = 0; b < scales.size(); ++b) {
      scales[b] = integers ? std::ldexp(1.0F, static_cast<int>(rng.below(3)) - 1)
                           : static_cast<float>(rng.uniform() + 0.01);
    }
  }
  Guarded<std::int8_t> codes;
  Guarded<float> scales;
  Guarded<std::int32_t> sums;
  QuantizedActivations view;
};

Guarded<testing::ScratchLine> scratch_for(const quant::PackedMatrix& w) {
  return Guarded<testing::ScratchLine>(matmul_scratch_bytes(w) / sizeof(testing::ScratchLine));
}

/// Columns of y [tokens, rows] lie between columns that nobody may touch.
class Output {
 public:
  Output(std::size_t tokens, std::size_t rows)
      : memory_(tokens * (rows + 2)), tokens_(tokens), rows_(rows) {
    std::fill(memory_.data(), memory_.data() + memory_.size(), kUntouched);
  }
  ~Output() {
    for (std::size_t t = 0; t < tokens_; ++t) {
      EXPECT_EQ(memory_[t * (rows_ + 2)], kUntouched);
      EXPECT_EQ(memory_[t * (rows_ + 2) + rows_ + 1], kUntouched);
    }
  }
  tensor::MatrixView<float> view() { return {memory_.data() + 1, tokens_, rows_, rows_ + 2}; }
  std::vector<float> values() {
    std::vector<float> all;
    for (std::size_t t = 0; t < tokens_; ++t) {
      const auto row = view().row(t);
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }

 private:
  static constexpr float kUntouched = -12345.0F;
  Guarded<float> memory_;
  std::size_t tokens_;
  std::size_t rows_;
};

std::vector<float> multiply(const Kernels& kernels, const quant::PackedMatrix& w,
                            const QuantizedActivations& x) {
  Output y(x.tokens, w.rows);
  auto scratch = scratch_for(w);
  kernels.matmul_for (*w.codec)(w, 0, w.rows, x, y.view(), scratch.data()->bytes);
  return y.values();
}

std::vector<float> multiply(const Kernels& kernels, const quant::PackedMatrix& w,
                            tensor::MatrixView<const float> x) {
  Output y(x.rows, w.rows);
  auto scratch = scratch_for(w);
  kernels.matmul_floats(w, 0, w.rows, x, y.view(), scratch.data()->bytes);
  return y.values();
}

const Kernels& reference() { return select_kernels("scalar", os::CpuFeatures(0)); }

/// A product in f64 and the sum of the magnitudes of its terms.
struct Bounded {
  double sum = 0;
  double magnitude = 0;
  void add(double term) {
    sum += term;
    magnitude += std::fabs(term);
  }
};

// --- a codec made for the exact comparison ------------------------------------------------------

// Its packed bytes are small codes themselves; scales and offsets are powers of two that depend on
// the place, so that a kernel that takes the wrong group is found out.
void unpack_exact(const std::byte* blocks, std::size_t num_blocks,
                  quant::IntegerForm out) noexcept {
  for (std::size_t j = 0; j < num_blocks * 32; ++j)
    out.codes[j] = static_cast<std::int8_t>(blocks[j]);
  for (std::size_t g = 0; g < num_blocks * 2; ++g) {
    out.scales[g] = std::ldexp(1.0F, static_cast<int>(g % 3) - 1);
    out.offsets[g] = std::ldexp(1.0F, static_cast<int>(g % 4) - 2);
  }
}
void unpack_exact_without_offsets(const std::byte* blocks, std::size_t num_blocks,
                                  quant::IntegerForm out) noexcept {
  std::vector<float> ignored(num_blocks * 2);
  out.offsets = ignored.data();
  unpack_exact(blocks, num_blocks, out);
}

quant::Codec exact_codec(bool has_offsets) {
  quant::Codec codec{};
  codec.name = has_offsets ? "exact with offsets" : "exact";
  codec.block_size = 32;
  codec.block_bytes = 32;
  codec.unpack = has_offsets ? unpack_exact : unpack_exact_without_offsets;
  codec.has_offsets = has_offsets;
  return codec;
}

/// sum_j x_j w_j in integers times 2^-4: exact.
double exact_product(const quant::PackedMatrix& w, std::size_t row, const Codes& codes,
                     std::size_t token) {
  double y = 0;
  for (std::size_t j = 0; j < w.cols; ++j) {
    const std::size_t g = j / 16;
    const double scale = std::ldexp(1.0, static_cast<int>(g % 3) - 1);
    const double offset = w.codec->has_offsets ? std::ldexp(1.0, static_cast<int>(g % 4) - 2) : 0;
    const double weight = scale * static_cast<std::int8_t>(w.row(row)[j]) - offset;
    const QuantizedActivations& x = codes.view;
    y += weight * x.scales[(token * w.cols + j) / kActivationBlock] * x.codes[token * w.cols + j];
  }
  return y;
}

class MatMul : public ::testing::TestWithParam<const Kernels*> {};

TEST_P(MatMul, OfSmallIntegerCodesIsExact) {
  for (const bool has_offsets : {false, true}) {
    const quant::Codec codec = exact_codec(has_offsets);
    for (const std::size_t cols : {32, 64, 96, 128, 224, 256, 288, 544}) {
      for (const std::size_t tokens : kTokenCounts) {
        constexpr std::size_t kRows = 9;
        Guarded<std::byte> packed(kRows * cols);
        Rng rng(cols);
        for (std::size_t j = 0; j < packed.size(); ++j) {
          packed[j] = static_cast<std::byte>(static_cast<int>(rng.below(9)) - 4);
        }
        const quant::PackedMatrix w{&codec, packed.data(), kRows, cols};
        const Codes x(tokens, cols, /*integers=*/true);
        const auto y = multiply(*GetParam(), w, x.view);
        for (std::size_t i = 0; i < y.size(); ++i) {
          ASSERT_EQ(y[i], exact_product(w, i % kRows, x, i / kRows))
              << codec.name << " cols " << cols << " tokens " << tokens << " element " << i;
        }
      }
    }
  }
}

TEST_P(MatMul, OfTheLargestCodesDoesNotOverflow) {
  const quant::Codec codec = exact_codec(/*has_offsets=*/false);
  for (const int weight : {-128, 127}) {
    for (const int activation : {-127, 127}) {
      Guarded<std::byte> packed(64);
      std::fill(packed.data(), packed.data() + 64, static_cast<std::byte>(weight));
      Codes x(1, 64, /*integers=*/true);
      std::fill(x.codes.data(), x.codes.data() + 64, static_cast<std::int8_t>(activation));
      std::fill(x.sums.data(), x.sums.data() + 4, 16 * activation);
      const quant::PackedMatrix w{&codec, packed.data(), 1, 64};
      EXPECT_EQ(multiply(*GetParam(), w, x.view)[0], exact_product(w, 0, x, 0));
    }
  }
}

TEST_P(MatMul, ShowsAnActivationThatWasNotFinite) {
  const quant::Codec codec = exact_codec(/*has_offsets=*/false);
  Guarded<std::byte> packed(96);
  std::fill(packed.data(), packed.data() + 96, std::byte{1});
  for (std::size_t block = 0; block < 3; ++block) {
    Codes x(1, 96, /*integers=*/true);
    x.scales[block] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(multiply(*GetParam(), {&codec, packed.data(), 1, 96}, x.view)[0]));
  }
}

TEST_P(MatMul, WithoutTokensOrRowsTouchesNothing) {
  const quant::Codec codec = exact_codec(/*has_offsets=*/true);
  Guarded<std::byte> packed(32);
  const Codes none(0, 32, /*integers=*/true);
  EXPECT_TRUE(multiply(*GetParam(), {&codec, packed.data(), 1, 32}, none.view).empty());
  const Codes one(1, 32, /*integers=*/true);
  EXPECT_TRUE(multiply(*GetParam(), {&codec, packed.data(), 0, 32}, one.view).empty());
}

INSTANTIATE_TEST_SUITE_P(Isas, MatMul, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

// --- every codec --------------------------------------------------------------------------------

class MatMulOfCodec
    : public ::testing::TestWithParam<std::tuple<const Kernels*, const quant::Codec*>> {
 protected:
  const Kernels& kernels() const { return *std::get<0>(GetParam()); }
  const quant::Codec& codec() const { return *std::get<1>(GetParam()); }

  std::vector<std::size_t> column_counts() const {
    if (codec().is_float() && codec().block_size == 1) {
      return {1, 7, 8, 9, 15, 16, 17, 31, 33, 100};
    }
    const std::size_t block = codec().block_size;
    return {block, 2 * block, 3 * block};
  }

  /// Calls check(weights, activations) with activations of the kind that the codec takes.
  template <typename Check>
  void with_activations(const quant::PackedMatrix& w, std::size_t tokens, bool integers,
                        const Check& check) const {
    if (!codec().is_float()) {
      const Codes x(tokens, w.cols, integers);
      return check(x.view);
    }
    Guarded<float> memory(tokens * (w.cols + 3));
    Rng rng(tokens + w.cols);
    for (std::size_t i = 0; i < memory.size(); ++i) {
      memory[i] =
          integers ? static_cast<float>(rng.below(9)) - 4.0F : static_cast<float>(rng.normal());
    }
    check(tensor::MatrixView<const float>{memory.data(), tokens, w.cols, w.cols + 3});
  }
};

Bounded product(const quant::PackedMatrix& w, std::size_t row, tensor::MatrixView<const float> x,
                std::size_t token) {
  std::vector<float> weights(w.cols);
  w.codec->decode(w.row(row), w.cols / w.codec->block_size, weights.data());
  Bounded result;
  for (std::size_t j = 0; j < w.cols; ++j) result.add(double{weights[j]} * x.row(token)[j]);
  return result;
}

Bounded product(const quant::PackedMatrix& w, std::size_t row, const QuantizedActivations& x,
                std::size_t token) {
  std::vector<std::int8_t> codes(w.cols);
  std::vector<float> scales(w.cols / 16);
  std::vector<float> offsets(w.cols / 16);
  w.codec->unpack(w.row(row), w.cols / w.codec->block_size,
                  {codes.data(), scales.data(), offsets.data()});
  const QuantizedActivations own = x.slice(token, 1);
  Bounded result;
  for (std::size_t j = 0; j < w.cols; ++j) {
    const double x_scale = own.scales[j / kActivationBlock];
    result.add(x_scale * scales[j / 16] * codes[j] * own.codes[j]);
  }
  for (std::size_t g = 0; w.codec->has_offsets && g < w.cols / 16; ++g) {
    result.add(-double{own.scales[g / 2]} * offsets[g] * own.sums[g]);
  }
  return result;
}

// Chain of roundings: f32 weights meet at most one addition per column; codes at most one addition
// per group of 16 for products and one for offsets, and six more for scales and the lanes' sum.
double chain_length(const quant::PackedMatrix& w) {
  const auto cols = static_cast<double>(w.cols);
  return w.codec->is_float() ? cols + 2 : cols / 8 + 8;
}

TEST_P(MatMulOfCodec, StaysWithinTheBoundOfF32Sums) {
  for (const std::size_t cols : column_counts()) {
    for (const std::size_t rows : kRowCounts) {
      const Weights w(codec(), rows, cols, /*integers=*/false);
      for (const std::size_t tokens : kTokenCounts) {
        with_activations(w.matrix, tokens, /*integers=*/false, [&](const auto& x) {
          const auto y = multiply(kernels(), w.matrix, x);
          for (std::size_t i = 0; i < y.size(); ++i) {
            const Bounded wanted = product(w.matrix, i % rows, x, i / rows);
            ASSERT_LE(std::fabs(y[i] - wanted.sum),
                      chain_length(w.matrix) * kUnit * wanted.magnitude)
                << "cols " << cols << " rows " << rows << " tokens " << tokens;
          }
        });
      }
    }
  }
}

// Integer codecs have their exact comparison in MatMul.OfSmallIntegerCodesIsExact.
class MatMulOfFloatCodec : public MatMulOfCodec {};

TEST_P(MatMulOfFloatCodec, OfSmallIntegersIsEqualOnAllIsas) {
  for (const std::size_t cols : column_counts()) {
    const Weights w(codec(), 9, cols, /*integers=*/true);
    for (const std::size_t tokens : kTokenCounts) {
      with_activations(w.matrix, tokens, /*integers=*/true, [&](const auto& x) {
        EXPECT_EQ(multiply(kernels(), w.matrix, x), multiply(reference(), w.matrix, x));
      });
    }
  }
}

QuantizedActivations one_token(const QuantizedActivations& x, std::size_t t) {
  return x.slice(t, 1);
}
tensor::MatrixView<const float> one_token(tensor::MatrixView<const float> x, std::size_t t) {
  return x.rows_from(t, 1);
}

TEST_P(MatMulOfCodec, OfManyTokensEqualsAsManyProductsOfOne) {
  for (const std::size_t cols : column_counts()) {
    const Weights w(codec(), 37, cols, /*integers=*/false);
    for (const std::size_t tokens : {2, 3, 7, 13, 29}) {
      with_activations(w.matrix, tokens, /*integers=*/false, [&](const auto& x) {
        const auto together = multiply(kernels(), w.matrix, x);
        std::vector<float> alone;
        for (std::size_t t = 0; t < tokens; ++t) {
          const auto y = multiply(kernels(), w.matrix, one_token(x, t));
          alone.insert(alone.end(), y.begin(), y.end());
        }
        EXPECT_EQ(together, alone) << "cols " << cols << " tokens " << tokens;
      });
    }
  }
}

TEST_P(MatMulOfCodec, OfChosenRowsEqualsTheirOwnProducts) {
  if (codec().is_float()) return;
  const std::size_t cols = column_counts().back();
  const Weights w(codec(), 5, cols, /*integers=*/false);
  const Codes x(9, cols, /*integers=*/false);
  const auto all = multiply(kernels(), w.matrix, x.view);
  for (const std::size_t count : {std::size_t{3}, std::size_t{14}}) {
    std::vector<std::uint32_t> rows;
    std::vector<float> wanted;
    for (std::size_t t = 0; t < count; ++t) {
      rows.push_back(static_cast<std::uint32_t>((5 * t + 2) % 9));
      wanted.insert(wanted.end(), all.begin() + rows.back() * 5, all.begin() + rows.back() * 5 + 5);
    }
    EXPECT_EQ(multiply(kernels(), w.matrix, x.view.choose(rows)), wanted);
    const auto later = multiply(kernels(), w.matrix, x.view.choose(rows).slice(1, count - 1));
    EXPECT_EQ(later, std::vector<float>(wanted.begin() + 5, wanted.end()));
  }
}

// One activation of 1 at a time: y is one weight, and nothing is rounded that the codec's own
// definition does not round, but for an offset, which a fused operation may round less often.
TEST_P(MatMulOfCodec, OfASingleActivationIsTheWeight) {
  if (codec().is_float()) return;  // MatMulOfFloatCodec.OfSmallIntegersIsEqualOnAllIsas
  constexpr std::size_t kRows = 6;
  const std::size_t cols = column_counts().back();
  const Weights w(codec(), kRows, cols, /*integers=*/false);
  std::vector<std::int8_t> codes(cols);
  std::vector<float> scales(cols / 16);
  std::vector<float> offsets(cols / 16);
  for (const std::size_t tokens : {std::size_t{1}, std::size_t{13}}) {
    for (std::size_t j = 0; j < cols; ++j) {
      Codes x(tokens, cols, /*integers=*/true);
      std::fill(x.codes.data(), x.codes.data() + x.codes.size(), std::int8_t{0});
      std::fill(x.sums.data(), x.sums.data() + x.sums.size(), 0);
      std::fill(x.scales.data(), x.scales.data() + x.scales.size(), 1.0F);
      x.codes[(tokens - 1) * cols + j] = 1;
      x.sums[((tokens - 1) * cols + j) / 16] = 1;
      const auto y = multiply(kernels(), w.matrix, x.view);
      for (std::size_t r = 0; r < kRows; ++r) {
        codec().unpack(w.matrix.row(r), cols / codec().block_size,
                       {codes.data(), scales.data(), offsets.data()});
        const float product = scales[j / 16] * static_cast<float>(codes[j]);
        const float wanted = codec().has_offsets ? product - offsets[j / 16] : product;
        ASSERT_EQ(y[(tokens - 1) * kRows + r], wanted) << "column " << j << " row " << r;
      }
    }
  }
}

void multiply_range(const Kernels& kernels, const quant::PackedMatrix& w, os::Range rows,
                    const QuantizedActivations& x, tensor::MatrixView<float> y,
                    std::byte* scratch) {
  kernels.matmul_for (*w.codec)(w, rows.begin, rows.end, x, y, scratch);
}
void multiply_range(const Kernels& kernels, const quant::PackedMatrix& w, os::Range rows,
                    tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                    std::byte* scratch) {
  kernels.matmul_floats(w, rows.begin, rows.end, x, y, scratch);
}

TEST_P(MatMulOfCodec, DoesNotDependOnHowRowsAreDivided) {
  constexpr std::size_t kRows = 11;
  const Weights w(codec(), kRows, column_counts().back(), /*integers=*/false);
  with_activations(w.matrix, 5, /*integers=*/false, [&](const auto& x) {
    const auto whole = multiply(kernels(), w.matrix, x);
    for (const std::size_t parts : {2, 3, 5, 11}) {
      Output y(5, kRows);
      auto scratch = scratch_for(w.matrix);
      for (std::size_t part = 0; part < parts; ++part) {
        multiply_range(kernels(), w.matrix, os::split(kRows, parts, part), x, y.view(),
                       scratch.data()->bytes);
      }
      EXPECT_EQ(whole, y.values()) << parts << " parts";
    }
  });
}

std::string isa_and_codec(
    const ::testing::TestParamInfo<std::tuple<const Kernels*, const quant::Codec*>>& info) {
  return std::string(std::get<0>(info.param)->isa) + "_" +
         std::string(std::get<1>(info.param)->name);
}

INSTANTIATE_TEST_SUITE_P(Isas, MatMulOfCodec,
                         ::testing::Combine(::testing::ValuesIn(testing::isas_here()),
                                            ::testing::ValuesIn(quant::all_codecs().begin(),
                                                                quant::all_codecs().end())),
                         isa_and_codec);

std::vector<const quant::Codec*> float_codecs() {
  std::vector<const quant::Codec*> codecs;
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (codec->is_float()) codecs.push_back(codec);
  }
  return codecs;
}

INSTANTIATE_TEST_SUITE_P(Isas, MatMulOfFloatCodec,
                         ::testing::Combine(::testing::ValuesIn(testing::isas_here()),
                                            ::testing::ValuesIn(float_codecs())),
                         isa_and_codec);

}  // namespace
}  // namespace winnow::kernels::matmul_test
