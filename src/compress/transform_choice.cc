// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/transform_choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace winnow::compress {

using model::Role;

namespace {

/// Places by falling value; ties in storage order.
std::vector<std::uint32_t> falling(const std::vector<double>& values) {
  std::vector<std::uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return values[a] > values[b]; });
  return order;
}

/// At most `most` rows: half of them the largest, which have most of the loss, and the others
/// evenly spread over the rest.
void append_rows(ConstMatrix from, std::size_t most, std::vector<float>& out) {
  std::vector<double> energy(from.rows);
  for (std::size_t r = 0; r < from.rows; ++r) {
    for (const float w : from.row(r)) energy[r] += double{w} * w;
  }
  const std::vector<std::uint32_t> order = falling(energy);
  const std::size_t count = std::min(most, from.rows);
  const std::size_t large = count / 2;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t place =
        i < large ? i : large + (i - large) * (from.rows - large) / (count - large);
    const auto row = from.row(order[place]);
    out.insert(out.end(), row.begin(), row.end());
  }
}

tensor::Matrix<float> matrix_of(const std::vector<float>& values, std::size_t cols) {
  tensor::Matrix<float> result(values.size() / cols, cols);
  std::copy(values.begin(), values.end(), result.flat().begin());
  return result;
}

tensor::Matrix<float> sampled(ConstMatrix from, std::size_t most) {
  std::vector<float> values;
  append_rows(from, most, values);
  return matrix_of(values, from.cols);
}

tensor::Matrix<float> reordered_columns(const tensor::Matrix<float>& weights,
                                        const std::vector<std::uint32_t>& order) {
  tensor::Matrix<float> result(weights.rows(), weights.cols());
  for (std::size_t r = 0; r < weights.rows(); ++r) {
    for (std::size_t j = 0; j < order.size(); ++j) result.row(r)[j] = weights.row(r)[order[j]];
  }
  return result;
}

bool allowed(const LayerSource& source, TransformKind kind) {
  return transform_refusal(source.spec, kind).empty();
}

/// One down projection: first the order of its columns, then their scales.
class InnerChoice {
 public:
  InnerChoice(const LayerSource& source, ExpertId expert, const TransformWishes& wishes,
              const HessianQuantizerOptions& options, const Workers& workers,
              LayerTransform& transform)
      : source_(source),
        expert_(expert),
        wishes_(wishes),
        options_(options),
        workers_(workers),
        transform_(transform),
        role_(source.spec.is_moe_layer(source.layer) ? Role::kExpertDownProj : Role::kDownProj),
        codec_(source.codec(role_)) {}

  std::vector<TransformGain> run() {
    const Hessian* hessian = source_.hessian(role_, expert_);
    if (hessian == nullptr || codec_.grid == nullptr) return {};
    const tensor::Matrix<float> whole = source_.weights(role_, expert_);
    down_ = sampled(whole.view(), wishes_.inner_rows);
    hessian_ = *hessian;
    const Hessian* held_out = source_.held_out(role_, expert_);
    held_out_ = held_out == nullptr ? *hessian : *held_out;
    if (wishes_.inner_order) choose_order(whole.view());
    if (wishes_.inner_scales && allowed(source_, TransformKind::kInnerScales)) choose_scales();
    return std::move(gains_);
  }

 private:
  TrialMatrix matrix() const { return {down_.view(), &codec_, &hessian_, &held_out_}; }

  void choose_order(ConstMatrix whole) {
    TransformGain gain{TransformKind::kInnerOrder, expert_};
    gain.loss_before = gain.loss_after = held_out_loss(matrix(), options_, workers_);
    std::vector<std::uint32_t> best;
    for (auto& order : inner_orders(whole, hessian_)) {
      const auto down = reordered_columns(down_, order);
      const Hessian hessian = hessian_.of_reordered_inputs(order);
      const Hessian held_out = held_out_.of_reordered_inputs(order);
      const double loss =
          held_out_loss({down.view(), &codec_, &hessian, &held_out}, options_, workers_);
      if (!(loss < gain.loss_after && loss < (1 - wishes_.least_gain) * gain.loss_before)) continue;
      gain.loss_after = loss;
      best = std::move(order);
    }
    gains_.push_back(gain);
    if (best.empty()) return;
    down_ = reordered_columns(down_, best);
    hessian_ = hessian_.of_reordered_inputs(best);
    held_out_ = held_out_.of_reordered_inputs(best);
    transform_.set_inner_order(expert_, std::move(best));
  }

