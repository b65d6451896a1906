// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_transform.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "compress/hadamard.h"

namespace winnow::compress {

using engine::Site;
using model::Role;

namespace {

/// Both a factor and its inverse stay far from the ends of f32, so that weights do.
constexpr float kLargestScale = 0x1p60F;

void require_scales(std::span<const float> scales, std::size_t size) {
  WINNOW_CHECK(scales.size() == size);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    // Written so that NaN is refused.
    if (scales[i] >= 1 / kLargestScale && scales[i] <= kLargestScale) continue;
    fail_data("the scale of channel {} is {}; expected a factor of 2^-60 to 2^60", i, scales[i]);
  }
}

void require_permutation(std::span<const std::uint32_t> order, std::size_t size) {
  std::vector<bool> seen(size);
  WINNOW_CHECK(order.size() == size);
  for (const std::uint32_t channel : order) {
    WINNOW_CHECK(channel < size && !seen[channel]);
    seen[channel] = true;
  }
}

/// The order of both changes together.
std::vector<std::uint32_t> composed(const std::vector<std::uint32_t>& first,
                                    const std::vector<std::uint32_t>& second) {
  if (first.empty() || second.empty()) return first.empty() ? second : first;
  std::vector<std::uint32_t> result;
  for (const std::uint32_t channel : second) result.push_back(first[channel]);
  return result;
}

/// The factors of both changes together, for channels that `order` of the second moves.
std::vector<float> composed(const std::vector<float>& first, const std::vector<float>& second,
                            const std::vector<std::uint32_t>& order = {}) {
  if (first.empty()) return second;
  std::vector<float> result;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const float moved = first[order.empty() ? i : order[i]];
    result.push_back(second.empty() ? moved : moved * second[i]);
  }
  return result;
}

void reorder_rows(tensor::MatrixView<float> weights, std::span<const std::uint32_t> order) {
  std::vector<float> old;
  for (std::size_t r = 0; r < weights.rows; ++r) {
    old.insert(old.end(), weights.row(r).begin(), weights.row(r).end());
  }
  for (std::size_t r = 0; r < weights.rows; ++r) {
    std::copy_n(old.data() + order[r] * weights.cols, weights.cols, weights.row(r).data());
  }
}

void reorder(std::span<float> row, std::span<const std::uint32_t> order, std::vector<float>& old) {
  old.assign(row.begin(), row.end());
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = old[order[j]];
}

}  // namespace

std::string_view transform_refusal(const model::ModelSpec& spec, TransformKind kind) {
  switch (kind) {
    case TransformKind::kInnerOrder:
      return {};
    case TransformKind::kInnerScales:
      if (spec.ffn_is_linear_in_up) return {};
      return "its FFN is not linear in the up projection, so no factor passes through it";
    case TransformKind::kValueScales:
      if (spec.attention_is_linear_in_values) return {};
      return "its values are normed or gated, so no factor passes from v to o";
    case TransformKind::kValueRotation:
      if (spec.attention_is_linear_in_values) return {};
      return "its values are normed or gated, so no rotation passes from v to o";
    case TransformKind::kAttentionInput:
    case TransformKind::kFfnInput:
      if (spec.norm_weights_are_factors) return {};
      return "its norms multiply with 1 + w, so a factor in w does not reach their output";
  }
  return {};
}

LayerTransform::LayerTransform(const model::ModelSpec& spec, LayerId layer)
    : spec_(spec), layer_(layer) {
  const bool moe = spec.is_moe_layer(layer);
  inner_width_ = moe ? spec.moe.moe_intermediate_size : spec.intermediate_size;
  inner_.resize(moe ? spec.moe.num_experts : 1);
}

void LayerTransform::allow(TransformKind kind) const {
  const std::string_view refusal = transform_refusal(spec_, kind);
  if (refusal.empty()) return;
  fail(ErrorCode::kUsage, "the model '{}' cannot be rescaled so: {}", spec_.architecture, refusal);
}

LayerTransform::Inner& LayerTransform::inner(ExpertId expert) {
  WINNOW_CHECK(index(expert) < inner_.size());
  return inner_[index(expert)];
}

void LayerTransform::set_inner_order(ExpertId expert, std::vector<std::uint32_t> order) {
  allow(TransformKind::kInnerOrder);
  require_permutation(order, inner_width_);
  inner(expert).order = std::move(order);
}

void LayerTransform::set_inner_scales(ExpertId expert, std::vector<float> scales) {
  allow(TransformKind::kInnerScales);
  require_scales(scales, inner_width_);
  inner(expert).scales = std::move(scales);
}

