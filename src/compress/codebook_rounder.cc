// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/codebook_rounder.h"

#include <algorithm>
#include <cmath>

namespace winnow::compress {
namespace {

/// Gains below this share of sum_j metric_jj d_j^2 are rounding noise of the gradient.
constexpr double kRounderNoise = 1e-6;

}  // namespace

/// The codes as they stand, and the best change of one stretch of them that was seen.
struct CodebookRounder::State {
  const quant::BlockGrid& grid;
  float step;
  std::uint8_t* codes;
  float weights[kSize];  // the diagonal
  float values[kSize];
  float gradient[kSize];
  double total = 0;

  std::size_t first = 0;
  std::size_t count = 0;
  double change = 0;
  std::uint8_t best[kSize];

  State(const quant::BlockGrid& all_codes, ConstMatrix metric, const float* slope, float scale,
        std::uint8_t* present)
      : grid(all_codes), step(scale), codes(present) {
    for (std::size_t j = 0; j < kSize; ++j) {
      weights[j] = metric.row(j)[j];
      values[j] = value_of(codes[j]);
      gradient[j] = slope[j];
    }
  }

  float value_of(std::uint8_t code) const { return step * static_cast<float>(grid.levels[code]); }
  /// Where the loss would be least along coordinate j.
  float wanted(std::size_t j) const { return values[j] - gradient[j] / weights[j]; }

  void begin(std::size_t at, std::size_t size) {
    first = at;
    count = size;
    change = 0;
  }

  /// Remembers `candidate` [count] if no better one was seen.
  void consider(ConstMatrix metric, const std::uint8_t* candidate) {
    double moves[kSize];
    double difference = 0;
    double noise = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t j = first + i;
      moves[i] = double{value_of(candidate[i])} - values[j];
      if (moves[i] == 0) continue;
      const auto row = metric.row(j);
      double curved = double{row[j]} * moves[i];
      noise += curved * moves[i];
      for (std::size_t k = 0; k < i; ++k) curved += 2 * moves[k] * row[first + k];
      difference += moves[i] * (2.0 * gradient[j] + curved);
    }
    if (!(difference < change && difference < -kRounderNoise * noise)) return;
    change = difference;
    std::copy_n(candidate, count, best);
  }

  /// Makes the remembered change.
  void accept(ConstMatrix metric) {
    if (!(change < 0)) return;
    for (std::size_t i = 0; i < count; ++i) {
      const float moved = value_of(best[i]) - values[first + i];
      if (moved == 0) continue;
      const auto row = metric.row(first + i);
      for (std::size_t k = 0; k < kSize; ++k) gradient[k] += moved * row[k];
      values[first + i] += moved;
    }
    std::copy_n(best, count, codes + first);
    total += change;
  }
};

void CodebookRounder::choose(ConstMatrix metric, const float* target, float step,
                             std::uint8_t* codes) const {
  constexpr int kRounds = 3;
  float weights[kSize];
  for (std::size_t j = 0; j < kSize; ++j) weights[j] = metric.row(j)[j];
  kernels_.choose_points(book_, target, weights, step, codes);
  for (int round = 0; round < kRounds; ++round) {
    float errors[kSize];
    float gradient[kSize];
    for (std::size_t j = 0; j < kSize; ++j) {
      errors[j] = step * static_cast<float>(grid_.levels[codes[j]]) - target[j];
    }
    for (std::size_t j = 0; j < kSize; ++j) {
      gradient[j] = 0;
      for (std::size_t k = 0; k < kSize; ++k) gradient[j] += metric.row(j)[k] * errors[k];
    }
    if (improve(metric, gradient, step, codes) == 0) return;
  }
}

double CodebookRounder::improve(ConstMatrix metric, const float* gradient, float step,
                                std::uint8_t* codes) const {
  State state(grid_, metric, gradient, step, codes);
  float target[kSize];
  for (std::size_t j = 0; j < kSize; ++j) target[j] = state.wanted(j);
  std::uint8_t candidate[kSize];
  kernels_.choose_points(book_, target, state.weights, step, candidate);
  state.begin(0, kSize);
  state.consider(metric, candidate);
  state.accept(metric);
  for (std::size_t group = 0; group < kSize; group += book_.group) {
    state.begin(group, book_.group);
    try_points(metric, group, state);
    try_single_weights(metric, group, state);
    state.accept(metric);
  }
  return state.total;
}

quant::SignParity CodebookRounder::parity_of_others(std::size_t group, const State& state) const {
  if (!book_.even_signs) return quant::SignParity::kAny;
  bool odd = false;
  for (std::size_t j = 0; j < kSize; ++j) {
    if (j >= group && j < group + book_.group) continue;
    odd ^= grid_.levels[state.codes[j]] < 0;
  }
  return odd ? quant::SignParity::kOdd : quant::SignParity::kEven;
}

/// The points near the least loss along each coordinate.
void CodebookRounder::try_points(ConstMatrix metric, std::size_t group, State& state) const {
  constexpr std::size_t kCount = quant::Codebook::kMostChoices;
  float target[kSize];
  for (std::size_t i = 0; i < book_.group; ++i) target[i] = state.wanted(group + i);
  std::uint8_t found[kCount * kSize];
  kernels_.nearest_points(book_, target, state.weights + group, state.step,
                          parity_of_others(group, state), kCount, found);
  for (std::size_t c = 0; c < kCount; ++c) state.consider(metric, found + c * book_.group);
}

/// One coordinate to its least loss and the others as they are: the points near that.
void CodebookRounder::try_single_weights(ConstMatrix metric, std::size_t group,
                                         State& state) const {
  constexpr std::size_t kCount = 2;
  const quant::SignParity parity = parity_of_others(group, state);
  std::uint8_t found[kCount * kSize];
  for (std::size_t i = 0; i < book_.group; ++i) {
    // Half the distance of the closest levels: less does not reach another one.
    const float shift = state.gradient[group + i] / state.weights[i + group];
    if (!(std::fabs(shift) > std::fabs(state.step) * grid_.codebook->least_half_gap)) continue;
    float target[kSize];
    std::copy_n(state.values + group, book_.group, target);
    target[i] -= shift;
    kernels_.nearest_points(book_, target, state.weights + group, state.step, parity, kCount,
                            found);
    for (std::size_t c = 0; c < kCount; ++c) state.consider(metric, found + c * book_.group);
  }
}

}  // namespace winnow::compress
