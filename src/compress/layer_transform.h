// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Changes of one layer's parameters that leave what the layer computes as it is, and make it easier
// to quantise: inner channels of an FFN in another order, factors moved from one matrix (or norm)
// into those that read its output, and values turned by a rotation that is undone there. A plain
// file of the same architecture holds the result.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "compress/hessian.h"
#include "engine/observer.h"
#include "model/roles.h"
#include "model/spec.h"
#include "tensor/matrix.h"

namespace winnow::compress {

enum class TransformKind : std::uint8_t {
  kInnerOrder,      ///< rows of gate and up, columns of down, of one expert
  kInnerScales,     ///< row j of up / s_j, column j of down * s_j, of one expert
  kValueScales,     ///< row c of v / s_c, the columns of o that read it * s_c
  kValueRotation,   ///< H on the rows of each head of v, and on the columns of o that read it
  kAttentionInput,  ///< attention norm / s, columns of q, k and v * s
  kFfnInput,        ///< FFN norm / s, columns of the router, all gates and all ups * s
};

/// Why a model of this spec would not stay the same, for people; empty when it would.
std::string_view transform_refusal(const model::ModelSpec& spec, TransformKind kind);

/// All changes of one layer; a new one changes nothing. Copyable: a few numbers per channel.
/// A dense FFN is expert 0. Channels are counted after the change of order. Exact but for rounding
/// each parameter once: what is not quantised afterwards has to be stored in F32.
class LayerTransform {
 public:
  LayerTransform(const model::ModelSpec& spec, LayerId layer);

  // Each replaces the earlier one of its kind. Scales are finite and positive, 2^-60 to 2^60.
  // Throws Error{kUsage} with the reason where the model refuses the kind, Error{kBadData} for
  // scales out of range.

  /// order: [inner width], a permutation: channel i becomes what channel order[i] was.
  void set_inner_order(ExpertId expert, std::vector<std::uint32_t> order);
  void set_inner_scales(ExpertId expert, std::vector<float> scales);  ///< [inner width]
  void set_value_scales(std::vector<float> scales);                   ///< [key_value_width]
  /// `hadamard` of every value head, after its scales.
  void set_value_rotation();
  void set_attention_input_scales(std::vector<float> scales);  ///< [hidden_size]
  void set_ffn_input_scales(std::vector<float> scales);        ///< [hidden_size]

  /// Makes this the change that has the effect of this one and `next` after it, of the same layer.
  /// Value scales of `next` do not go behind a rotation of this.
  void append(const LayerTransform& next);

  /// A record of everything that is set, and its reading into a transform that has nothing yet.
  /// `read` throws Error{kBadData} for what is no such record of this layer.
  Json to_json() const;
  void read(const Json& json);

  /// Whether `apply` and `apply_to_vector` leave that tensor as it is.
  bool is_identity(model::Role role, ExpertId expert = {}) const;
  /// Changes a whole matrix of the layer in place. Its shape must be the model's.
  void apply(model::Role role, ExpertId expert, tensor::MatrixView<float> weights) const;
  /// The same for some rows of a matrix whose outputs no change touches (o, down projections).
  void apply_to_rows(model::Role role, ExpertId expert, tensor::MatrixView<float> rows) const;
  /// The same for a norm or a bias.
  void apply_to_vector(model::Role role, std::span<float> values) const;
  /// What the sums over inputs collected before the change are after it.
  Hessian apply_to_hessian(engine::Site site, ExpertId expert, const Hessian& hessian) const;

 private:
  /// Of the inner channels of one FFN; empty: as they are.
  struct Inner {
    std::vector<std::uint32_t> order;
    std::vector<float> scales;
  };
  /// What is done to a matrix, all parts borrowed; empty: nothing.
  struct MatrixChange {
    std::span<const std::uint32_t> row_order;
    std::span<const float> row_divisors;
    std::span<const std::uint32_t> column_order;
    std::span<const float> column_factors;
    bool rotates_rows = false;     ///< each head of v, after the division
    bool rotates_columns = false;  ///< each head of o's input, after the factors
  };
  MatrixChange change_of(model::Role role, ExpertId expert) const;
  /// What a vector is divided by.
  std::span<const float> divisors_of(model::Role role) const;
  bool rotates_vector(model::Role role) const;
  void apply_to_columns(const MatrixChange& change, tensor::MatrixView<float> rows) const;
  Inner& inner(ExpertId expert);
  void allow(TransformKind kind) const;

  model::ModelSpec spec_;
  LayerId layer_;
  std::size_t inner_width_;
  std::vector<Inner> inner_;                 // [experts, or 1]
  std::vector<float> value_scales_;          // [key_value_width]
  std::vector<float> attention_out_scales_;  // the same for each column of o
  bool value_rotation_ = false;
  std::vector<float> attention_input_scales_;
  std::vector<float> ffn_input_scales_;
};

}  // namespace winnow::compress
