// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The windows of a text on their way through a model that is loaded one layer at a time.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "base/log.h"
#include "compress/hidden_states.h"
#include "engine/layer_runner.h"
#include "metrics/text_data.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Windows that go through a layer together.
struct WindowBatches {
  struct Batch {
    std::vector<const metrics::Window*> windows;  ///< borrowed
    std::vector<std::size_t> lengths;             ///< tokens of each
    std::size_t tokens = 0;
  };
  std::vector<Batch> batches;
  std::size_t longest = 0;   ///< tokens of the longest window
  std::size_t largest = 0;   ///< tokens of the largest batch
  std::uint64_t tokens = 0;  ///< of all windows, start tokens included

  /// Batches of at most `batch_tokens`, or one window. The numbers of a window do not depend on
  /// what else is in its batch.
  WindowBatches(std::span<const metrics::Window> windows, std::size_t batch_tokens);
};

/// The hidden states of all windows between two layers.
class WindowStream {
 public:
  /// `batches` must outlive it. The states are in memory, or files in `folder` when it is not
  /// empty.
  WindowStream(const WindowBatches& batches, std::size_t hidden_size,
               const std::filesystem::path& folder);
  ~WindowStream();
  WindowStream(const WindowStream&) = delete;
  WindowStream& operator=(const WindowStream&) = delete;

  /// The states before layer 0. `embedding` as in LayerRunner::embed.
  void embed(const engine::LayerRunner& runner, const quant::PackedMatrix* embedding, Log& log);
  /// Runs the loaded layer over the states of `from`, which may be this stream; the outputs become
  /// the states of this one.
  void run(engine::LayerRunner& runner, const WindowStream& from, engine::Observer* observer,
           Log& log);
  /// Runs the loaded layer only to be observed; the states stay.
  void observe(engine::LayerRunner& runner, engine::Observer& observer, Log& log) const;
  /// The same, and the outputs are kept beside the states, for `advance`.
  void observe_ahead(engine::LayerRunner& runner, engine::Observer& observer, Log& log);
  /// The same, but the outputs replace the states at once: half the memory, where nothing reads the
  /// states before `advance`, which has nothing left to do.
  void observe_in_place(engine::LayerRunner& runner, engine::Observer& observer, Log& log);
  /// Makes the outputs that were kept the states, or without such runs the loaded layer.
  void advance(engine::LayerRunner& runner, Log& log);
  /// The same for the final norm, once `load_output` has been called and the states are the last
  /// layer's outputs.
  void observe_output(engine::LayerRunner& runner, engine::Observer& observer, Log& log) const;
  /// Rows of a batch from `first` on, as many as `out` has; [rows, hidden_size].
  void read_rows(std::size_t batch, std::size_t first, tensor::MatrixView<float> out) const {
    states_->read_rows(batch, first, out);
  }

  const WindowBatches& batches() const { return batches_; }
  std::size_t hidden_size() const { return hidden_size_; }

 private:
  std::unique_ptr<HiddenStates> make_states() const;
  /// Calls use(batch, its states [tokens, hidden_size], which it may change) for each.
  template <typename Use>
  void each_batch(const HiddenStates& from, Log& log, const Use& use) const;
  /// The layer's outputs as states `number`; from: what it reads.
  void run(engine::LayerRunner& runner, const HiddenStates& from, HiddenStates& to,
           std::size_t number, engine::Observer* observer, Log& log) const;

  const WindowBatches& batches_;
  std::size_t hidden_size_;
  std::filesystem::path folder_;
  std::unique_ptr<HiddenStates> states_;
  std::unique_ptr<HiddenStates> ahead_;  // the next ones; may be null
  std::size_t number_ = 0;               // of the states, as HiddenStates counts them
  bool in_place_ = false;                // the states are the loaded layer's outputs already
};

}  // namespace winnow::compress
