// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What every encoder has to satisfy, over the registry: small errors, importance that matters, no
// input that breaks it, and an error no larger than that of llama.cpp's quantisers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/rng.h"
#include "quant/codec.h"
#include "quant/codec_test_support.h"

namespace winnow::quant::encode_test {

namespace {

using Weights = std::vector<float>;

constexpr std::size_t kRow = 768;  // three super-blocks

std::vector<std::byte> encode(const Codec& codec, const Weights& weights,
                              const float* importance = nullptr) {
  const std::size_t blocks = weights.size() / codec.block_size;
  std::vector<std::byte> packed(blocks * codec.block_bytes);
  codec.encode(weights.data(), blocks, importance, packed.data());
  return packed;
}

Weights round_trip(const Codec& codec, const Weights& weights, const float* importance = nullptr) {
  Weights decoded(weights.size());
  codec.decode(encode(codec, weights, importance).data(), weights.size() / codec.block_size,
               decoded.data());
  return decoded;
}

double squared_error(const Weights& a, const Weights& b, const float* importance = nullptr) {
  double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    const double difference = static_cast<double>(a[j]) - b[j];
    sum += (importance == nullptr ? 1.0 : importance[j]) * difference * difference;
  }
  return sum;
}

Weights gaussian(std::uint64_t seed, double sigma, std::size_t count = kRow) {
  Rng rng(seed);
  Weights weights(count);
  for (float& w : weights) w = static_cast<float>(sigma * rng.normal());
  return weights;
}

Weights uniform(std::uint64_t seed, std::size_t count = kRow) {
  Rng rng(seed);
  Weights weights(count);
  for (float& w : weights) w = static_cast<float>(2 * rng.uniform() - 1);
  return weights;
}

/// Log-normal: a few columns matter a hundred times as much as others.
Weights skewed_importance(std::uint64_t seed, std::size_t count = kRow) {
  Weights importance = gaussian(seed, 1.5, count);
  for (float& w : importance) w = std::exp(w);
  return importance;
}

/// Number of different integer codes.
std::size_t num_levels(const Codec& codec) { return grid_of(codec).codes.size(); }

/// Plain rounding, as a measure for encoders: one scale for all weights, which stretches the span
/// of the codes over [-largest, largest], or over [lowest, highest] where there are offsets.
struct PlainRounding {
  std::vector<int> codes;
  double scale = 0;
  double base = 0;

  PlainRounding(const Codec& codec, const Weights& weights) {
    const CodecGrid grid = grid_of(codec);
    codes = grid.codes;
    const auto [lowest, highest] = std::minmax_element(weights.begin(), weights.end());
    const double high = codec.has_offsets ? *highest : std::max(-*lowest, *highest);
    const double low = codec.has_offsets ? *lowest : -high;
    scale = (high - low) / (codes.back() - codes.front());
    if (grid.powers_of_two) scale = std::exp2(std::ceil(std::log2(scale)));
    if (codec.has_offsets) base = low - scale * codes.front();
  }
  double nearest(double weight) const {
    double best = scale * codes.front() + base;
    for (const int code : codes) {
      const double level = scale * code + base;
      if (std::fabs(level - weight) < std::fabs(best - weight)) best = level;
    }
    return best;
  }
  double rms_error(const Weights& weights) const {
    double sum = 0;
    for (const float w : weights) sum += (w - nearest(w)) * (w - nearest(w));
    return std::sqrt(sum / static_cast<double>(weights.size()));
  }
  double largest_step() const {
    int gap = 0;
    for (std::size_t i = 1; i < codes.size(); ++i) gap = std::max(gap, codes[i] - codes[i - 1]);
    return scale * gap;
  }
};

/// Largest relative error of the nearest code times scale to any number. Scales that are powers of
/// two leave gaps between the leading digits of the codes; f16 scales keep 11 bits, and products of
/// two scales about half of them.
double constant_tolerance(const Codec& codec) {
  const CodecGrid grid = grid_of(codec);
  if (!grid.powers_of_two) return 0.005;
  std::set<double> digits = {2.0};
  int exponent = 0;
  for (const int code : grid.codes) {
    if (code != 0) digits.insert(2.0 * std::frexp(std::abs(code), &exponent));
  }
  double worst = 0;
  for (auto low = digits.begin(); std::next(low) != digits.end(); ++low) {
    worst = std::max(worst, (*std::next(low) - *low) / (*std::next(low) + *low));
  }
  return worst;
}

class EveryEncoder : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryEncoder, testing::ValuesIn(all_codecs()), codec_test_name);

