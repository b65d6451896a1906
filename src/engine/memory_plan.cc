// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"
#include "engine/cost.h"
#include "engine/kv_cache.h"
#include "engine/weights.h"

namespace winnow::engine {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
// Lists, messages, what the allocator keeps between pieces. Measured beside a limit in
// tests/cli/memory_test.py.
constexpr std::uint64_t kReserve = 6 * kMiB;
// What a thread touches of its stack.
constexpr std::uint64_t kStack = 128 << 10;
constexpr unsigned kReadThreads = 5;
// A page of 4 KiB has an entry of 8 bytes in the system's tables.
constexpr std::uint64_t kPagesPerEntry = 512;
// Reads on their way: 20 ms of a disk of 0.9 GB/s, and no large part of a small budget.
constexpr std::uint64_t kMostReads = 16 * kMiB;
constexpr std::uint64_t kShareOfReads = 16;
// A prompt that runs in larger pieces reads experts less often, and takes their slots.
constexpr std::uint64_t kShareOfActivations = 8;
// Minima are told in these steps, beyond what differs between two runs of a process.
constexpr std::uint64_t kStep = 4 * kMiB;
// What lists of experts take: catalogue, layout, state, and the catalogue once more while loading.
constexpr std::uint64_t kListsPerExpert = 2 * sizeof(experts::ExpertSource) + 512;

/// Memory of an os::AlignedBuffer, whose last page may be a large one.
std::uint64_t buffer_memory(std::uint64_t bytes) {
  return bytes < 2 * kMiB ? checked_align_up(bytes, 4096).value() : bytes + 2 * kMiB;
}

/// The largest os::AlignedBuffer that takes no more than that.
std::uint64_t buffer_within(std::uint64_t memory) {
  if (memory < 2 * kMiB) return memory;
  return std::max(memory - 2 * kMiB, 2 * kMiB - 4096);
}

/// Activations of so many tokens, as the blocks keep them.
std::uint64_t activation_memory(const model::ModelSpec& spec, std::size_t tokens) {
  const std::uint64_t attention = 3 * std::uint64_t{spec.query_width()} +
                                  3 * std::uint64_t{spec.key_value_width()} + spec.head_dim;
  const std::uint64_t slot =
      std::uint64_t{2} * spec.moe.moe_intermediate_size + std::uint64_t{2} * spec.hidden_size + 8;
  std::uint64_t experts = 0;
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.is_moe_layer(LayerId{layer})) continue;
    experts = std::max<std::uint64_t>(experts, spec.num_experts(LayerId{layer}));
  }
  const std::uint64_t token = 4 * std::uint64_t{spec.hidden_size} + attention + experts +
                              spec.moe.top_k * slot + 2 * std::uint64_t{spec.intermediate_size};
  // A quarter more for the int8 forms with their scales, and for growth.
  return tokens * token * sizeof(float) * 5 / 4;
}

/// What has to be there whatever the experts get.
class Needs {
 public:
  Needs(const model::Checkpoint& checkpoint, const MemoryNeeds& needs)
      : spec_(checkpoint.spec()),
        needs_(needs),
        catalogue_(catalogue_experts(checkpoint)),
        layout_(catalogue_),
        dense_(DenseWeights::sizes(checkpoint)) {
    scratch_ = needs.threads * (buffer_memory(std::max(dense_.scratch, scratch_bytes(catalogue_))) +
                                buffer_memory(kernels::attention_scratch_bytes(spec_.head_dim)));
    for (const auto& layer : catalogue_) num_experts_ += layer.size();
  }

  MemoryPlan plan(Bytes budget) const;
  std::uint64_t least() const {
    return rounded(with_reads(fixed(needs_.least_tokens) + least_slots()));
  }
  std::uint64_t least_resident() const {
    return rounded(with_reads(fixed(needs_.least_tokens) + buffer_memory(layout_.all().value)));
  }

 private:
  /// With the page tables of the whole and a step for what differs between runs.
  static std::uint64_t rounded(std::uint64_t bytes) {
    return checked_align_up(bytes + bytes / kPagesPerEntry + kStep, kStep).value();
  }
  std::uint64_t reserve() const {
    return needs_.other.value + kReserve + (needs_.threads + kReadThreads) * kStack +
           num_experts_ * kListsPerExpert;
  }
  std::uint64_t kv_caches() const {
    if (needs_.positions == 0) return 0;
    const Bytes one =
        kv_cache_memory(spec_, spec_.num_hidden_layers, needs_.positions, needs_.kv_type);
    return needs_.caches * buffer_memory(one.value);
  }
  std::uint64_t activations(std::size_t tokens) const {
    return activation_memory(spec_, tokens) +
           (needs_.logit_rows + 1) * std::uint64_t{spec_.vocab_size} * sizeof(float);
  }
  std::uint64_t fixed(std::size_t tokens) const {
    return needs_.process.value + reserve() + buffer_memory(dense_.memory.value) + kv_caches() +
           activations(tokens) + scratch_;
  }
  std::uint64_t least_slots() const { return buffer_memory(layout_.minimum(top_k()).value); }
  std::uint64_t reads(std::uint64_t budget) const {
    const std::uint64_t largest = layout_.minimum(1).value;
    return std::max(std::min(kMostReads, budget / kShareOfReads), largest);
  }
  /// The whole of which reads take their share.
  std::uint64_t with_reads(std::uint64_t others) const {
    return others + std::max(reads(0), std::min(kMostReads, others / (kShareOfReads - 1)));
  }
  std::size_t tokens_within(std::uint64_t budget, std::uint64_t experts) const;
  std::size_t top_k() const { return spec_.moe.top_k; }