void LayerTransform::set_value_scales(std::vector<float> scales) {
  allow(TransformKind::kValueScales);
  require_scales(scales, spec_.key_value_width());
  value_scales_ = std::move(scales);
  // Query heads of a group read the same value head.
  const std::size_t dim = spec_.head_dim;
  const std::size_t group = spec_.num_attention_heads / spec_.num_key_value_heads;
  attention_out_scales_.resize(spec_.query_width());
  for (std::size_t c = 0; c < attention_out_scales_.size(); ++c) {
    attention_out_scales_[c] = value_scales_[c / dim / group * dim + c % dim];
  }
}

void LayerTransform::set_value_rotation() {
  allow(TransformKind::kValueRotation);
  value_rotation_ = true;
}

void LayerTransform::set_attention_input_scales(std::vector<float> scales) {
  allow(TransformKind::kAttentionInput);
  require_scales(scales, spec_.hidden_size);
  attention_input_scales_ = std::move(scales);
}

void LayerTransform::set_ffn_input_scales(std::vector<float> scales) {
  allow(TransformKind::kFfnInput);
  require_scales(scales, spec_.hidden_size);
  ffn_input_scales_ = std::move(scales);
}

void LayerTransform::append(const LayerTransform& next) {
  WINNOW_CHECK(next.layer_ == layer_ && next.inner_.size() == inner_.size());
  for (std::size_t e = 0; e < inner_.size(); ++e) {
    const Inner& after = next.inner_[e];
    inner_[e].scales = composed(inner_[e].scales, after.scales, after.order);
    inner_[e].order = composed(inner_[e].order, after.order);
  }
  WINNOW_CHECK(!value_rotation_ || next.value_scales_.empty());
  value_rotation_ = value_rotation_ != next.value_rotation_;  // H H = I
  value_scales_ = composed(value_scales_, next.value_scales_);
  attention_out_scales_ = composed(attention_out_scales_, next.attention_out_scales_);
  attention_input_scales_ = composed(attention_input_scales_, next.attention_input_scales_);
  ffn_input_scales_ = composed(ffn_input_scales_, next.ffn_input_scales_);
}

Json LayerTransform::to_json() const {
  Json json = {{"value_scales", value_scales_},
               {"value_rotation", value_rotation_},
               {"attention_input_scales", attention_input_scales_},
               {"ffn_input_scales", ffn_input_scales_},
               {"inner", Json::array()}};
  for (const Inner& channels : inner_) {
    json["inner"].push_back({{"order", channels.order}, {"scales", channels.scales}});
  }
  return json;
}

void LayerTransform::read(const Json& json) {
  const auto scales = [](const Json& from, const char* key) {
    return from.at(key).get<std::vector<float>>();
  };
  const auto set = [](std::vector<float> values, const auto& setter) {
    if (!values.empty()) setter(std::move(values));
  };
  try {
    set(scales(json, "value_scales"), [&](auto v) { set_value_scales(std::move(v)); });
    if (json.at("value_rotation").get<bool>()) set_value_rotation();
    set(scales(json, "attention_input_scales"),
        [&](auto v) { set_attention_input_scales(std::move(v)); });
    set(scales(json, "ffn_input_scales"), [&](auto v) { set_ffn_input_scales(std::move(v)); });
    const Json& inner = json.at("inner");
    if (inner.size() != inner_.size()) {
      fail_data("changes of {} experts; expected {}", inner.size(), inner_.size());
    }
    for (std::size_t e = 0; e < inner_.size(); ++e) {
      const ExpertId expert{static_cast<std::uint32_t>(e)};
      auto order = inner[e].at("order").get<std::vector<std::uint32_t>>();
      if (!order.empty()) set_inner_order(expert, std::move(order));
      set(scales(inner[e], "scales"), [&](auto v) { set_inner_scales(expert, std::move(v)); });
    }
  } catch (const Json::exception& error) {
    fail_data("is no record of a layer's changes: {}", error.what());
  }
}

LayerTransform::MatrixChange LayerTransform::change_of(Role role, ExpertId expert) const {
  const bool routed = model::traits(role).per_expert;
  const std::size_t e = routed ? index(expert) : 0;
  WINNOW_CHECK(e < inner_.size());
  const Inner& channels = inner_[e];
  switch (role) {
    case Role::kQueryProj:
    case Role::kKeyProj:
      return {{}, {}, {}, attention_input_scales_};
    case Role::kValueProj:
      return {{}, value_scales_, {}, attention_input_scales_, value_rotation_, false};
    case Role::kAttentionOutput:
      return {{}, {}, {}, attention_out_scales_, false, value_rotation_};
    case Role::kRouter:
      return {{}, {}, {}, ffn_input_scales_};
    case Role::kGateProj:
    case Role::kExpertGateProj:
      return {channels.order, {}, {}, ffn_input_scales_};
    case Role::kUpProj:
    case Role::kExpertUpProj:
      return {channels.order, channels.scales, {}, ffn_input_scales_};
    case Role::kDownProj:
    case Role::kExpertDownProj:
      return {{}, {}, channels.order, channels.scales};
    default:
      return {};
  }
}

