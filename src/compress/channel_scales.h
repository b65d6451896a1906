// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Scales of input channels that make matrices easier to quantise: W diag(s) reads x / s, which is
// exact when the operation that makes x takes 1 / s (the rows of an up projection for its down
// projection, the weights of a norm for all that read it). One exponent is searched.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/hessian_quantizer.h"
#include "compress/quantizer_trial.h"

namespace winnow::compress {

enum class ScaleFamily : std::uint8_t {
  kAwq,              ///< s = a^alpha, a the mean |x_j| (AWQ, arXiv:2306.00978)
  kSmoothQuantPlus,  ///< s = a^alpha / max|W_j|^(1 - alpha), a the largest |x_j| (arXiv:2312.03788)
  /// s = 2^round(alpha log2 a): exponents of channels moved into the weights without any rounding
  /// (the pre-shifted exponent bias of LLM-FP4, arXiv:2310.16836, with alpha for its strength).
  kExponentShift,
};

struct ChannelScales {
  double alpha = 0;
  std::vector<float> scales;  ///< [channels], over 0; all ones: not worth it
  double held_out_loss = 0;   ///< per token and summed over the matrices, with these scales
  double unscaled_loss = 0;   ///< the same with all ones

  bool is_identity() const { return held_out_loss >= unscaled_loss; }
};

/// Tries alpha = 0, 1/20, .. 19/20 and no scales at all for matrices that read the same channels.
/// The best by `QuantizerTrial` is measured with `options` in full, and taken when the sum of the
/// held-out losses falls by more than `least_gain` of it. magnitudes: [channels], a per channel, 0
/// or more, as the family says. channel_of: [n], the channel each column reads; empty: its own.
ChannelScales search_channel_scales(std::span<const TrialMatrix> matrices,
                                    std::span<const float> magnitudes,
                                    std::span<const std::uint32_t> channel_of, ScaleFamily family,
                                    const HessianQuantizerOptions& options, double least_gain,
                                    const Workers& workers);

/// Root mean square of each input, which stands for the mean and the largest magnitude where only
/// second moments are known.
std::vector<float> input_magnitudes(const Hessian& hessian);

}  // namespace winnow::compress
