// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Scales of blocks found by clipping, as two published methods choose them: the range of a
// sub-block shrunk by factors on a grid (the learnable clipping of OmniQuant, arXiv:2308.13137,
// without learning), and the scale of a block by what it does to the output (the search for
// exponent biases of LLM-FP4, arXiv:2310.16836). Codes are the nearest ones.
#pragma once

#include <cstdint>
#include <span>

#include "compress/coded_matrix.h"
#include "compress/linear_algebra.h"
#include "compress/workers.h"

namespace winnow::compress {

/// Each sub-block by itself: for gamma and beta in {1, 0.95, .. 0.5} the range [beta min, gamma
/// max] (zero inside it) is spread over the L + 1 levels of the grid,
///   s = (gamma max - beta min) / L,  m = -beta min,
/// and the pair with the smallest sum_j importance_j (w_j - w'_j)^2 wins; a grid without minima has
/// one factor, s = gamma max|w| / level, with the sign that gives the largest weight the outermost
/// level. Not for codebooks. Block scales hold the largest s and m; with the integers rounded, all
/// codes are chosen anew. weights: [rows, n]; importance: [n]. Fills all of `out`, rows in
/// parallel.
void round_in_clipped_ranges(ConstMatrix weights, std::span<const float> importance,
                             CodedMatrix& out, const Workers& workers);

/// Whether a block is one scale and codes: Q4_0, IQ4_NL, MXFP4 and their like.
bool has_one_scale(const quant::BlockGrid& grid);

/// For such grids. Three rounds over the blocks of a row, in which each block tries 2^(i / 8), i =
/// -16 .. 4, of either sign, times the scale that reaches its largest weight (powers of two where
/// the grid stores those), and keeps what lowers tr(dW H dW^T) most, codes being the nearest. `out`
/// is the starting point and does not become worse. h: [n, n], symmetric. Cost: rows * n *
/// (block size * 42 + n) multiply-adds a round at most.
void search_output_scales(ConstMatrix weights, ConstMatrix h, CodedMatrix& out,
                          const Workers& workers);

/// Where the scales of nearest codes come from.
enum class ScaleSearch : std::uint8_t {
  kCodec,          ///< `BlockGrid::fit`; so do codebooks whatever is asked for
  kClippedRanges,  ///< `round_in_clipped_ranges`
  kOutput,         ///< `search_output_scales` from those of kCodec; other grids keep kCodec's
};

/// Scales as `search` says, and the nearest codes. h: [n, n], read for kOutput alone.
void round_without_feedback(ConstMatrix weights, std::span<const float> importance, ConstMatrix h,
                            ScaleSearch search, CodedMatrix& out, const Workers& workers);

}  // namespace winnow::compress
