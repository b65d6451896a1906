// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/damage.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace winnow::compress {

std::vector<NoisePoint> noise_points(const TensorGroup& group, const model::Checkpoint& source) {
  // Compensated rounding errs about a quarter as much as plain rounding, which one bit more brings
  // as well: the last two stand for about 4.5 and 2.5 bits. Of the first, which errs next to
  // nothing, the rounding of activations is seen.
  constexpr double kBits[] = {16, 5.5, 3.4};
  std::vector<NoisePoint> points;
  for (const double bits : kBits) {
    const quant::Codec* nearest = nullptr;
    for (const GroupOption& option : group.options) {
      if (is_stored_as(source, group, *option.codec) || option.codec->is_float()) continue;
      const auto distance = [bits](const quant::Codec& codec) {
        return std::fabs(codec.bits_per_weight() - bits);
      };
      if (nearest == nullptr || distance(*option.codec) < distance(*nearest)) {
        nearest = option.codec;
      }
    }
    if (nearest == nullptr || (!points.empty() && points.back().codec == nearest)) continue;
    points.push_back({nearest, 0, 0});
  }
  return points;
}

std::vector<metrics::Window> sweep_windows(std::span<const TensorGroup> groups,
                                           const model::ModelSpec& spec,
                                           const metrics::WindowSet& probe,
                                           std::uint64_t calibration_tokens) {
  constexpr std::uint64_t kPiece = 128;  // tokens of a beginning
  const std::uint64_t layers = spec.num_hidden_layers;
  std::uint64_t passes = 1;  // of the probe through a layer
  for (const TensorGroup& group : groups) {
    const bool per_layer = model::traits(group.role).per_layer;
    const std::uint64_t behind = group.role == model::Role::kOutput ? 0 : layers;
    passes += group.noise.size() * (per_layer ? layers - index(group.layer) : behind);
  }
  const std::uint64_t most = std::max(kMostSweepTokens, calibration_tokens * layers);
  if (passes * probe.scored_tokens() <= most) return probe.windows;
  const std::uint64_t wanted = std::max(kLeastSweepTokens, most / passes);
  const std::uint64_t count = std::clamp<std::uint64_t>(wanted / kPiece, 1, probe.windows.size());
  const std::uint64_t length = std::max<std::uint64_t>(2, wanted / count);
  std::vector<metrics::Window> pieces;
  for (std::uint64_t i = 0; i < count; ++i) {
    pieces.push_back(probe.windows[i * probe.windows.size() / count]);
    auto& tokens = pieces.back().tokens;
    if (tokens.size() > length) tokens.resize(length);
  }
  return pieces;
}

void measure_noise(std::vector<TensorGroup>& groups, GroupPacker& packer,
                   engine::LayerRunner& runner, const model::ModelSpec& spec,
                   const WindowBatches& probe, const SweepMemory& memory, Log& log) {
  std::vector<WeightVariant> variants;
  std::vector<NoisePoint*> points;
  for (TensorGroup& group : groups) {
    for (NoisePoint& point : group.noise) {
      if (!(point.error > 0)) continue;
      points.push_back(&point);
      variants.emplace_back();
      variants.back().changes[key_of(group)] = [&packer, &group, &point] {
        return packer.noise(group, point);
      };
    }
  }
  const std::vector<double> divergences =
      measure_divergences(runner, spec, probe, variants, memory, log);
  for (std::size_t i = 0; i < points.size(); ++i) points[i]->kl = std::max(divergences[i], 0.0);
}

double expected_kl(std::span<const NoisePoint> noise, double error) {
  const NoisePoint* below = nullptr;
  const NoisePoint* above = nullptr;
  for (const NoisePoint& point : noise) {
    if (!(point.error > 0)) continue;
    if (point.error <= error && (below == nullptr || point.error > below->error)) below = &point;
    if (point.error > error && (above == nullptr || point.error < above->error)) above = &point;
  }
  if (below == nullptr && above == nullptr) return 0;
  if (below == nullptr || above == nullptr || !(below->kl > 0) || !(above->kl > below->kl)) {
    const NoisePoint& nearest = below == nullptr ? *above : *below;
    return nearest.kl * (error / nearest.error);
  }
  const double share = std::log(error / below->error) / std::log(above->error / below->error);
  return below->kl * std::pow(above->kl / below->kl, share);
}

void predict_damage(std::vector<TensorGroup>& groups) {
  for (TensorGroup& group : groups) {
    // Not of the finest, where the rounding of activations outweighs that of weights.
    for (const NoisePoint& point : group.noise) {
      if (!(point.error > 0)) continue;
      group.kl_per_error = point.kl / point.error;
      if (&point != &group.noise.front()) break;
    }
    for (GroupOption& option : group.options) {
      option.predicted_kl = option.error > 0 ? expected_kl(group.noise, option.error) : 0;
      if (!(option.predicted_kl > 0) || option.codec->is_float() || group.noise.size() < 2)
        continue;
      option.predicted_kl = std::max(option.predicted_kl, group.noise.front().kl);
    }
  }
}

void predict_without_text(std::vector<TensorGroup>& groups, std::uint64_t parameters) {
  for (TensorGroup& group : groups) {
    for (GroupOption& option : group.options) {
      option.predicted_kl =
          option.error * static_cast<double>(group.weights) / static_cast<double>(parameters);
    }
  }
}

}  // namespace winnow::compress
