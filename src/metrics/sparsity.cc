// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/sparsity.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace winnow::metrics {

using model::Role;

#define SPARSITY_SYSTEM(system) extern const SparsitySystem system;
#include "metrics/sparsity_systems/registry.def"
#undef SPARSITY_SYSTEM

std::span<const SparsitySystem* const> sparsity_systems() {
  static constexpr std::array kAll = {
#define SPARSITY_SYSTEM(system) &system,
#include "metrics/sparsity_systems/registry.def"
#undef SPARSITY_SYSTEM
  };
  return kAll;
}

const SparsitySystem* find_sparsity_system(std::string_view name) {
  for (const SparsitySystem* system : sparsity_systems()) {
    if (system->name == name) return system;
  }
  return nullptr;
}

std::string sparsity_system_names() {
  std::string names;
  for (const SparsitySystem* system : sparsity_systems()) {
    names.append(names.empty() ? "" : ", ").append(system->name);
  }
  return names;
}

SparsityRequest parse_sparsity(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const SparsitySystem* const system = find_sparsity_system(name);
  if (system == nullptr) {
    fail(ErrorCode::kUsage,
         "--sparsity: there is no system '{}'; write one of {}, a colon and its level, as in "
         "wina:0.5",
         name, sparsity_system_names());
  }
  const std::string_view number =
      colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  double level = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), level);
  const bool whole = error == std::errc() && end == number.data() + number.size();
  // Written so that NaN is refused.
  if (!whole || !(level >= 0 && level <= 1)) {
    fail(ErrorCode::kUsage,
         "--sparsity: the level of {} is '{}'; expected {}:N with N from 0 to 1, {}", name, number,
         name, system->level);
  }
  return {system, level};
}

namespace {

bool has_neurons(const model::ModelSpec& spec, LayerId layer, ExpertId expert) {
  return !spec.is_moe_layer(layer) ||
         spec.expert(layer, expert).kind == model::ExpertKind::kFeedForward;
}

tensor::Matrix<float> read_down(const model::Checkpoint& checkpoint, LayerId layer,
                                ExpertId expert) {
  const model::ModelSpec& spec = checkpoint.spec();
  if (!has_neurons(spec, layer, expert)) return {};
  const Role role = spec.is_moe_layer(layer) ? Role::kExpertDownProj : Role::kDownProj;
  const model::TensorRef ref = checkpoint.at(role, layer, expert);
  tensor::Matrix<float> down(ref.rows, ref.cols);
  checkpoint.read_floats(ref, 0, ref.rows, down.flat());
  return down;
}

}  // namespace

bool has_neurons(const model::ModelSpec& spec) {
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    const std::uint32_t experts = spec.is_moe_layer(LayerId{l}) ? spec.num_experts(LayerId{l}) : 1;
    for (std::uint32_t e = 0; e < experts; ++e) {
      if (has_neurons(spec, LayerId{l}, ExpertId{e})) return true;
    }
  }
  return false;
}

std::vector<std::unique_ptr<NeuronFilter>> make_filters(const SparsityRequest& request,
                                                        const model::Checkpoint& checkpoint,
                                                        std::span<const LayerSample> samples,
                                                        os::ThreadPool& pool) {
  const model::ModelSpec& spec = checkpoint.spec();
  WINNOW_CHECK(!request.system->needs_calibration || samples.size() == spec.num_hidden_layers);
  std::vector<std::unique_ptr<NeuronFilter>> filters;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    const LayerId layer{l};
    const LayerNeurons neurons{
        spec.is_moe_layer(layer) ? spec.num_experts(layer) : 1,
        [&checkpoint, layer](ExpertId expert) { return read_down(checkpoint, layer, expert); },
        samples.empty() ? nullptr : &samples[l], pool};
    filters.push_back(request.system->make(request.level, neurons));
  }
  return filters;
}

std::size_t share_of(double share, std::size_t count) {
  const auto wanted = std::llround(share * static_cast<double>(count));
  return std::min(count, static_cast<std::size_t>(wanted));
}

double lower_quantile(std::vector<double> values, double share) {
  const std::size_t count = share_of(share, values.size());
  if (count == 0) return 0;
  const auto last = values.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(values.begin(), last, values.end());
  return *last;
}

void drop_smallest(std::span<const double> scores, std::size_t count,
                   std::span<std::uint8_t> drop) {
  if (count == 0) return;
  std::vector<std::uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0U);
  const auto last = order.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(order.begin(), last, order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return scores[a] != scores[b] ? scores[a] < scores[b] : a > b;
  });
  for (std::size_t i = 0; i < count; ++i) drop[order[i]] = 1;
}

std::vector<double> column_norms(tensor::MatrixView<const float> down) {
  std::vector<double> norms(down.cols);
  for (std::size_t r = 0; r < down.rows; ++r) {
    const auto row = down.row(r);
    for (std::size_t i = 0; i < norms.size(); ++i) norms[i] += double{row[i]} * row[i];
  }
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

std::vector<std::vector<double>> output_norms(const LayerNeurons& layer) {
  std::vector<std::vector<double>> norms;
  for (std::uint32_t e = 0; e < layer.experts; ++e) {
    norms.push_back(column_norms(std::as_const(layer).down(ExpertId{e}).view()));
  }
  return norms;
}

}  // namespace winnow::metrics
