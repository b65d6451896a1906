// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian_quantizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "compress/coded_matrix.h"
#include "compress/error_feedback.h"

namespace winnow::compress {
namespace {

class MatrixQuantizer {
 public:
  MatrixQuantizer(ConstMatrix weights, const quant::Codec& codec, PreparedHessian& hessian,
                  const HessianQuantizerOptions& options, const Workers& workers,
                  std::span<std::byte> out)
      : weights_(weights),
        codec_(codec),
        hessian_(hessian),
        options_(options),
        workers_(workers),
        out_(out),
        row_bytes_(weights.cols / codec.block_size * codec.block_bytes) {}

  QuantizerReport run() {
    if (codec_.grid == nullptr || options_.guard) encode();
    if (codec_.grid == nullptr) return report_;
    for (const double damping : options_.dampings) quantize(damping);
    return report_;
  }

 private:
  /// The codec's own encoder.
  void encode() {
    const std::vector<float> importance = importance_of(hessian_.calibration());
    workers_.run(weights_.rows, [&](std::size_t row, unsigned) {
      codec_.encode(weights_.row(row).data(), blocks(), importance.data(), bytes_of(row));
    });
    QuantizerCandidate candidate;
    const RowDecoder decode_row = [this](std::size_t row, std::span<float> values) {
      codec_.decode(bytes_of(row), blocks(), values.data());
    };
    measure(decode_row, candidate);
    candidate.rounded_loss = candidate.loss;
    report_.candidates.push_back(candidate);
  }

  void quantize(double damping) {
    const DampedHessian& damped = hessian_.damped(damping, codec_.block_size, options_.column_order,
                                                  columns_coded_together(*codec_.grid));
    const std::vector<float> importance = scale_weights(damped);
    CodedMatrix coded(codec_, weights_.rows, weights_.cols);
    if (options_.feedback) {
      const auto scales =
          options_.neighbour_scales ? BlockScales::kSearchAround : BlockScales::kSearch;
      round_with_feedback(weights_, damped, importance, scales, coded, workers_);
    } else {
      round_without_feedback(weights_, importance, damped.h.view(), options_.scale_search, coded,
                             workers_);
    }
    const RowDecoder decode_row = [&](std::size_t row, std::span<float> values) {
      coded.decode_row(row, values);
    };
    QuantizerCandidate candidate;
    candidate.damping = damping;
    candidate.rounded_loss = loss(decode_row);
    if (options_.descent) descend(weights_, damped.h.view(), *options_.descent, coded, workers_);
    measure(decode_row, candidate);
    report_.candidates.push_back(candidate);
    const std::size_t last = report_.candidates.size() - 1;
    if (last > 0 && !(candidate.held_out_loss < report_.chosen().held_out_loss)) return;
    report_.winner = last;
    workers_.run(weights_.rows,
                 [&](std::size_t row, unsigned) { coded.pack_row(row, bytes_of(row)); });
  }

  std::vector<float> scale_weights(const DampedHessian& damped) const {
    switch (options_.scale_weights) {
      case ScaleWeights::kEqual:
        return std::vector<float>(weights_.cols, 1.0F);
      case ScaleWeights::kDiagonal:
        return importance_of(hessian_.calibration());
      case ScaleWeights::kConditional:
        break;
    }
    return damped.conditional;
  }

  void measure(const RowDecoder& decode_row, QuantizerCandidate& candidate) const {
    candidate.loss = loss(decode_row);
    candidate.held_out_loss =
        hessian_.has_held_out()
            ? loss_under(hessian_.dense_judge(), hessian_.judge().tokens(), decode_row)
            : candidate.loss;
  }

  double loss(const RowDecoder& decode_row) const {
    return loss_under(hessian_.dense_calibration(), hessian_.calibration().tokens(), decode_row);
  }
  /// Per token.
  double loss_under(ConstMatrix h, double tokens, const RowDecoder& decode_row) const {
    return quadratic_loss(weights_, h, decode_row, workers_) / (tokens > 0 ? tokens : 1.0);
  }

  std::size_t blocks() const { return weights_.cols / codec_.block_size; }
  std::byte* bytes_of(std::size_t row) const { return out_.data() + row * row_bytes_; }

  ConstMatrix weights_;
  const quant::Codec& codec_;
  PreparedHessian& hessian_;
  const HessianQuantizerOptions& options_;
  Workers workers_;
  std::span<std::byte> out_;
  std::size_t row_bytes_;
  QuantizerReport report_;
};

void require_finite(ConstMatrix weights) {
  for (std::size_t r = 0; r < weights.rows; ++r) {
    const auto row = weights.row(r);
    const auto bad =
        std::find_if(row.begin(), row.end(), [](float w) { return !std::isfinite(w); });
    if (bad == row.end()) continue;
    fail_data("weight {} of row {} is {}; only finite weights can be quantised", bad - row.begin(),
              r, *bad);
  }
}

}  // namespace

QuantizerReport quantize_matrix(ConstMatrix weights, const quant::Codec& codec,
                                PreparedHessian& hessian, const HessianQuantizerOptions& options,
                                const Workers& workers, std::span<std::byte> out) {
  WINNOW_CHECK(weights.rows > 0 && weights.cols % codec.block_size == 0);
  WINNOW_CHECK(hessian.size() == weights.cols && hessian.judge().size() == weights.cols);
  WINNOW_CHECK(out.size() == weights.rows * (weights.cols / codec.block_size) * codec.block_bytes);
  WINNOW_CHECK(options.guard || !options.dampings.empty());
  require_finite(weights);
  return MatrixQuantizer(weights, codec, hessian, options, workers, out).run();
}

QuantizerReport quantize_matrix(ConstMatrix weights, const quant::Codec& codec,
                                const Hessian& hessian, const Hessian* held_out,
                                const HessianQuantizerOptions& options, const Workers& workers,
                                std::span<std::byte> out) {
  PreparedHessian prepared(hessian,
                           held_out == nullptr ? std::nullopt : std::optional<Hessian>(*held_out));
  return quantize_matrix(weights, codec, prepared, options, workers, out);
}

std::vector<float> importance_of(const Hessian& hessian) {
  const std::vector<double> diagonal = hessian.diagonal();
  const double mean = hessian.trace() / static_cast<double>(hessian.size());
  std::vector<float> importance(diagonal.size(), 1.0F);
  if (!(mean > 0)) return importance;
  for (std::size_t j = 0; j < diagonal.size(); ++j) {
    importance[j] = static_cast<float>(std::max(diagonal[j] / mean, 1e-6));
  }
  return importance;
}

double plain_loss(ConstMatrix weights, const quant::Codec& codec, PreparedHessian& hessian,
                  const Workers& workers) {
  const std::size_t blocks = weights.cols / codec.block_size;
  const std::size_t row_bytes = blocks * codec.block_bytes;
  std::vector<std::byte> bytes(weights.rows * row_bytes);
  workers.run(weights.rows, [&](std::size_t r, unsigned) {
    codec.encode(weights.row(r).data(), blocks, nullptr, bytes.data() + r * row_bytes);
  });
  const RowDecoder decode_row = [&](std::size_t r, std::span<float> values) {
    codec.decode(bytes.data() + r * row_bytes, blocks, values.data());
  };
  return quadratic_loss(weights, hessian.dense_judge(), decode_row, workers);
}

}  // namespace winnow::compress
