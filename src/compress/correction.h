// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Corrections of low rank as a file holds them: fitted to what quantising a matrix lost, rounded to
// F16, and kept only where text that took no part loses less with them.
#pragma once

#include <cstddef>
#include <vector>

#include "base/log.h"
#include "compress/hessian_quantizer.h"
#include "compress/prepared_hessian.h"
#include "compress/tensor_group.h"
#include "compress/workers.h"
#include "model/extended_layout.h"
#include "quant/codec.h"

namespace winnow::compress {

/// The rank that the paper recommends (LoRC of ZeroQuant-V2, arXiv:2303.08302).
inline constexpr std::size_t kDefaultRank = 8;

struct CorrectionOptions {
  std::size_t rank = 0;   ///< 0: none
  bool weighted = false;  ///< the best under the Hessian of the inputs, else of the error itself
};

/// Rank of the correction that a group has in this codec: that of the options, at most the smaller
/// side of its matrices; 0 for the embedding, for float codecs, where the group is stored so
/// already, and for matrices of more than 2^26 weights.
std::size_t correction_rank(const CorrectionOptions& options, const model::Checkpoint& source,
                            const TensorGroup& group, const quant::Codec& codec);

/// Throws Error{kBadData} for a model that has corrections (quantising would take what is decoded
/// for the weights as they are stored) or experts that vary: both are results of compressing.
void require_plain_source(const model::Checkpoint& source);

/// Sets `payload` and `bytes` of an option whose codec and rank are set: stacked experts are one
/// tensor, as are their factors of one kind; each is padded to the alignment of the file.
void count_bytes(const TensorGroup& group, GroupOption& option);

/// Bytes of one factor, [rows, rank] or [rank, cols], of one matrix of the group.
Bytes factor_bytes(const TensorGroup& group, model::LowRankSide side, std::size_t rank);
/// Bytes of both factors of one matrix.
Bytes factors_bytes(const TensorGroup& group, std::size_t rank);
/// Working memory of `fit_correction` for a matrix of the group, its weights included.
Bytes fitting_bytes(const TensorGroup& group);

struct Correction {
  std::vector<std::byte> factors;  ///< left, then right, row-major F16
  /// Of the squared output error on the text that judges, the share that the factors take away; 0
  /// when they would take nothing or add to it: then they are zero.
  double share = 0;
};

/// For weights [rows, cols] and what they were packed as. rank: 1 to the smaller side.
Correction fit_correction(ConstMatrix weights, const quant::PackedMatrix& packed,
                          PreparedHessian& hessian, std::size_t rank, bool weighted,
                          const Workers& workers);

/// Of each option's loss, the share that its correction takes away, measured on one matrix of the
/// group. quantizer: what it is packed with.
std::vector<double> correction_shares(const TensorGroup& group, ConstMatrix weights,
                                      PreparedHessian& hessian,
                                      const HessianQuantizerOptions& quantizer, bool weighted,
                                      const Workers& workers, Log& log);

}  // namespace winnow::compress
