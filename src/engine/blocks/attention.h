// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Grouped-query causal self-attention with rotary position embedding.
#pragma once

#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/linear.h"
#include "engine/observer.h"
#include "engine/weights.h"
#include "model/spec.h"

namespace winnow::engine {

/// A stretch of a batch that belongs to one sequence.
struct SequenceRows {
  KvCache* cache = nullptr;
  std::size_t first_row = 0;  ///< in the batch
  std::size_t rows = 0;       ///< positions cache->length() ... + rows - 1
};

class Attention {
 public:
  explicit Attention(const model::ModelSpec& spec);

  /// out = o_proj(attention(q, k, v of x)); x: normalised [tokens, hidden_size], out the same
  /// shape. Appends keys and values to the caches without advancing them.
  void forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
               tensor::MatrixView<const float> x, std::span<const SequenceRows> sequences,
               tensor::MatrixView<float> out, Observer* observer);

 private:
  /// Per-token cosines and sines of the rotary angles, [rows, head_dim].
  void prepare_rotation(std::span<const SequenceRows> sequences, std::size_t rows);
  void normalize_and_rotate(const Compute& compute, std::span<const float> norm, float* row,
                            std::size_t heads, std::size_t token) const;
  void store_keys_and_values(const Compute& compute, const DenseWeights& weights, LayerId layer,
                             std::span<const SequenceRows> sequences);
  void attend(const Compute& compute, LayerId layer, std::span<const SequenceRows> sequences);

  const model::ModelSpec& spec_;
  LinearInput input_;
  LinearInput inner_input_;
  tensor::Matrix<float> query_, key_, value_, inner_;
  tensor::Matrix<float> rotation_;          // [rows, head_dim]: cosines, then sines
  std::vector<float> inverse_frequencies_;  // [head_dim / 2]
  std::vector<std::vector<float>> scores_;  // one row per worker
};

}  // namespace winnow::engine