std::span<const float> LayerTransform::divisors_of(Role role) const {
  switch (role) {
    case Role::kAttentionNorm:
      return attention_input_scales_;
    case Role::kFfnNorm:
      return ffn_input_scales_;
    case Role::kValueBias:
      return value_scales_;
    default:
      return {};
  }
}

bool LayerTransform::rotates_vector(Role role) const {
  return value_rotation_ && role == Role::kValueBias;
}

bool LayerTransform::is_identity(Role role, ExpertId expert) const {
  const MatrixChange change = change_of(role, expert);
  return change.row_order.empty() && change.row_divisors.empty() && change.column_order.empty() &&
         change.column_factors.empty() && !change.rotates_rows && !change.rotates_columns &&
         !rotates_vector(role) && divisors_of(role).empty();
}

void LayerTransform::apply(Role role, ExpertId expert, tensor::MatrixView<float> weights) const {
  if (is_identity(role, expert)) return;
  const auto shape = model::expected_shape(spec_, role, layer_);
  WINNOW_CHECK(shape && weights.rows == (*shape)[0] && weights.cols == (*shape)[1]);
  const MatrixChange change = change_of(role, expert);
  if (!change.row_order.empty()) reorder_rows(weights, change.row_order);
  apply_to_columns(change, weights);
  for (std::size_t r = 0; r < change.row_divisors.size(); ++r) {
    for (float& w : weights.row(r)) w /= change.row_divisors[r];
  }
  if (change.rotates_rows) hadamard_rows(weights, spec_.head_dim);
}

void LayerTransform::apply_to_rows(Role role, ExpertId expert,
                                   tensor::MatrixView<float> rows) const {
  const MatrixChange change = change_of(role, expert);
  WINNOW_CHECK(change.row_order.empty() && change.row_divisors.empty() && !change.rotates_rows);
  apply_to_columns(change, rows);
}

void LayerTransform::apply_to_columns(const MatrixChange& change,
                                      tensor::MatrixView<float> rows) const {
  std::vector<float> old;
  for (std::size_t r = 0; r < rows.rows; ++r) {
    const auto row = rows.row(r);
    if (!change.column_order.empty()) reorder(row, change.column_order, old);
    for (std::size_t j = 0; j < change.column_factors.size(); ++j) {
      row[j] *= change.column_factors[j];
    }
    if (change.rotates_columns) hadamard_each(row, spec_.head_dim);
  }
}

void LayerTransform::apply_to_vector(Role role, std::span<float> values) const {
  const auto divisors = divisors_of(role);
  WINNOW_CHECK(divisors.empty() || values.size() == divisors.size());
  for (std::size_t i = 0; i < divisors.size(); ++i) values[i] /= divisors[i];
  if (rotates_vector(role)) hadamard_each(values, spec_.head_dim);
}

Hessian LayerTransform::apply_to_hessian(Site site, ExpertId expert, const Hessian& hessian) const {
  const auto divided = [&](std::span<const float> scales) {
    return scales.empty() ? hessian : hessian.of_divided_inputs(scales);
  };
  switch (site) {
    case Site::kAttentionInput:
      return divided(attention_input_scales_);
    case Site::kAttentionInner: {
      const Hessian scaled = divided(attention_out_scales_);
      return value_rotation_ ? scaled.of_rotated_inputs(spec_.head_dim) : scaled;
    }
    case Site::kFfnInput:
    case Site::kExpertInput:
      return divided(ffn_input_scales_);
    case Site::kFfnInner:
    case Site::kExpertInner: {
      const std::size_t e = site == Site::kFfnInner ? 0 : index(expert);
      WINNOW_CHECK(e < inner_.size());
      const Inner& channels = inner_[e];
      if (channels.order.empty()) return divided(channels.scales);
      const Hessian ordered = hessian.of_reordered_inputs(channels.order);
      return channels.scales.empty() ? ordered : ordered.of_divided_inputs(channels.scales);
    }
    case Site::kOutputInput:
      break;
  }
  return hessian;
}

}  // namespace winnow::compress