class EveryIntegerEncoder : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryIntegerEncoder, testing::ValuesIn(integer_codecs()),
                         codec_test_name);

class EveryScalarEncoder : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryScalarEncoder, testing::ValuesIn(codecs_of_kind(true)),
                         codec_test_name);

class EveryCodebookEncoder : public testing::TestWithParam<const Codec*> {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryCodebookEncoder, testing::ValuesIn(codecs_of_kind(false)),
                         codec_test_name);

// Plain rounding leaves errors up to half a step. Integer sub-block scales and uneven levels cost
// some of it, so the bounds are a whole step and 1.2 times its RMS error.
TEST_P(EveryScalarEncoder, StaysWithinOneStep) {
  const Codec& codec = *GetParam();
  const Weights weights = uniform(21);
  const PlainRounding plain(codec, weights);
  const Weights decoded = round_trip(codec, weights);
  for (std::size_t j = 0; j < weights.size(); ++j) {
    EXPECT_LE(std::fabs(weights[j] - decoded[j]), plain.largest_step()) << "weight " << j;
  }
  const double rms = std::sqrt(squared_error(weights, decoded) / kRow);
  EXPECT_LE(rms, 1.2 * plain.rms_error(weights));
}

// The best evenly spaced quantiser of 3 bits leaves 0.03744 = 2.396 * 4^-3 of the energy of
// Gaussian weights (Max 1960), which these types are to match bit for bit, their scales included.
TEST_P(EveryCodebookEncoder, LosesNoMoreOnGaussianWeightsThanScalarCodesOfAsManyBits) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(36, 0.02, std::size_t{64} * 256);
  const double energy = squared_error(weights, Weights(weights.size(), 0.0F));
  const double bound = 2.396 * std::pow(4.0, -codec.bits_per_weight()) * energy;
  EXPECT_LE(squared_error(weights, round_trip(codec, weights)), bound);
}

TEST(Encoders, LeaveLessErrorWithMoreBitsPerPoint) {
  const Weights weights = gaussian(22, 0.02);
  std::map<double, double> by_bits;
  for (const Codec* codec : codecs_of_kind(false)) {
    by_bits[codec->bits_per_weight()] = squared_error(weights, round_trip(*codec, weights));
  }
  ASSERT_EQ(by_bits.size(), 5U);
  for (auto it = by_bits.begin(); std::next(it) != by_bits.end(); ++it) {
    EXPECT_GT(it->second, std::next(it)->second) << it->first << " bits";
  }
}

TEST(Encoders, LeaveLessErrorWithMoreLevels) {
  const Weights weights = gaussian(22, 0.02);
  std::map<std::size_t, std::pair<double, double>> by_levels;  // smallest and largest error
  for (const Codec* codec : codecs_of_kind(true)) {
    const double error = squared_error(weights, round_trip(*codec, weights));
    auto& range = by_levels.try_emplace(num_levels(*codec), error, error).first->second;
    range = {std::min(range.first, error), std::max(range.second, error)};
  }
  ASSERT_GE(by_levels.size(), 6U);
  for (auto it = by_levels.begin(); std::next(it) != by_levels.end(); ++it) {
    EXPECT_GT(it->second.first, std::next(it)->second.second) << it->first << " levels";
  }
}

// The decoded weights lie on a grid of the type, so a second pass has a solution without error. The
// search need not find it where sub-block scales are integers, but must come close.
TEST_P(EveryIntegerEncoder, LosesAlmostNothingTheSecondTime) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(23, 0.02);
  const Weights once = round_trip(codec, weights);
  const Weights twice = round_trip(codec, once);
  EXPECT_LE(squared_error(once, twice), 0.05 * squared_error(weights, once));
  EXPECT_LE(squared_error(weights, twice), 1.05 * squared_error(weights, once));
}

// Without importance every sixteenth weight, eight times as large, decides the scale of its block.
// Measured: between 0.15 (Q2_K) and 0.73 (Q8_0) of the error is left.
TEST_P(EveryIntegerEncoder, SpendsItsPrecisionOnImportantColumns) {
  const Codec& codec = *GetParam();
  Weights weights = gaussian(24, 0.02);
  Weights importance = skewed_importance(25);
  for (std::size_t j = 0; j < kRow; j += 16) {
    weights[j] *= 8;
    importance[j] = 1e-4F;
  }
  const double without = squared_error(weights, round_trip(codec, weights), importance.data());
  const double with =
      squared_error(weights, round_trip(codec, weights, importance.data()), importance.data());
  EXPECT_LT(with, 0.8 * without);
}

