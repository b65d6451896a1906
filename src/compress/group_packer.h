// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How groups of matrices are packed, and what that costs: with importances alone, or with Hessians.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "compress/calibration_text.h"
#include "compress/correction.h"
#include "compress/encoder_kind.h"
#include "compress/hessian_quantizer.h"
#include "compress/layer_hessians.h"
#include "compress/moments.h"
#include "compress/tensor_group.h"
#include "compress/transform_choice.h"
#include "engine/layer_runner.h"
#include "model/checkpoint.h"

namespace winnow::compress {

/// A group and the codec it is wanted in.
struct PackOrder {
  const TensorGroup* group = nullptr;
  const quant::Codec* codec = nullptr;
};

class GroupPacker {
 public:
  virtual ~GroupPacker() = default;

  /// Fills `error` of all options (0 where a group is stored so already), and codec and error of
  /// `noise` where a divergence can be measured.
  virtual void measure(std::vector<TensorGroup>& groups) = 0;
  /// A group with a noise point's errors.
  virtual PackedGroup noise(const TensorGroup& group, const NoisePoint& point) = 0;
  /// Packs these groups for good, so that `pack` can be called for them. What is packed already is
  /// left.
  virtual void prepare(std::span<const PackOrder> orders) = 0;
  virtual PackedGroup pack(const PackOrder& order) = 0;
  /// Whether `pack` gives what is stored, so that it may be left out.
  virtual bool is_copy(const PackOrder& order) = 0;
  /// Changes a vector or router [values] of a layer as the matrices around it were changed.
  virtual void edit(model::Role /*role*/, LayerId /*layer*/, std::span<float> /*values*/) {}
  /// Rows of one matrix as `pack` gives them, from `first` on, as many as `out` has bytes for; or
  /// false: they are copied or encoded as they are stored.
  virtual bool pack_rows(const PackOrder& order, ExpertId expert, std::size_t first,
                         std::span<std::byte> out) = 0;
  /// A whole factor of the correction of one matrix that `prepare` has packed.
  virtual void factor(const PackOrder& /*order*/, ExpertId /*expert*/, model::LowRankSide /*side*/,
                      std::span<std::byte> /*out*/) {
    WINNOW_CHECK(false);  // only where options have a rank
  }
};

/// What packers work with; all borrowed.
struct PackerContext {
  const model::Checkpoint& source;
  engine::LayerRunner& runner;
  const std::filesystem::path& folder;  ///< of the unfinished output
  std::function<void()> saved;          ///< called when something in it is worth keeping
  Log& log;
};

/// Every matrix by its codec's encoder of that kind, columns weighted by `moments` (null: all
/// alike, and errors relative to the squared norm of the weights).
std::unique_ptr<GroupPacker> make_encoder_packer(const PackerContext& context,
                                                 const InputMoments* moments, EncoderKind kind);

struct HessianPackerOptions {
  HessianQuantizerOptions quantizer;
  CorrectionOptions corrections;
  LayerHessianOptions hessians;
  TransformWishes transforms;     ///< exact changes of layers to try before
  double bits_per_weight = 4.25;  ///< that the transforms are tried for
  bool sequential = false;        ///< Hessians of what the quantised layers before give
  bool states_on_disk = false;
};

/// Every matrix under the Hessian of its input, from `text` run layer by layer. Errors of options
/// are of a sample of rows, on the held-out text.
std::unique_ptr<GroupPacker> make_hessian_packer(const PackerContext& context,
                                                 const CalibrationText& text,
                                                 const HessianPackerOptions& options);

}  // namespace winnow::compress
