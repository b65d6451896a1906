// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The kernels of the Hessian quantiser, one lane per row of a tile, on the vector types of GCC and
// Clang: one source for every ISA, whose compiler flags say how many instructions a vector takes.
// Every product and sum is rounded as the scalar reference does it: bit-identical on all ISAs.

// No function with vectors in its signature is ever a call. GCC looks at the setting where the
// target's region ends, so it stays until then.
#pragma GCC diagnostic ignored "-Wpsabi"

static_assert(kRoundedRows == 16);
using RowFloats = float __attribute__((vector_size(64)));
using RowInts = std::int32_t __attribute__((vector_size(64)));
using RowDoubles = double __attribute__((vector_size(128)));
using RowBytes = std::uint8_t __attribute__((vector_size(16)));

WINNOW_INLINE RowFloats load_rows(const float* p) {
  RowFloats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
WINNOW_INLINE void store_rows(float* p, const RowFloats& v) { std::memcpy(p, &v, sizeof v); }
WINNOW_INLINE void store_row_codes(std::uint8_t* p, const RowInts& v) {
  const RowBytes bytes = __builtin_convertvector(v, RowBytes);
  std::memcpy(p, &bytes, sizeof bytes);
}

/// As quant::BlockGrid::inverse_step.
WINNOW_INLINE RowFloats inverse_steps(const RowFloats& steps) {
  const RowFloats magnitudes = steps < 0.0F ? -steps : steps;
  const RowInts small = magnitudes < 0x1p-120F;
  const RowFloats ones = RowFloats{} + 1.0F;
  return small ? RowFloats{} : ones / (small ? ones : steps);
}

struct RowLevels {
  RowInts codes;
  RowFloats levels;
};

/// As quant::LevelRounder::nearest.
WINNOW_INLINE RowLevels nearest_levels(const quant::LevelRounder& rounder, const RowFloats& v) {
  if (rounder.is_uniform()) {
    const RowFloats low = RowFloats{} + rounder.low();
    const RowFloats high = RowFloats{} + rounder.high();
    const RowFloats raised = v < low ? low : v;
    const RowFloats inside = raised > high ? high : raised;
    const RowFloats magic = RowFloats{} + 0x1.8p23F;
    const RowFloats rounded = (inside + magic) - magic;
    return {__builtin_convertvector(rounded - low, RowInts), rounded};
  }
  RowLevels found{RowInts{}, RowFloats{} + rounder.level(0)};
  for (std::size_t i = 0; i < rounder.middles().size(); ++i) {
    const RowInts above = v > RowFloats{} + rounder.middles()[i];
    found.codes -= above;  // minus one where true
    found.levels = above ? RowFloats{} + rounder.level(i + 1) : found.levels;
  }
  return found;
}

void try_sub_block(const SubBlockTrial& task, SubBlockChoice& out) noexcept {
  const RowFloats steps = load_rows(task.steps);
  const RowFloats offsets = load_rows(task.offsets);
  const RowFloats inverses = inverse_steps(steps);
  RowFloats gradients[quant::kSuperBlock];
  for (std::size_t i = 0; i < task.size; ++i) {
    gradients[i] = load_rows(task.gradients + i * kRoundedRows);
  }
  RowDoubles changes{};
  for (int pass = 0; pass < 2; ++pass) {
    const float* const before = pass == 0 ? task.values : out.values;
    for (std::size_t i = 0; i < task.size; ++i) {
      const float* const h = task.h + i * task.stride;
      const RowFloats values = load_rows(before + i * kRoundedRows);
      const RowFloats targets = values - gradients[i] / h[i];
      const RowLevels found = nearest_levels(*task.rounder, (targets + offsets) * inverses);
      const RowFloats chosen = steps * found.levels - offsets;
      const RowFloats moved = chosen - values;
      const RowDoubles moves = __builtin_convertvector(moved, RowDoubles);
      const RowDoubles slopes = __builtin_convertvector(gradients[i], RowDoubles);
      changes += moves * (2.0 * slopes + moves * double{h[i]});
      for (std::size_t j = 0; j < task.size; ++j) gradients[j] += moved * h[j];
      store_rows(out.values + i * kRoundedRows, chosen);
      store_row_codes(out.codes + i * kRoundedRows, found.codes);
    }
  }
  std::memcpy(out.changes, &changes, sizeof changes);
}

/// Takes the errors of columns [first, end) off the targets of the columns from `end` on.
WINNOW_INLINE void feed_forward(const FeedbackBlock& task, std::size_t first, std::size_t end) {
  for (std::size_t later = end; later < task.size; ++later) {
    RowFloats target = load_rows(task.targets + later * kRoundedRows);
    for (std::size_t i = first; i < end; ++i) {
      target -= load_rows(task.errors + i * kRoundedRows) * task.factor[i * task.stride + later];
    }
    store_rows(task.targets + later * kRoundedRows, target);
  }
}

void feed_back(const FeedbackBlock& task) noexcept {
  // So many columns update each other at once, and those after them together.
  constexpr std::size_t kPanel = 8;
  for (std::size_t first = 0; first < task.size; first += kPanel) {
    const std::size_t end = std::min(first + kPanel, task.size);
    for (std::size_t i = first; i < end; ++i) {
      const float* const factor = task.factor + i * task.stride;
      const RowFloats steps = load_rows(task.steps + task.sub_blocks[i] * kRoundedRows);
      const RowFloats offsets = load_rows(task.offsets + task.sub_blocks[i] * kRoundedRows);
      const RowFloats targets = load_rows(task.targets + i * kRoundedRows);
      const RowLevels found =
          nearest_levels(*task.rounder, (targets + offsets) * inverse_steps(steps));
      const RowFloats errors = (targets - (steps * found.levels - offsets)) * (1.0F / factor[i]);
      for (std::size_t later = i + 1; later < end; ++later) {
        const RowFloats target = load_rows(task.targets + later * kRoundedRows);
        store_rows(task.targets + later * kRoundedRows, target - errors * factor[later]);
      }
      store_rows(task.errors + i * kRoundedRows, errors);
      store_row_codes(task.codes + i * kRoundedRows, found.codes);
    }
    feed_forward(task, first, end);
  }
}

/// The smallest lane; values are not NaN.
template <typename T>
WINNOW_INLINE T smallest_of(T* lanes) {
  for (std::size_t half = kRoundedRows / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) {
      lanes[i] = lanes[i + half] < lanes[i] ? lanes[i + half] : lanes[i];
    }
  }
  return lanes[0];
}

