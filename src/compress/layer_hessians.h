// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The Hessians of all inputs of one loaded layer, in portions that fit a limit of memory.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "base/log.h"
#include "base/units.h"
#include "compress/prepared_hessian.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "model/spec.h"

namespace winnow::compress {

/// What the matrices of an expert are quantised with.
enum class HessianScope : std::uint8_t {
  kExpert,    ///< the inputs of the tokens routed to it, drawn towards the layer's where few
  kLayer,     ///< one Hessian for all experts of a layer: less memory, more text for each
  kDiagonal,  ///< squares of the inputs only: importance for the codec's own encoder
};
/// By name ("expert", "layer", "diagonal"); nothing for another.
std::optional<HessianScope> find_hessian_scope(std::string_view name);
std::string_view to_string(HessianScope scope);

struct LayerHessianOptions {
  HessianScope scope = HessianScope::kExpert;  ///< kExpert or kLayer
  /// The layer's statistic counts like so many tokens of the expert, times the Hessian's size.
  double pseudo_tokens = 0.5;
  /// Leaves the layer's outputs ready for WindowStream::advance, which has to come next: for
  /// weights that stay as they are. Where one pass sees all, the outputs have replaced the states.
  bool run_ahead = false;
  /// For the sums that are collected at a time; nothing: no limit. At least one expert's are.
  std::optional<Bytes> memory;
};

/// Text on its way through the layers.
struct CalibrationStreams {
  WindowStream& calibration;
  WindowStream* held_out = nullptr;  ///< may be null
};

/// `expert` is 0 where the input is no expert's.
using HessianVisitor =
    std::function<void(engine::Site site, ExpertId expert, PreparedHessian& hessian)>;

/// Calls `visit` for each of `sites` of the loaded layer, and each expert for those of experts, in
/// that order within a portion. The streams' states are the layer's inputs, and stay unless the
/// options say otherwise. Runs the layer over the text once, or where experts need several portions
/// twice for each: how they are divided changes no bit.
void visit_layer_hessians(engine::LayerRunner& runner, const model::ModelSpec& spec, LayerId layer,
                          std::span<const engine::Site> sites, const CalibrationStreams& text,
                          const LayerHessianOptions& options, Log& log,
                          const HessianVisitor& visit);

/// The same for the input of the output matrix, once `load_output` has been called and the states
/// are the last layer's outputs.
void visit_output_hessian(engine::LayerRunner& runner, const model::ModelSpec& spec,
                          const CalibrationStreams& text, Log& log, const HessianVisitor& visit);

/// Numbers in the input of a site.
std::size_t input_size(const model::ModelSpec& spec, engine::Site site);
/// Memory of the sums of one site's input (of one expert).
Bytes hessian_bytes(const model::ModelSpec& spec, engine::Site site);

}  // namespace winnow::compress
