// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Where every byte goes under a limit of memory, before anything is read.
#pragma once

#include <cstddef>
#include <vector>

#include "base/units.h"
#include "engine/engine.h"
#include "experts/slot_layout.h"
#include "kernels/key_values.h"
#include "model/checkpoint.h"

namespace winnow::engine {

/// What a command will do with the model.
struct MemoryNeeds {
  std::size_t positions = 0;      ///< of each cache of keys and values
  std::size_t caches = 1;         ///< sequences
  std::size_t tokens = 512;       ///< run together if there is room
  std::size_t least_tokens = 16;  ///< run together at least
  std::size_t logit_rows = 1;     ///< rows of logits at a time
  kernels::KvType kv_type = kernels::KvType::kF32;
  unsigned threads = 1;
  Bytes other;    ///< what the command itself will hold besides
  Bytes process;  ///< held by the process by now, the model's headers and tokenizer included
};

/// Sums to at most the budget.
struct MemoryPlan {
  Bytes budget;
  Bytes minimum;  ///< the smallest budget with these needs, rounded up
  Bytes process;  ///< held before the weights are read
  Bytes reserve;  ///< what nobody counts singly: stacks, lists, page tables, fragmentation
  Bytes dense;    ///< all weights but the routed experts
  Bytes kv_caches;
  Bytes activations;       ///< of `tokens` tokens, and logits
  Bytes scratch;           ///< of all threads
  Bytes reads;             ///< passing through the page cache where it cannot be avoided
  Bytes experts;           ///< slots
  std::size_t tokens = 0;  ///< run together at most
  bool resident = false;   ///< there is a slot for each expert: it is read once
  std::vector<experts::SlotClass> slots;
  Bytes all_experts;  ///< slots for all
  Bytes token_cycle;  ///< of experts that one token uses, Z

  Bytes total() const {
    return process + reserve + dense + kv_caches + activations + scratch + reads + experts;
  }
  /// Share of the bytes of all experts that is in memory, 0 to 1.
  double covered() const;
  /// Whether the experts of one token take all slots, or more: then those that were used last are
  /// gone when they are wanted again.
  bool below_cycle() const;
};

/// Throws Error{kBudget} that names the minimum when `budget` is below it.
MemoryPlan plan_memory(const model::Checkpoint& checkpoint, const MemoryNeeds& needs, Bytes budget);

/// What the model needs at least, and to hold all its experts; rounded up.
struct MemoryRange {
  Bytes minimum;
  Bytes resident;
};
MemoryRange memory_range(const model::Checkpoint& checkpoint, const MemoryNeeds& needs);

/// `options` for an engine that stays within the plan. Other members of the expert cache stay.
EngineOptions within(const MemoryPlan& plan, EngineOptions options);

}  // namespace winnow::engine