TEST_P(EveryIntegerEncoder, TreatsEqualImportanceAsNone) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(26, 0.02);
  for (const float value : {1e-30F, 1.0F, 1e30F}) {
    const Weights importance(kRow, value);
    EXPECT_EQ(encode(codec, weights, importance.data()), encode(codec, weights));
  }
}

TEST_P(EveryIntegerEncoder, AcceptsColumnsOfNoImportance) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(27, 0.02);
  const Weights none(kRow, 0.0F);
  EXPECT_EQ(encode(codec, weights, none.data()), encode(codec, weights));
  // Dead inputs still get their nearest codes.
  Weights first_half(kRow, 0.0F);
  std::fill_n(first_half.begin(), kRow / 2, 1.0F);
  const Weights decoded = round_trip(codec, weights, first_half.data());
  const double energy = squared_error(weights, Weights(kRow, 0.0F));
  EXPECT_LT(squared_error(weights, decoded), 0.25 * energy);
}

TEST_P(EveryEncoder, CodesEachBlockByItself) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(28, 0.02);
  const Weights importance = skewed_importance(29);
  std::vector<std::byte> one_by_one;
  for (std::size_t j = 0; j < kRow; j += codec.block_size) {
    const Weights block(weights.begin() + static_cast<std::ptrdiff_t>(j),
                        weights.begin() + static_cast<std::ptrdiff_t>(j + codec.block_size));
    const auto packed = encode(codec, block, importance.data() + j);
    one_by_one.insert(one_by_one.end(), packed.begin(), packed.end());
  }
  EXPECT_EQ(encode(codec, weights, importance.data()), one_by_one);
}

TEST_P(EveryEncoder, KeepsZerosExactly) {
  const Weights zeros(kRow, 0.0F);
  EXPECT_THAT(round_trip(*GetParam(), zeros), testing::Each(0.0F));
}

// A constant is a level times a scale, or a base.
TEST_P(EveryEncoder, KeepsConstantsClosely) {
  const double tolerance = GetParam()->is_float() ? 0x1p-9 : constant_tolerance(*GetParam());
  for (const float value : {1.0F, -1.0F, 0.0371F, -0.0371F, 1000.0F}) {
    const Weights decoded = round_trip(*GetParam(), Weights(kRow, value));
    for (const float w : decoded) ASSERT_NEAR(w, value, tolerance * std::fabs(value));
  }
}

TEST_P(EveryEncoder, KeepsWeightsOnOneSideOfZero) {
  const Codec& codec = *GetParam();
  for (const float side : {1.0F, -1.0F}) {
    Weights weights = uniform(30);
    for (float& w : weights) w = side * (2.0F + w);
    const Weights decoded = round_trip(codec, weights);
    // BF16 is the coarsest float: half of its spacing of 2^-6 in [2, 4). Codebooks are made for
    // weights around zero, but have points whose magnitudes are all alike.
    const double spread = std::sqrt(squared_error(weights, Weights(kRow, side * 2.0F)) / kRow);
    const double bound = codec.is_float()   ? 0x1p-7
                         : is_scalar(codec) ? 1.2 * PlainRounding(codec, weights).rms_error(weights)
                                            : 1.01 * spread;
    EXPECT_LE(std::sqrt(squared_error(weights, decoded) / kRow), bound);
  }
}

TEST_P(EveryEncoder, StaysFiniteForEveryFiniteInput) {
  const Codec& codec = *GetParam();
  Rng rng(31);
  const std::vector<float> magnitudes = {1e-45F, 1e-38F,  1e-20F, 6e-8F, 3e-5F,
                                         1.0F,   65504.F, 1e6F,   1e19F, 3.4028234e38F};
  for (const float magnitude : magnitudes) {
    for (const bool outlier : {false, true}) {
      Weights weights = uniform(32);
      for (float& w : weights) w *= magnitude;
      if (outlier) weights[rng.below(kRow)] = -3.4028234e38F;
      Weights importance = skewed_importance(33);
      for (float& w : importance) w *= magnitude == 1.0F ? 1.0F : 1e-40F;
      for (const Weights* used : std::initializer_list<const Weights*>{nullptr, &importance}) {
        for (const float w : round_trip(codec, weights, used == nullptr ? nullptr : used->data())) {
          ASSERT_TRUE(std::isfinite(w)) << "magnitude " << magnitude;
        }
      }
    }
  }
}

