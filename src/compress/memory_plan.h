// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How the compressor divides the memory that it is given.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/units.h"
#include "compress/calibration_text.h"
#include "compress/expert_options.h"
#include "compress/tensor_group.h"
#include "model/checkpoint.h"

namespace winnow::compress {

struct MemoryPlan {
  /// Tokens that share a pass over a layer's weights, or those of one window. Not fewer where
  /// memory is short: sums over other batches differ in their last bits.
  static constexpr std::size_t kBatchTokens = 1024;
  /// Whether the hidden states of the calibration text are files.
  bool states_on_disk = false;
  /// For the sums of Hessians at a time, and for the states of a sweep; nothing: no limit.
  std::optional<Bytes> hessians, sweep_states;
};

/// What a run does besides.
struct MemoryWishes {
  bool solves_knapsack = false;
  const metrics::WindowSet* skip_text = nullptr;  ///< that skip ratios are measured on; may be null
  const ExpertOptions* experts = nullptr;         ///< may be null
};

/// The plan for `limit` bytes of the whole process, what it has taken so far included: one layer's
/// weights, the same layer packed, a batch, one matrix under work, what is wished for, and of the
/// rest what each step can use. `text` may be null. What a plan chooses changes no bit of the
/// results. Throws Error{kBudget} with the least limit that would do.
MemoryPlan plan_memory(const model::Checkpoint& source, std::span<const TensorGroup> groups,
                       const CalibrationText* text, Bytes limit, const MemoryWishes& wishes = {});

}  // namespace winnow::compress
