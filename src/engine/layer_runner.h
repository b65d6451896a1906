// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Runs a model one layer at a time over hidden states that the caller keeps, so that a model far
// larger than memory can be measured: only one layer's weights are in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "engine/engine.h"
#include "engine/observer.h"
#include "engine/overrides.h"
#include "model/checkpoint.h"
#include "os/thread_pool.h"
#include "quant/corrected_matrix.h"
#include "tensor/matrix.h"

namespace winnow::engine {

/// `embed`, every layer's `load` and `run` in order, `load_output` and `logits` give bit for bit
/// what Engine::forward and Engine::logits give of the same windows with the same kernels.
/// One thread calls it at a time. `options.weights` is ignored: weights are copied.
class LayerRunner {
 public:
  /// `checkpoint` must outlive it. Loads nothing yet. Throws Error{kUsage} for an unknown ISA.
  LayerRunner(const model::Checkpoint& checkpoint, const EngineOptions& options);
  ~LayerRunner();
  LayerRunner(const LayerRunner&) = delete;
  LayerRunner& operator=(const LayerRunner&) = delete;

  const kernels::Kernels& kernels() const;
  os::ThreadPool& pool();

  /// Rows of the token embedding, read from the file: hidden [tokens, hidden_size] is overwritten.
  /// Or rows of `embedding`, when not null: packed, of the same shape, in the place of the model's.
  /// Throws Error{kUsage} for a token outside the vocabulary, else as reading does.
  void embed(std::span<const TokenId> tokens, tensor::MatrixView<float> hidden,
             const quant::PackedMatrix* embedding = nullptr) const;

  /// Reads the weights of a layer, after freeing what was loaded before. Throws Error{kBadData,
  /// kSystem} as reading does.
  void load(LayerId layer);
  /// The loaded layer over consecutive windows, each from position 0. lengths: tokens of each
  /// window, together hidden.rows. hidden: the layer's input, replaced by its output; dense rows.
  /// Throws Error{kBadData} with the layer when damaged weights give values that are not finite.
  void run(std::span<const std::size_t> lengths, tensor::MatrixView<float> hidden,
           Observer* observer = nullptr);

  /// Computes with `parts` (borrowed; one per expert, or one) in the place of the loaded matrices
  /// of this role, until `restore_weights` or the next load. Shapes must be the same. A part
  /// without a codec leaves what was there: the loaded matrix, or that of an earlier call. The
  /// output matrix of tied embeddings is the embedding.
  void override_weights(model::Role role, std::vector<quant::CorrectedMatrix> parts);
  /// Computes with these in the place of the loaded layer's experts, one for each, until
  /// `restore_weights` or the next load; replaces those of an earlier call. Dropped experts are
  /// not among those that tokens choose from, in what an observer sees too; but the logits that it
  /// sees are all of the router's. At least as many as a token goes to must not be dropped.
  void override_experts(std::vector<ExpertSubstitute> experts);
  /// Sends each token to so many experts of the loaded layer, until `restore_weights` or the next
  /// load: from 1 to those that are not dropped. `activations` are those of a spec with this top_k.
  void override_top_k(std::uint32_t top_k);
  /// Undoes all overrides.
  void restore_weights();

  /// Reads the output norm and the output matrix, after freeing what was loaded before.
  void load_output();
  /// The final norm of the last layer's output, in place; tells the observer.
  void normalize_output(tensor::MatrixView<float> hidden, Observer* observer = nullptr);
  /// Logits of normalised hidden states [rows, hidden_size] into out [rows, vocab_size].
  void logits(tensor::MatrixView<const float> hidden, tensor::MatrixView<float> out);

  /// Memory of weights that the largest `load` or `load_output` takes.
  static Bytes largest_weights(const model::Checkpoint& checkpoint);
  /// Memory that `run` takes for so many tokens in windows of at most `context`.
  static Bytes activations(const model::ModelSpec& spec, std::size_t tokens, std::size_t context);

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace winnow::engine
