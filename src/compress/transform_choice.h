// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Chooses the changes of a layer (layer_transform.h) that make its matrices lose less when they are
// quantised, each judged on held-out inputs with a sample of rows.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/channel_scales.h"
#include "compress/hessian.h"
#include "compress/layer_transform.h"
#include "compress/workers.h"
#include "model/roles.h"
#include "model/spec.h"
#include "quant/codec.h"

namespace winnow::compress {

/// Which kinds to try, and how hard.
struct TransformWishes {
  bool inner_order = false;
  std::optional<ScaleFamily> inner_scales{};
  std::optional<ScaleFamily> value_scales{};
  bool value_rotation = false;
  std::optional<ScaleFamily> attention_input{};
  std::optional<ScaleFamily> ffn_input{};
  /// A change is made when the held-out loss falls by more than this share of it.
  double least_gain = 0.01;
  /// Rows quantised in each trial: of one matrix, or of all that read a folded input.
  std::size_t inner_rows = 64;
  std::size_t input_rows = 256;

  bool any() const {
    return inner_order || inner_scales || value_scales || value_rotation || attention_input ||
           ffn_input;
  }
};

/// Whether norms or biases of the model may change with the matrices.
bool changes_vectors(const TransformWishes& wishes, const model::ModelSpec& spec);

/// All names of kinds, separated by commas: "inner-order, inner-scales, ...".
std::string transform_names();
/// The kinds of a list of such names, scales by AWQ's rule; "none" is nothing. Throws Error{kUsage}
/// with all names for another one.
TransformWishes wishes_of_names(const std::string& list);

/// A layer before any change. Roles and experts as in model::Checkpoint.
struct LayerSource {
  const model::ModelSpec& spec;
  LayerId layer;
  /// The whole matrix.
  std::function<tensor::Matrix<float>(model::Role, ExpertId)> weights;
  /// The sums over the matrix's input, already drawn towards the layer where tokens were few; null
  /// where nothing is known: what depends on it stays as it is. Borrowed during a call.
  std::function<const Hessian*(model::Role, ExpertId)> hessian;
  /// The same of other text; null: `hessian` judges.
  std::function<const Hessian*(model::Role, ExpertId)> held_out;
  /// What the matrix will be stored in; a float codec loses nothing, and its matrix has no say.
  std::function<const quant::Codec&(model::Role)> codec;
};

/// What was tried and what it gave.
struct TransformGain {
  TransformKind kind;
  ExpertId expert{};
  double loss_before = 0;  ///< held out, per token, of the sampled rows
  double loss_after = 0;   ///< equal when nothing was changed
};

/// Each tries the kinds that are wished for and legal, and puts what wins into `transform`, which
/// has nothing of these kinds yet. `options` is how the matrices will be quantised.
/// Of one expert (0: the dense FFN): needs `source.hessian` of its down projection alone.
std::vector<TransformGain> choose_inner(const LayerSource& source, ExpertId expert,
                                        const TransformWishes& wishes,
                                        const HessianQuantizerOptions& options,
                                        const Workers& workers, LayerTransform& transform);
/// Values and what they go into: needs that of the attention output. A rotation (on or off for each
/// layer, RoSTE, arXiv:2502.09003) takes the place of scales that lose more.
std::vector<TransformGain> choose_values(const LayerSource& source, const TransformWishes& wishes,
                                         const HessianQuantizerOptions& options,
                                         const Workers& workers, LayerTransform& transform);
/// Both norms: needs those of q and of the gates (of all experts, which are summed).
std::vector<TransformGain> choose_input_folds(const LayerSource& source,
                                              const TransformWishes& wishes,
                                              const HessianQuantizerOptions& options,
                                              const Workers& workers, LayerTransform& transform);

struct LayerTransformChoice {
  LayerTransform transform;
  std::vector<TransformGain> gains;
};

/// All of the above.
LayerTransformChoice choose_layer_transform(const LayerSource& source,
                                            const TransformWishes& wishes,
                                            const HessianQuantizerOptions& options,
                                            const Workers& workers);

/// Orders of inner channels worth trying, from a down projection [hidden_size, inner] and the sums
/// over its input: by falling share of the output's energy, H_jj |W_j|^2, and by falling largest
/// magnitude of the column, both with ties in storage order.
std::vector<std::vector<std::uint32_t>> inner_orders(ConstMatrix down, const Hessian& hessian);

}  // namespace winnow::compress
