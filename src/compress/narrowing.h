// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Experts with fewer inner channels. With the Hessian H of the inner activations, sum g^2 a a^T, an
// expert that keeps the channels K and loses S changes the layer's output by
// tr(W_S (H_SS - H_SK H_KK^-1 H_KS) W_S^T), squared and summed over tokens, once W_S H_SK H_KK^-1
// is added to the columns K of its down projection W: nothing added to them does better. Channels
// are removed one by one, the cheapest first, as "Second order derivatives for network pruning:
// Optimal Brain Surgeon" (Hassibi and Stork, 1992) removes weights; whole columns at once share one
// inverse of H, as the rows of a matrix do in SparseGPT (arXiv:2301.00774).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compress/hessian.h"
#include "compress/linear_algebra.h"
#include "compress/prepared_hessian.h"
#include "compress/tensor_group.h"
#include "compress/workers.h"

namespace winnow::compress {

/// Of the ridge under which channels are chosen and make up for removed ones: text of other kinds
/// than the calibration's uses other channels, as if each were used like the mean of all.
inline constexpr double kChannelDamping = 1;

/// Widths below `width` that an expert may be given: three quarters and half of it, in whole blocks
/// of 32 channels, and of 256 where there are any: others have only the types of small blocks.
/// Falling; none where there is no such block, or `width` is none of blocks: then
/// the whole matrix has no type whose error says what rounding does.
std::vector<std::uint32_t> narrower_widths(std::uint32_t width);

/// One step of the removal.
struct ChannelRemoval {
  std::uint32_t channel = 0;
  /// What the output changes by more, ridge included: |w_j|^2 / [H^-1]_jj, W and H^-1 being what
  /// earlier steps left.
  double cost = 0;
};

/// The first `count` channels in the order in which they are removed; of equal cost the lower
/// first. gram: W^T W; inverse: of H with its ridge; both [n, n], count <= n. Rows in parallel,
/// which changes no bit. Cost: 4 n^2 operations for each channel.
std::vector<ChannelRemoval> removal_order(const Hessian& gram, tensor::Matrix<double> inverse,
                                          std::size_t count, os::ThreadPool& pool);

/// Channels in [0, n) that are not among `some`, which rise; rising.
std::vector<std::uint32_t> other_channels(std::span<const std::uint32_t> some, std::size_t n);

/// X = H_KK^-1 H_KS [kept, removed], so that the best columns K are W_K + W_S X^T. damping: of the
/// ridge (see `ridge_of`), raised tenfold until H_KK can be factored.
tensor::Matrix<double> compensation(const Hessian& hessian, std::span<const std::uint32_t> kept,
                                    double damping);

/// W_K + W_S X^T. weights: rows of W; shares: X.
tensor::Matrix<float> compensated(ConstMatrix weights, std::span<const std::uint32_t> kept,
                                  const tensor::Matrix<double>& shares, os::ThreadPool& pool);

/// tr(D judge D^T) / tr(W judge W^T), D being the change of W with this compensation; 0 where the
/// text never gets there. gram: W^T W.
double lost_share(const Hessian& gram, const Hessian& judge, std::span<const std::uint32_t> kept,
                  const tensor::Matrix<double>& shares);

/// Squares of the columns that `compensated` makes, as a share of those of W. gram: W^T W.
double carried_share(const Hessian& gram, std::span<const std::uint32_t> kept,
                     const tensor::Matrix<double>& shares);

/// What channels are chosen and compensated by: the sums of the expert's own tokens, since another
/// expert's channels are others. What they have in common counts as that of `pseudo_tokens` more
/// tokens that have nothing in common; judged by the held-out sums as they are, or where there are
/// none by the calibration's. Without own sums: the same as `hessian`.
PreparedHessian of_own_tokens(const PreparedHessian& hessian, double pseudo_tokens);

/// The same inputs without those that are removed.
PreparedHessian of_channels(const PreparedHessian& hessian, std::span<const std::uint32_t> kept);

/// What an expert keeps, and X of `compensation`.
struct NarrowedChannels {
  ChannelChoice choice;
  tensor::Matrix<double> shares;
};

/// Chooses the channels of one expert, for any width from the smallest on: what the wider forms
/// lose, the narrower ones lose too.
class ChannelChooser {
 public:
  /// down: the whole matrix [hidden_size, n]; hessian: of its input; least: the smallest width.
  ChannelChooser(ConstMatrix down, const PreparedHessian& hessian, std::size_t least,
                 double damping, const Workers& workers);

  /// `lost` is that of the text that judges, `lost_elsewhere` that of uncorrelated channels of one
  /// size. hessian: the same.
  NarrowedChannels choose(std::size_t width, const PreparedHessian& hessian) const;

 private:
  Hessian gram_;
  double damping_;
  std::vector<ChannelRemoval> order_;
};

}  // namespace winnow::compress