  void choose_scales() {
    const TrialMatrix down = matrix();
    ChannelScales found =
        search_channel_scales(std::span(&down, 1), input_magnitudes(hessian_), {},
                              *wishes_.inner_scales, options_, wishes_.least_gain, workers_);
    gains_.push_back(
        {TransformKind::kInnerScales, expert_, found.unscaled_loss, found.held_out_loss});
    if (!found.is_identity()) transform_.set_inner_scales(expert_, std::move(found.scales));
  }

  const LayerSource& source_;
  ExpertId expert_;
  const TransformWishes& wishes_;
  const HessianQuantizerOptions& options_;
  Workers workers_;
  LayerTransform& transform_;
  Role role_;
  const quant::Codec& codec_;
  tensor::Matrix<float> down_;  // sampled rows, in the chosen order
  Hessian hessian_{0};
  Hessian held_out_{0};
  std::vector<TransformGain> gains_;
};

/// Values and the attention output, which alone is judged.
class ValueChoice {
 public:
  ValueChoice(const LayerSource& source, const TransformWishes& wishes,
              const HessianQuantizerOptions& options, const Workers& workers)
      : source_(source),
        wishes_(wishes),
        options_(options),
        workers_(workers),
        rows_(sampled(source.weights(Role::kAttentionOutput, {}).view(), wishes.input_rows)),
        hessian_(*source.hessian(Role::kAttentionOutput, {})),
        held_out_(source.held_out(Role::kAttentionOutput, {})) {}

  std::vector<TransformGain> run(LayerTransform& transform) {
    std::vector<TransformGain> gains;
    LayerTransform scaled = transform;
    if (wishes_.value_scales && allowed(source_, TransformKind::kValueScales)) {
      gains.push_back(choose_scales(scaled));
    }
    LayerTransform rotated = transform;
    if (wishes_.value_rotation && allowed(source_, TransformKind::kValueRotation)) {
      rotated.set_value_rotation();
      TransformGain gain{TransformKind::kValueRotation, {}, loss_under(scaled), 0};
      const double loss = loss_under(rotated);
      const bool better = loss < (1 - wishes_.least_gain) * gain.loss_before;
      gain.loss_after = better ? loss : gain.loss_before;
      gains.push_back(gain);
      if (better) scaled = std::move(rotated);
    }
    transform = std::move(scaled);
    return gains;
  }

 private:
  const quant::Codec& codec() const { return source_.codec(Role::kAttentionOutput); }

  TransformGain choose_scales(LayerTransform& transform) const {
    const model::ModelSpec& spec = source_.spec;
    const std::uint32_t group = spec.num_attention_heads / spec.num_key_value_heads;
    std::vector<std::uint32_t> channel_of(spec.query_width());
    const std::vector<float> of_columns = input_magnitudes(hessian_);
    std::vector<float> magnitudes(spec.key_value_width());
    for (std::uint32_t c = 0; c < channel_of.size(); ++c) {
      channel_of[c] = c / spec.head_dim / group * spec.head_dim + c % spec.head_dim;
      magnitudes[channel_of[c]] += of_columns[c] / static_cast<float>(group);
    }
    const TrialMatrix matrix{rows_.view(), &codec(), &hessian_, held_out_};
    ChannelScales found =
        search_channel_scales(std::span(&matrix, 1), magnitudes, channel_of, *wishes_.value_scales,
                              options_, wishes_.least_gain, workers_);
    if (!found.is_identity()) transform.set_value_scales(std::move(found.scales));
    return {TransformKind::kValueScales, {}, found.unscaled_loss, found.held_out_loss};
  }

