// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reference for the kernels of the Hessian quantiser, one row after the other.
#include <algorithm>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {
namespace {

void try_row(const SubBlockTrial& task, std::size_t row, SubBlockChoice& out) {
  const float step = task.steps[row];
  const float offset = task.offsets[row];
  const float inverse = quant::BlockGrid::inverse_step(step);
  float gradient[quant::kSuperBlock];
  for (std::size_t i = 0; i < task.size; ++i) {
    gradient[i] = task.gradients[i * kRoundedRows + row];
    out.values[i * kRoundedRows + row] = task.values[i * kRoundedRows + row];
  }
  double change = 0;
  for (int pass = 0; pass < 2; ++pass) {
    for (std::size_t i = 0; i < task.size; ++i) {
      const float* const h = task.h + i * task.stride;
      float& value = out.values[i * kRoundedRows + row];
      const float target = value - gradient[i] / h[i];
      const std::uint8_t code = task.rounder->nearest((target + offset) * inverse);
      const float chosen = step * task.rounder->level(code) - offset;
      const float moved = chosen - value;
      change += double{moved} * (2.0 * gradient[i] + double{moved} * h[i]);
      for (std::size_t j = 0; j < task.size; ++j) gradient[j] += moved * h[j];
      value = chosen;
      out.codes[i * kRoundedRows + row] = code;
    }
  }
  out.changes[row] = change;
}

void feed_back_row(const FeedbackBlock& task, std::size_t row) {
  for (std::size_t i = 0; i < task.size; ++i) {
    const std::size_t sub = task.sub_blocks[i] * kRoundedRows + row;
    const float* const factor = task.factor + i * task.stride;
    const float target = task.targets[i * kRoundedRows + row];
    const float inverse = quant::BlockGrid::inverse_step(task.steps[sub]);
    const std::uint8_t code = task.rounder->nearest((target + task.offsets[sub]) * inverse);
    const float value = task.steps[sub] * task.rounder->level(code) - task.offsets[sub];
    const float error = (target - value) * (1.0F / factor[i]);
    for (std::size_t later = i + 1; later < task.size; ++later) {
      task.targets[later * kRoundedRows + row] -= error * factor[later];
    }
    task.errors[i * kRoundedRows + row] = error;
    task.codes[i * kRoundedRows + row] = code;
  }
}

}  // namespace

void multiply(const FloatProduct& task) noexcept {
  for (std::size_t i = 0; i < task.out.rows; ++i) {
    for (std::size_t j = 0; j < task.out.cols; ++j) {
      float sum = task.add ? task.out.row(i)[j] : 0.0F;
      for (std::size_t t = 0; t < task.b.rows; ++t) {
        const float left = task.scale * task.a[i * task.row_stride + t * task.column_stride];
        sum += left * task.b.data[t * task.b.row_stride + j];
      }
      task.out.row(i)[j] = sum;
    }
  }
}

void try_sub_block(const SubBlockTrial& task, SubBlockChoice& out) noexcept {
  for (std::size_t row = 0; row < kRoundedRows; ++row) try_row(task, row, out);
}

void feed_back(const FeedbackBlock& task) noexcept {
  for (std::size_t row = 0; row < kRoundedRows; ++row) feed_back_row(task, row);
}

std::size_t cheapest_move(const MoveSearch& task) noexcept {
  std::size_t best = task.size;
  float least = 0;
  for (std::size_t j = 0; j < task.size; ++j) {
    task.gradient[j] = task.from[j] + task.by * task.h_row[j];
    const float slope = 2 * task.gradient[j];
    const float up = task.up[j] * (slope + task.up[j] * task.diagonal[j]);
    const float down = task.down[j] * (slope + task.down[j] * task.diagonal[j]);
    const float cost = std::min(down, up);
    if (!(cost < least)) continue;
    least = cost;
    best = j;
  }
  return best;
}

}  // namespace winnow::kernels::scalar