// Where the f16 scale is in range the relative error does not depend on the magnitude.
TEST_P(EveryIntegerEncoder, IsIndifferentToTheUnitOfTheWeights) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(34, 1.0);
  const double error = squared_error(weights, round_trip(codec, weights));
  for (const float unit : {0x1p-6F, 0x1p+8F}) {
    Weights scaled = weights;
    for (float& w : scaled) w *= unit;
    const double scaled_error = squared_error(scaled, round_trip(codec, scaled)) / (unit * unit);
    // f16 keeps all its digits at both units unless the shared scale becomes subnormal.
    EXPECT_NEAR(scaled_error, error, 0.02 * error) << "unit " << unit;
  }
}

TEST_P(EveryIntegerEncoder, ClipsWeightsBeyondTheRangeOfTheScaleTowardsThem) {
  const Codec& codec = *GetParam();
  Weights weights(kRow, 0.0F);
  weights[5] = 1e30F;
  weights[300] = -1e30F;
  const Weights decoded = round_trip(codec, weights);
  EXPECT_GE(decoded[5], 65504.0F);
  EXPECT_LE(decoded[300], -65504.0F);
}

TEST_P(EveryIntegerEncoder, LosesNoMoreThanTinyWeightsThemselves) {
  const Codec& codec = *GetParam();
  const Weights weights = gaussian(35, 1e-9);  // far below the smallest f16 scale
  EXPECT_LE(squared_error(weights, round_trip(codec, weights)),
            squared_error(weights, Weights(kRow, 0.0F)));
}

// ---- against llama.cpp ----

struct StockTensor {
  std::string name;
  std::size_t columns = 0;
  Weights importance;
  std::vector<Weights> rows;
  Json errors;
};

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<StockTensor> load_stock_tensors() {
  const std::string folder = WINNOW_SOURCE_DIR "/testdata/codecs/";
  const Json report = Json::parse(read_text(folder + "stock_errors.json"));
  std::vector<StockTensor> tensors;
  for (const auto& [name, entry] : report.at("tensors").items()) {
    StockTensor tensor{.name = name,
                       .columns = entry.at("columns"),
                       .importance = {},
                       .rows = {},
                       .errors = entry};
    const std::string bytes = read_text(folder + "tensor_" + name + ".bin");
    const auto rows = entry.at("rows").get<std::size_t>();
    EXPECT_EQ(bytes.size(), (rows + 1) * tensor.columns * sizeof(float)) << name;
    Weights all(bytes.size() / sizeof(float));
    std::memcpy(all.data(), bytes.data(), bytes.size());
    for (auto at = all.begin(); at != all.end();
         at += static_cast<std::ptrdiff_t>(tensor.columns)) {
      Weights row(at, at + static_cast<std::ptrdiff_t>(tensor.columns));
      if (tensor.importance.empty()) {
        tensor.importance = row;
      } else {
        tensor.rows.push_back(row);
      }
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

double tensor_error(const Codec& codec, const StockTensor& tensor, const float* importance) {
  double error = 0;
  for (const Weights& row : tensor.rows) {
    error += squared_error(row, round_trip(codec, row, importance), importance);
  }
  return error;
}

TEST_P(EveryIntegerEncoder, LeavesNoMoreErrorThanLlamaCpp) {
  const Codec& codec = *GetParam();
  const std::vector<StockTensor> tensors = load_stock_tensors();
  ASSERT_EQ(tensors.size(), 3U);
  for (const StockTensor& tensor : tensors) {
    for (const std::string kind : {"plain", "weighted"}) {
      const float* importance = kind == "plain" ? nullptr : tensor.importance.data();
      const double stock = tensor.errors.at(kind).at(std::string(codec.name));
      const double ratio = tensor_error(codec, tensor, importance) / stock;
      EXPECT_LE(ratio, 1.001) << tensor.name << ", " << kind;
      RecordProperty(tensor.name + "_" + kind, std::to_string(ratio));
    }
  }
}

}  // namespace
}  // namespace winnow::quant::encode_test