  /// Of the sampled rows, quantised as they will be.
  double loss_under(const LayerTransform& transform) const {
    constexpr engine::Site kSite = engine::Site::kAttentionInner;
    tensor::Matrix<float> changed = rows_.clone();
    transform.apply_to_rows(Role::kAttentionOutput, {}, changed.view());
    const Hessian hessian = transform.apply_to_hessian(kSite, {}, hessian_);
    const Hessian held_out =
        transform.apply_to_hessian(kSite, {}, held_out_ ? *held_out_ : hessian_);
    return held_out_loss({changed.view(), &codec(), &hessian, &held_out}, options_, workers_);
  }

  const LayerSource& source_;
  const TransformWishes& wishes_;
  const HessianQuantizerOptions& options_;
  Workers workers_;
  tensor::Matrix<float> rows_;
  const Hessian& hessian_;
  const Hessian* held_out_;
};

/// All matrices that read one norm, as one matrix per codec, so that one factorisation serves all.
class FoldedInput {
 public:
  FoldedInput(const LayerSource& source, std::vector<Role> roles, std::size_t most_rows)
      : experts_(model::traits(roles.front()).per_expert ? source.spec.moe.num_experts : 1) {
    const std::size_t each = std::max<std::size_t>(1, most_rows / (roles.size() * experts_));
    std::map<std::string_view, std::vector<float>> rows;  // by codec
    for (const Role role : roles) {
      const quant::Codec& codec = source.codec(role);
      if (codec.grid == nullptr) continue;
      for (std::uint32_t e = 0; e < experts_; ++e) {
        append_rows(source.weights(role, ExpertId{e}).view(), each, rows[codec.name]);
      }
    }
    for (const auto& [codec, values] : rows) {
      codecs_.push_back(quant::find_codec(codec));
      weights_.push_back(matrix_of(values, source.spec.hidden_size));
    }
    sum(roles.front(), source.hessian, hessian_);
    sum(roles.front(), source.held_out, held_out_);
  }

  /// Empty when nothing is known of the input, or nothing that reads it is quantised.
  std::vector<TrialMatrix> matrices() const {
    std::vector<TrialMatrix> result;
    if (!hessian_) return result;
    const Hessian* judge = held_out_ ? &*held_out_ : nullptr;
    for (std::size_t i = 0; i < codecs_.size(); ++i) {
      result.push_back({weights_[i].view(), codecs_[i], &*hessian_, judge});
    }
    return result;
  }
  const Hessian& hessian() const { return *hessian_; }

 private:
  /// Over the experts, whose inputs are parts of one.
  void sum(Role role, const std::function<const Hessian*(Role, ExpertId)>& of,
           std::optional<Hessian>& out) const {
    for (std::uint32_t e = 0; e < experts_; ++e) {
      const Hessian* one = of(role, ExpertId{e});
      if (one == nullptr) continue;
      if (!out) out.emplace(one->size());
      out->add(*one);
    }
  }

  std::uint32_t experts_;
  std::vector<const quant::Codec*> codecs_;
  std::vector<tensor::Matrix<float>> weights_;
  std::optional<Hessian> hessian_;
  std::optional<Hessian> held_out_;
};

}  // namespace

std::vector<std::vector<std::uint32_t>> inner_orders(ConstMatrix down, const Hessian& hessian) {
  WINNOW_CHECK(hessian.size() == down.cols);
  std::vector<double> energy(down.cols);
  std::vector<double> largest(down.cols);
  for (std::size_t r = 0; r < down.rows; ++r) {
    for (std::size_t j = 0; j < down.cols; ++j) {
      const double w = down.row(r)[j];
      energy[j] += w * w;
      largest[j] = std::max(largest[j], std::fabs(w));
    }
  }
  const std::vector<double> inputs = hessian.diagonal();
  for (std::size_t j = 0; j < down.cols; ++j) energy[j] *= inputs[j];
  return {falling(energy), falling(largest)};
}

std::vector<TransformGain> choose_inner(const LayerSource& source, ExpertId expert,
                                        const TransformWishes& wishes,
                                        const HessianQuantizerOptions& options,
                                        const Workers& workers, LayerTransform& transform) {
  if (!wishes.inner_order && !wishes.inner_scales) return {};
  return InnerChoice(source, expert, wishes, options, workers, transform).run();
}

