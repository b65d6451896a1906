// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/correction.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "compress/descent.h"
#include "compress/low_rank.h"
#include "formats/gguf.h"

namespace winnow::compress {
namespace {

using model::LowRankSide;

constexpr std::uint64_t kMostWeights = std::uint64_t{1} << 26;
// Ridge relative to the mean of the Hessian's diagonal, as the quantiser's first.
constexpr double kDamping = 0.01;
constexpr std::uint64_t kHalf = 2;  // bytes of an F16
// Of each weight while factors are fitted: itself and its error in f32, the error in f64 before and
// behind the whitening, and what the product of factors is judged in.
constexpr std::uint64_t kBytesPerWeight = 28;

const quant::Codec& half_codec() {
  const quant::Codec* codec = quant::find_codec("F16");
  WINNOW_CHECK(codec != nullptr);
  return *codec;
}

tensor::Matrix<float> error_of(ConstMatrix weights, const quant::PackedMatrix& packed,
                               const Workers& workers) {
  tensor::Matrix<float> error(weights.rows, weights.cols);
  workers.run(weights.rows, [&](std::size_t r, unsigned) {
    const auto row = error.row(r);
    packed.codec->decode(packed.row(r), packed.cols / packed.codec->block_size, row.data());
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = weights.row(r)[j] - row[j];
  });
  return error;
}

/// Appends the factor as F16 and gives it the values that a reader will see.
void store(tensor::Matrix<float>& factor, std::vector<std::byte>& out) {
  const quant::Codec& codec = half_codec();
  const std::size_t begin = out.size();
  const std::size_t count = factor.rows() * factor.cols();
  out.resize(begin + count * kHalf);
  codec.encode(factor.flat().data(), count, nullptr, out.data() + begin);
  codec.decode(out.data() + begin, count, factor.flat().data());
}

}  // namespace

std::size_t correction_rank(const CorrectionOptions& options, const model::Checkpoint& source,
                            const TensorGroup& group, const quant::Codec& codec) {
  if (options.rank == 0 || !model::may_be_corrected(group.role) || codec.is_float()) return 0;
  if (std::uint64_t{group.rows} * group.cols > kMostWeights) return 0;
  if (is_stored_as(source, group, codec)) return 0;
  return std::min({options.rank, group.rows, group.cols});
}

void require_plain_source(const model::Checkpoint& source) {
  if (source.spec().has_varied_experts()) {
    fail_data("{}: its experts vary: it is the result of compressing; take the original",
              source.file().name());
  }
  if (source.correction_bytes().value == 0) return;
  fail_data(
      "{}: has low-rank corrections, which compressing would take for weights; compress the "
      "original, or what `winnow convert --type BF16` makes of this file",
      source.file().name());
}

void count_bytes(const TensorGroup& group, GroupOption& option) {
  option.payload = packed_bytes(group, *option.codec);
  option.bytes = {checked_align_up(option.payload.value, formats::kGgufDefaultAlignment).value()};
  if (option.rank == 0) return;
  for (const LowRankSide side : {LowRankSide::kLeft, LowRankSide::kRight}) {
    const std::uint64_t payload = group.parts * factor_bytes(group, side, option.rank).value;
    option.payload += {payload};
    option.bytes += {checked_align_up(payload, formats::kGgufDefaultAlignment).value()};
  }
}

Bytes factor_bytes(const TensorGroup& group, LowRankSide side, std::size_t rank) {
  return {kHalf * rank * (side == LowRankSide::kLeft ? group.rows : group.cols)};
}

Bytes factors_bytes(const TensorGroup& group, std::size_t rank) {
  return factor_bytes(group, LowRankSide::kLeft, rank) +
         factor_bytes(group, LowRankSide::kRight, rank);
}

Bytes fitting_bytes(const TensorGroup& group) {
  return {kBytesPerWeight * group.rows * group.cols};
}

Correction fit_correction(ConstMatrix weights, const quant::PackedMatrix& packed,
                          PreparedHessian& hessian, std::size_t rank, bool weighted,
                          const Workers& workers) {
  WINNOW_CHECK(weights.rows == packed.rows && weights.cols == packed.cols);
  const tensor::Matrix<float> error = error_of(weights, packed, workers);
  LowRank parts = low_rank_correction(error.view(), weighted ? &hessian.calibration() : nullptr,
                                      kDamping, rank);
  Correction result;
  store(parts.left, result.factors);
  store(parts.right, result.factors);
  // The error stands for the weights, its correction for what they were packed as.
  const RowDecoder nothing = [](std::size_t, std::span<float> values) {
    std::fill(values.begin(), values.end(), 0.0F);
  };
  const RowDecoder corrected = [&](std::size_t r, std::span<float> values) {
    std::fill(values.begin(), values.end(), 0.0F);
    for (std::size_t k = 0; k < rank; ++k) {
      const float factor = parts.left.row(r)[k];
      const auto row = parts.right.row(k);
      for (std::size_t j = 0; j < values.size(); ++j) values[j] += factor * row[j];
    }
  };
  const double before = quadratic_loss(error.view(), hessian.dense_judge(), nothing, workers);
  const double after = quadratic_loss(error.view(), hessian.dense_judge(), corrected, workers);
  if (after < before) {
    result.share = std::min((before - after) / before, 1.0);
  } else {
    std::fill(result.factors.begin(), result.factors.end(), std::byte{0});
  }
  return result;
}

std::vector<double> correction_shares(const TensorGroup& group, ConstMatrix weights,
                                      PreparedHessian& hessian,
                                      const HessianQuantizerOptions& quantizer, bool weighted,
                                      const Workers& workers, Log& log) {
  std::vector<double> shares;
  std::vector<std::byte> bytes;
  for (const GroupOption& option : group.options) {
    log.check_interrupt();
    shares.push_back(0);
    if (option.rank == 0) continue;
    bytes.resize(packed_bytes(group, *option.codec).value / group.parts);
    quantize_matrix(weights, *option.codec, hessian, quantizer, workers, bytes);
    const quant::PackedMatrix packed{option.codec, bytes.data(), group.rows, group.cols};
    shares.back() = fit_correction(weights, packed, hessian, option.rank, weighted, workers).share;
  }
  return shares;
}

}  // namespace winnow::compress
