// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Activation sparsity: which inner channels ("neurons") of an FFN a token could do without.
// Published criteria by their names; a further one is a file in sparsity_systems/ and a line in its
// registry.def. It is a measurement: what is left out is set to zero, and nothing gets faster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "model/checkpoint.h"
#include "os/thread_pool.h"
#include "tensor/matrix.h"

namespace winnow::metrics {

/// One FFN (an expert, or that of a dense layer, which is expert 0) at one token. Borrowed.
struct NeuronRow {
  ExpertId expert{};
  std::span<const float> gate;   ///< [width] silu(gate_proj(x))
  std::span<const float> inner;  ///< [width] gate * up: the input of down_proj
};

/// Decides for one layer.
class NeuronFilter {
 public:
  virtual ~NeuronFilter() = default;
  /// Sets drop[i] to 1 for each neuron to leave out. drop: [width], zeros before. Several threads
  /// may call it at a time.
  virtual void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const = 0;
};

/// What one layer's FFNs did on text of their own.
struct LayerSample {
  struct Row {
    ExpertId expert{};
    std::vector<float> gate, inner;  ///< as in NeuronRow
  };
  std::vector<Row> rows;  ///< evenly spread over the text
  /// [experts][width]: mean of up_j^2 over all tokens of the expert, which is counted as if it had
  /// seen one more token with the mean of its layer.
  std::vector<std::vector<double>> mean_square_up;
};

/// One layer, for making its filter. Borrowed.
struct LayerNeurons {
  std::size_t experts = 0;  ///< 1 for a dense layer
  /// down_proj of an expert, [hidden_size, width]; [0, 0] for an expert without neurons.
  std::function<tensor::Matrix<float>(ExpertId)> down;
  const LayerSample* sample = nullptr;  ///< null for systems without calibration
  os::ThreadPool& pool;
};

/// One way to leave neurons out.
struct SparsitySystem {
  std::string_view name;    ///< as --sparsity has it
  std::string_view source;  ///< the paper
  std::string_view level;   ///< what the number after the name is; in [0, 1]
  bool needs_calibration;
  /// The level at which nothing but exact zeros is left out.
  double dense_level;
  std::unique_ptr<NeuronFilter> (*make)(double level, const LayerNeurons& layer);
};

std::span<const SparsitySystem* const> sparsity_systems();
/// Null when there is no such system.
const SparsitySystem* find_sparsity_system(std::string_view name);
/// "chess, teal, ...", for messages.
std::string sparsity_system_names();

struct SparsityRequest {
  const SparsitySystem* system = nullptr;
  double level = 0;
};
/// Reads "chess:0.5". Throws Error{kUsage} that names --sparsity and what could be written.
SparsityRequest parse_sparsity(std::string_view text);

/// Whether any layer has an FFN; a layer of zero-computation experts has none.
bool has_neurons(const model::ModelSpec& spec);

/// Filters of all layers. samples: one per layer, or empty for systems without calibration.
std::vector<std::unique_ptr<NeuronFilter>> make_filters(const SparsityRequest& request,
                                                        const model::Checkpoint& checkpoint,
                                                        std::span<const LayerSample> samples,
                                                        os::ThreadPool& pool);

// What the systems share.

/// `share` of `count`, to the nearest.
std::size_t share_of(double share, std::size_t count);
/// The largest of the share_of(share, n) smallest values: so many are at most the result. 0 when
/// that is none. Values are 0 or more.
double lower_quantile(std::vector<double> values, double share);
/// Marks the `count` smallest scores; of equal ones those with the higher index.
void drop_smallest(std::span<const double> scores, std::size_t count, std::span<std::uint8_t> drop);
/// [width]: norms of the columns of a down projection, what one unit of a neuron adds to the
/// output.
std::vector<double> column_norms(tensor::MatrixView<const float> down);
/// `column_norms` of each expert.
std::vector<std::vector<double>> output_norms(const LayerNeurons& layer);

}  // namespace winnow::metrics