  const model::ModelSpec& spec_;
  const MemoryNeeds& needs_;
  const experts::ExpertCatalogue catalogue_;
  const experts::SlotLayout layout_;
  const DenseWeights::Sizes dense_;
  std::uint64_t scratch_ = 0;
  std::size_t num_experts_ = 0;
};

std::size_t Needs::tokens_within(std::uint64_t budget, std::uint64_t experts) const {
  std::size_t tokens = std::max(needs_.tokens, needs_.least_tokens);
  while (tokens > needs_.least_tokens &&
         (activations(tokens) > budget / kShareOfActivations || fixed(tokens) + experts > budget)) {
    tokens = std::max(tokens / 2, needs_.least_tokens);
  }
  return tokens;
}

MemoryPlan Needs::plan(Bytes given) const {
  const std::uint64_t tables = given.value / kPagesPerEntry;
  const std::uint64_t budget = given.value - tables;
  MemoryPlan plan;
  plan.budget = given;
  plan.minimum = {least()};
  plan.process = needs_.process;
  plan.reserve = {reserve() + tables};
  plan.dense = {buffer_memory(dense_.memory.value)};
  plan.kv_caches = {kv_caches()};
  plan.scratch = {scratch_};
  plan.all_experts = layout_.all();
  plan.reads = {reads(given.value)};
  const std::uint64_t all = buffer_memory(layout_.all().value);
  const bool fits = fixed(needs_.least_tokens) + plan.reads.value + all <= budget;
  // Not at the cost of holding all experts.
  plan.tokens = tokens_within(budget, plan.reads.value + (fits ? all : least_slots()));
  plan.activations = {activations(plan.tokens)};
  const std::uint64_t left = budget - fixed(plan.tokens) - plan.reads.value;
  plan.slots = layout_.divide({buffer_within(left)}, top_k());
  plan.experts = {buffer_memory(experts::total_bytes(plan.slots).value)};
  plan.resident = true;
  for (const experts::SlotClass& c : plan.slots) {
    plan.resident = plan.resident && c.slots == c.experts;
  }
  return plan;
}

}  // namespace

double MemoryPlan::covered() const {
  if (resident) return 1;
  double held = 0;
  double all = 0;
  for (const experts::SlotClass& c : slots) {
    held += static_cast<double>(c.bytes) * static_cast<double>(c.slots);
    all += static_cast<double>(c.bytes) * static_cast<double>(c.experts);
  }
  return held / all;
}

bool MemoryPlan::below_cycle() const {
  if (resident) return false;
  const double used = static_cast<double>(token_cycle.value);
  constexpr double kRounding = 1.05;  // of an expert's bytes to whole blocks
  return static_cast<double>(experts::total_bytes(slots).value) <= kRounding * used;
}

MemoryPlan plan_memory(const model::Checkpoint& checkpoint, const MemoryNeeds& needs,
                       Bytes budget) {
  const Needs all(checkpoint, needs);
  if (budget.value < all.least()) {
    fail(ErrorCode::kBudget,
         "{} of memory are too few for {}: it takes at least {} ({} bytes) with {} positions; give "
         "more, or use a smaller --context or a smaller file",
         format_bytes(budget), checkpoint.file().name(), format_bytes({all.least()}), all.least(),
         needs.positions);
  }
  MemoryPlan plan = all.plan(budget);
  plan.token_cycle = {static_cast<std::uint64_t>(token_cost(checkpoint).expert_bytes)};
  WINNOW_CHECK(plan.total() <= budget);
  return plan;
}

MemoryRange memory_range(const model::Checkpoint& checkpoint, const MemoryNeeds& needs) {
  const Needs all(checkpoint, needs);
  return {{all.least()}, {all.least_resident()}};
}

EngineOptions within(const MemoryPlan& plan, EngineOptions options) {
  options.weights = WeightMemory::kCopiedAlone;
  if (!options.expert_cache) options.expert_cache.emplace();
  options.expert_cache->slots = experts::total_bytes(plan.slots);
  options.expert_cache->reader.in_flight = plan.reads;
  return options;
}

}  // namespace winnow::engine
