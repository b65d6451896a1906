// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Scales of input channels that make a matrix easier to quantise: W diag(s) reads x / s, which is
// exact when the operation that makes x takes 1 / s (the rows of an up projection for its down
// projection, the weights of a norm for all that read it). One exponent is searched.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/hessian_quantizer.h"

namespace winnow::compress {

enum class ScaleFamily : std::uint8_t {
  kAwq,              ///< s = a^alpha, a the mean |x_j| (AWQ, arXiv:2306.00978)
  kSmoothQuantPlus,  ///< s = a^alpha / max|W_j|^(1 - alpha), a the largest |x_j| (arXiv:2312.03788)
};

struct ChannelScales {
  double alpha = 0;
  std::vector<float> scales;  ///< [n], over 0; sqrt(largest * smallest) = 1; all ones: not worth it
  double held_out_loss = 0;   ///< per token, of the scaled matrix under the scaled held-out Hessian
  double unscaled_loss = 0;   ///< the same with all ones
};

/// Tries alpha = 0, 1/20, .. 19/20 and no scales at all; the smallest loss on the held-out Hessian
/// (null: on `hessian`) wins, no scales on ties. weights: [rows, n]; magnitudes: [n], a per
/// channel, 0 or more, as the family says. Each trial quantises the matrix with `options`.
ChannelScales search_channel_scales(ConstMatrix weights, const quant::Codec& codec,
                                    const Hessian& hessian, const Hessian* held_out,
                                    std::span<const float> magnitudes, ScaleFamily family,
                                    const HessianQuantizerOptions& options, os::ThreadPool& pool);

/// W diag(s).
tensor::Matrix<float> scaled_columns(ConstMatrix weights, std::span<const float> scales);

}  // namespace winnow::compress
