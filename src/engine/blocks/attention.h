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
#include "os/aligned_buffer.h"

namespace winnow::engine {

/// A stretch of a batch that belongs to one sequence.
struct SequenceRows {
  KvCache* cache = nullptr;
  std::size_t first_row = 0;  ///< in the batch
  std::size_t rows = 0;       ///< positions cache->length() ... + rows - 1
};

/// Three parallel loops when every sequence has one token: projections; heads, each rotated, stored
/// and attended by one thread; output. A loop over tokens is between the first two otherwise,
/// because a token attends to others of the batch.
class Attention {
 public:
  explicit Attention(const model::ModelSpec& spec);

  /// Prepares the rotation of the batch's positions for the calls of `forward` that follow, one a
  /// layer.
  void begin(const Compute& compute, std::span<const SequenceRows> sequences);

  /// out = o_proj(attention(q, k, v of x)); x: normalised [tokens, hidden_size], out the same
  /// shape. Appends keys and values to the caches without advancing them.
  void forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
               tensor::MatrixView<const float> x, std::span<const SequenceRows> sequences,
               tensor::MatrixView<float> out, Observer* observer);

 private:
  /// Consecutive tokens of one sequence.
  struct Stretch {
    const SequenceRows* sequence;
    std::size_t first;  ///< counted from the sequence's first row
    std::size_t count;
  };
  /// What one layer's rotation needs.
  struct Norms {
    std::span<const float> query;
    std::span<const float> key;
  };

  /// Room for `rows` tokens and for the pool's threads; kept for later calls.
  void reserve(const Compute& compute, std::size_t rows);
  /// Per-token cosines and sines of the rotary angles, [rows, head_dim].
  void prepare_rotation(std::span<const SequenceRows> sequences);
  /// Queries, keys and values of the input in one loop over the rows of the three matrices.
  void project(const Compute& compute, const DenseWeights& weights, LayerId layer,
               tensor::MatrixView<const float> x);
  void normalize_full_width(const Compute& compute, const Norms& norms, std::size_t token);
  /// Norm and rotation of one head, in place.
  void rotate_head(const Compute& compute, std::span<const float> norm, float* head,
                   std::size_t token) const;
  /// Queries and key of one group of heads for row `r` of a sequence: norm, rotation; then stores
  /// key and value.
  void prepare_group(const Compute& compute, const Norms& norms, LayerId layer,
                     const SequenceRows& sequence, std::size_t r, std::size_t kv_head);
  /// The whole preparation of sequences with several tokens, and what of it needs whole rows of
  /// the others.
  void prepare_rows(const Compute& compute, const Norms& norms, LayerId layer,
                    std::span<const SequenceRows> sequences);
  void attend(const Compute& compute, const Norms& norms, LayerId layer,
              std::span<const SequenceRows> sequences);
  /// What `item` of `attend`'s loop asks of the kernel.
  kernels::AttentionTask task_of(LayerId layer, std::size_t item);

  const model::ModelSpec& spec_;
  const std::size_t group_;  // query heads that share a head of keys and values
  LinearInput input_;
  LinearInput inner_input_;
  tensor::Matrix<float> query_, key_, value_, inner_;  // the batch's rows, and perhaps more
  tensor::Matrix<float> rotation_;                     // [rows, head_dim]: cosines, then sines
  std::vector<float> inverse_frequencies_;             // [head_dim / 2]
  std::vector<Stretch> stretches_;
  std::vector<os::AlignedBuffer> scratch_;  // one per worker
};

}  // namespace winnow::engine
