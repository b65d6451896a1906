// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// From errors of layer outputs to divergence of the whole model.
#pragma once

#include <span>
#include <vector>

#include "compress/divergence_sweep.h"
#include "compress/group_packer.h"
#include "compress/tensor_group.h"

namespace winnow::compress {

/// The finest rounded type of a group, and two whose plain rounding errors lie at both ends of what
/// its smaller options will err by, the finer first; fewer where there are fewer.
std::vector<NoisePoint> noise_points(const TensorGroup& group, const model::Checkpoint& source);

/// The windows of `probe` that `measure_noise` reads: all; or, where a model has so many layers
/// that running each noise point through all layers behind it would cost more than kMostSweepTokens
/// tokens in one layer and more than a pass of `calibration_tokens` through the model, beginnings
/// of windows spread over the probe, at least kLeastSweepTokens tokens in all.
std::vector<metrics::Window> sweep_windows(std::span<const TensorGroup> groups,
                                           const model::ModelSpec& spec,
                                           const metrics::WindowSet& probe,
                                           std::uint64_t calibration_tokens);
inline constexpr std::uint64_t kMostSweepTokens = std::uint64_t{1} << 21;
inline constexpr std::uint64_t kLeastSweepTokens = 512;

/// Measures `kl` of all noise points in one sweep: the model with one group's weights rounded, all
/// others as they are.
void measure_noise(std::vector<TensorGroup>& groups, GroupPacker& packer,
                   engine::LayerRunner& runner, const model::ModelSpec& spec,
                   const WindowBatches& probe, const SweepMemory& memory, Log& log);

/// Divergence that an error of a group is expected to cause: on the line through the origin below
/// the smallest noise and above the largest, and between two points on the straight line through
/// them in logarithms. 0 without noise points.
double expected_kl(std::span<const NoisePoint> noise, double error);

/// Fills `predicted_kl` of all options and `kl_per_error` from the noise points. Types that round
/// cost no less than the finest of them: activations are rounded with it.
void predict_damage(std::vector<TensorGroup>& groups);

/// The same in no unit: each group's relative error counts by its share of the model's weights.
void predict_without_text(std::vector<TensorGroup>& groups, std::uint64_t parameters);

}  // namespace winnow::compress