std::size_t cheapest_move(const MoveSearch& search) noexcept {
  const MoveSearch task = search;  // which nothing that is written can change
  RowFloats least{};
  RowInts place = RowInts{} - 1;
  std::size_t j = 0;
  for (; j + kRoundedRows <= task.size; j += kRoundedRows) {
    const RowFloats gradient = load_rows(task.from + j) + task.by * load_rows(task.h_row + j);
    store_rows(task.gradient + j, gradient);
    const RowFloats slope = 2.0F * gradient;
    const RowFloats diagonal = load_rows(task.diagonal + j);
    const RowFloats up = load_rows(task.up + j);
    const RowFloats down = load_rows(task.down + j);
    const RowFloats up_cost = up * (slope + up * diagonal);
    const RowFloats down_cost = down * (slope + down * diagonal);
    const RowFloats cost = up_cost < down_cost ? up_cost : down_cost;
    const RowInts better = cost < least;
    least = better ? cost : least;
    place = better ? RowInts{} + static_cast<std::int32_t>(j) : place;
  }
  alignas(64) float costs[kRoundedRows];
  store_rows(costs, least);
  float lowest = smallest_of(costs);
  std::size_t best = task.size;
  if (lowest < 0) {
    constexpr RowInts kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    constexpr std::int32_t kNone = std::numeric_limits<std::int32_t>::max();
    const RowInts lowest_lanes = least == RowFloats{} + lowest;
    const RowInts places = lowest_lanes ? place + kLane : RowInts{} + kNone;
    alignas(64) std::int32_t indices[kRoundedRows];
    std::memcpy(indices, &places, sizeof places);
    best = static_cast<std::size_t>(smallest_of(indices));
  }
  for (; j < task.size; ++j) {
    const float gradient = task.from[j] + task.by * task.h_row[j];
    task.gradient[j] = gradient;
    const float up = task.up[j] * (2.0F * gradient + task.up[j] * task.diagonal[j]);
    const float down = task.down[j] * (2.0F * gradient + task.down[j] * task.diagonal[j]);
    const float cost = up < down ? up : down;
    if (!(cost < lowest)) continue;
    lowest = cost;
    best = j;
  }
  return best;
}