std::vector<TransformGain> choose_values(const LayerSource& source, const TransformWishes& wishes,
                                         const HessianQuantizerOptions& options,
                                         const Workers& workers, LayerTransform& transform) {
  const Role role = Role::kAttentionOutput;
  if ((!wishes.value_scales && !wishes.value_rotation) || source.hessian(role, {}) == nullptr ||
      source.codec(role).grid == nullptr) {
    return {};
  }
  return ValueChoice(source, wishes, options, workers).run(transform);
}

std::vector<TransformGain> choose_input_folds(const LayerSource& source,
                                              const TransformWishes& wishes,
                                              const HessianQuantizerOptions& options,
                                              const Workers& workers, LayerTransform& transform) {
  std::vector<TransformGain> gains;
  const auto choose = [&](TransformKind kind, std::optional<ScaleFamily> family,
                          std::vector<Role> roles) -> std::optional<std::vector<float>> {
    if (!family || !allowed(source, kind)) return std::nullopt;
    const FoldedInput input(source, std::move(roles), wishes.input_rows);
    const std::vector<TrialMatrix> matrices = input.matrices();
    if (matrices.empty()) return std::nullopt;
    ChannelScales found = search_channel_scales(matrices, input_magnitudes(input.hessian()), {},
                                                *family, options, wishes.least_gain, workers);
    gains.push_back({kind, {}, found.unscaled_loss, found.held_out_loss});
    if (found.is_identity()) return std::nullopt;
    return std::move(found.scales);
  };
  if (auto scales = choose(TransformKind::kAttentionInput, wishes.attention_input,
                           {Role::kQueryProj, Role::kKeyProj, Role::kValueProj})) {
    transform.set_attention_input_scales(std::move(*scales));
  }
  const bool moe = source.spec.is_moe_layer(source.layer);
  const std::vector<Role> ffn = moe ? std::vector{Role::kExpertGateProj, Role::kExpertUpProj}
                                    : std::vector{Role::kGateProj, Role::kUpProj};
  if (auto scales = choose(TransformKind::kFfnInput, wishes.ffn_input, ffn)) {
    transform.set_ffn_input_scales(std::move(*scales));
  }
  return gains;
}

LayerTransformChoice choose_layer_transform(const LayerSource& source,
                                            const TransformWishes& wishes,
                                            const HessianQuantizerOptions& options,
                                            const Workers& workers) {
  LayerTransformChoice choice{LayerTransform(source.spec, source.layer), {}};
  const auto add = [&](std::vector<TransformGain> gains) {
    choice.gains.insert(choice.gains.end(), gains.begin(), gains.end());
  };
  add(choose_input_folds(source, wishes, options, workers, choice.transform));
  add(choose_values(source, wishes, options, workers, choice.transform));
  const std::uint32_t experts =
      source.spec.is_moe_layer(source.layer) ? source.spec.moe.num_experts : 1;
  for (std::uint32_t e = 0; e < experts; ++e) {
    add(choose_inner(source, ExpertId{e}, wishes, options, workers, choice.transform));
  }
  return choice;
}

bool changes_vectors(const TransformWishes& wishes, const model::ModelSpec& spec) {
  const bool changes_values = wishes.value_scales || wishes.value_rotation;
  return wishes.attention_input || wishes.ffn_input || (changes_values && spec.attention_bias);
}

std::string transform_names() {
  return "inner-order, inner-scales, value-scales, value-rotation, attention-input, ffn-input";
}

TransformWishes wishes_of_names(const std::string& list) {
  TransformWishes wishes;
  if (list == "none") return wishes;
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == "inner-order") {
      wishes.inner_order = true;
    } else if (word == "inner-scales") {
      wishes.inner_scales = ScaleFamily::kAwq;
    } else if (word == "value-scales") {
      wishes.value_scales = ScaleFamily::kAwq;
    } else if (word == "value-rotation") {
      wishes.value_rotation = true;
    } else if (word == "attention-input") {
      wishes.attention_input = ScaleFamily::kAwq;
    } else if (word == "ffn-input") {
      wishes.ffn_input = ScaleFamily::kAwq;
    } else {
      fail(ErrorCode::kUsage, "--transforms: there is no '{}'; there are {}, and 'none'", word,
           transform_names());
    }
  }
  return wishes;
}

}  // namespace winnow::compress
