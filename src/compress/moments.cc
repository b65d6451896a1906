// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/moments.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::compress {
namespace {

using engine::Site;
using model::Role;

// The layer's mean moments count like this many tokens of an expert of average router weight. An
// expert with thousands of tokens hardly notices; one with ten is mostly encoded by its layer.
constexpr double kPriorTokens = 64;

}  // namespace

Site site_of(Role role) {
  switch (role) {
    case Role::kQueryProj:
    case Role::kKeyProj:
    case Role::kValueProj:
      return Site::kAttentionInput;
    case Role::kAttentionOutput:
      return Site::kAttentionInner;
    case Role::kGateProj:
    case Role::kUpProj:
    case Role::kRouter:
      return Site::kFfnInput;
    case Role::kDownProj:
      return Site::kFfnInner;
    case Role::kExpertGateProj:
    case Role::kExpertUpProj:
      return Site::kExpertInput;
    case Role::kExpertDownProj:
      return Site::kExpertInner;
    default:
      return Site::kOutputInput;  // the output matrix, which tied embeddings share
  }
}

void InputMoments::add(Sum& sum, std::span<const float> x, double weight) {
  for (std::size_t j = 0; j < x.size(); ++j) {
    sum.squares[j] += weight * double{x[j]} * double{x[j]};
  }
  sum.weight += weight;
  ++sum.tokens;
}

void InputMoments::add(Site site, LayerId layer, ExpertId expert, std::span<const double> squares,
                       double weight, std::uint64_t tokens) {
  Sum& sum = sums_[{site, index(layer), index(expert)}];
  sum.squares.resize(squares.size());
  for (std::size_t j = 0; j < squares.size(); ++j) sum.squares[j] += squares[j];
  sum.weight += weight;
  sum.tokens += tokens;
}

void InputMoments::on_input(Site site, LayerId layer, tensor::MatrixView<const float> x) {
  Sum& sum = sums_[{site, index(layer), 0}];
  sum.squares.resize(x.cols);
  for (std::size_t t = 0; t < x.rows; ++t) add(sum, x.row(t), 1.0);
}

void InputMoments::on_expert_input(Site site, LayerId layer, ExpertId expert,
                                   tensor::MatrixView<const float> x,
                                   std::span<const float> weights) {
  Sum& sum = sums_[{site, index(layer), index(expert)}];
  sum.squares.resize(x.cols);
  const bool weighted = router_weights_ == RouterWeights::kSquared;
  for (std::size_t t = 0; t < x.rows; ++t) {
    add(sum, x.row(t), weighted ? double{weights[t]} * weights[t] : 1.0);
  }
}

const InputMoments::Sum* InputMoments::find(Role role, LayerId layer, ExpertId expert) const {
  const bool per_layer = model::traits(role).per_layer;
  const std::uint32_t part = model::traits(role).per_expert ? index(expert) : 0;
  const auto found = sums_.find({site_of(role), per_layer ? index(layer) : 0, part});
  return found == sums_.end() ? nullptr : &found->second;
}

InputMoments::Sum InputMoments::layer_sum(Role role, LayerId layer) const {
  Sum total;
  for (std::uint32_t e = 0; e < spec_.moe.num_experts; ++e) {
    const Sum* sum = find(role, layer, ExpertId{e});
    if (sum == nullptr) continue;
    total.squares.resize(sum->squares.size());
    for (std::size_t j = 0; j < sum->squares.size(); ++j) total.squares[j] += sum->squares[j];
    total.weight += sum->weight;
    total.tokens += sum->tokens;
  }
  return total;
}

bool InputMoments::is_lookup(Role role) const {
  return role == Role::kTokenEmbedding && !spec_.tie_word_embeddings;
}

bool InputMoments::knows(Role role, LayerId layer) const {
  if (is_lookup(role)) return true;
  if (!model::traits(role).per_expert) return find(role, layer, {}) != nullptr;
  return layer_sum(role, layer).tokens > 0;
}

std::vector<double> InputMoments::sums(Role role, LayerId layer, ExpertId expert) const {
  if (is_lookup(role)) return std::vector<double>(spec_.hidden_size, 1.0);
  const Sum* sum = find(role, layer, expert);
  if (sum != nullptr) return sum->squares;
  const auto shape = model::expected_shape(spec_, role, layer);
  WINNOW_CHECK(shape.has_value());
  return std::vector<double>(shape->row_length(), knows(role, layer) ? 0.0 : 1.0);
}

std::vector<float> InputMoments::importance(Role role, LayerId layer, ExpertId expert) const {
  std::vector<double> values = sums(role, layer, expert);
  if (model::traits(role).per_expert) {
    const Sum all = layer_sum(role, layer);
    if (all.tokens > 0 && all.weight > 0) {
      const double mean_weight = all.weight / static_cast<double>(all.tokens);
      const double scale = kPriorTokens * mean_weight / all.weight;
      for (std::size_t j = 0; j < values.size(); ++j) values[j] += scale * all.squares[j];
    }
  }
  // Only proportions matter to the encoder; near one they are safe in f32. A column that was
  // always zero keeps a little weight: other text may use it.
  double mean = 0;
  for (const double value : values) mean += value;
  mean /= static_cast<double>(values.size());
  std::vector<float> importance(values.size(), 1.0F);
  if (!(mean > 0)) return importance;
  for (std::size_t j = 0; j < values.size(); ++j) {
    importance[j] = static_cast<float>(std::max(values[j] / mean, 1e-6));
  }
  return importance;
}

std::vector<float> InputMoments::mean_squares(Role role, LayerId layer, ExpertId expert) const {
  if (is_lookup(role)) return {};
  const Sum* sum = find(role, layer, expert);
  if (sum == nullptr || !(sum->weight > 0)) {
    const bool known = model::traits(role).per_expert && layer_sum(role, layer).weight > 0;
    const auto shape = model::expected_shape(spec_, role, layer);
    WINNOW_CHECK(shape.has_value());
    return known ? std::vector<float>(shape->row_length(), 1.0F) : std::vector<float>();
  }
  std::vector<float> means(sum->squares.size());
  for (std::size_t j = 0; j < means.size(); ++j) {
    means[j] = static_cast<float>(sum->squares[j] / sum->weight);
  }
  return means;
}

std::uint64_t InputMoments::tokens(Role role, LayerId layer, ExpertId expert) const {
  if (is_lookup(role)) return 1;
  const Sum* sum = find(role, layer, expert);
  if (sum != nullptr) return sum->tokens;
  return knows(role, layer) ? 0 : 1;
}

}  // namespace winnow::compress
