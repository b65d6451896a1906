// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/memory_plan.h"

#include <algorithm>

#include "base/error.h"
#include "compress/correction.h"
#include "compress/divergence_sweep.h"
#include "compress/expert_refinement.h"
#include "compress/knapsack.h"
#include "compress/layer_hessians.h"
#include "compress/moments.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "os/memory.h"

namespace winnow::compress {
namespace {

// What the process itself, allocator and thread stacks included, may grow by.
constexpr std::uint64_t kSlack = std::uint64_t{16} << 20;
// A matrix under work: decoded stretch, codes, packed bytes and the tiles of the threads.
constexpr std::uint64_t kStretch = std::uint64_t{4} << 20;
constexpr std::uint64_t kStretchBytesPerWeight = 12;
// Per element of a Hessian under work: dense f32 of both texts, two damped forms of 8 bytes, and
// three f64 matrices while one is factored.
constexpr std::uint64_t kBytesPerHessianElement = 48;

std::uint64_t square(std::uint64_t x) { return x * x; }

/// For experts that lose inner channels: besides the Hessians of the channels that stay, the
/// expert's own and f64 matrices while these are chosen, an expert's matrix twice, and the down
/// projections of a layer that stand for the narrowed ones, in F32 at most. Rows of gate and up are
/// the source's, and counted with it.
std::uint64_t narrowing_bytes(const model::Checkpoint& source,
                              std::span<const TensorGroup> groups) {
  constexpr std::uint64_t kBytesPerElement = 80;
  std::uint64_t most = 0;
  for (const TensorGroup& group : groups) {
    if (group.width == 0 || group.role != model::Role::kExpertDownProj) continue;
    const std::uint64_t channels = source.spec().moe.moe_intermediate_size;
    const std::uint64_t matrix = group.rows * channels * sizeof(float);
    most = std::max(most, kBytesPerElement * square(channels) + (2 + group.parts) * matrix);
  }
  return most;
}

/// Options of all groups, each expert's apart, as they are copied while a mix is chosen; the
/// constants of experts, and what is collected to choose among replacements.
std::uint64_t expert_tables(const model::ModelSpec& spec, std::span<const TensorGroup> groups,
                            const ExpertOptions& experts) {
  if (!experts.any()) return 0;
  constexpr std::uint64_t kBytesPerOption = 4 * sizeof(GroupOption);
  std::uint64_t options = 0;
  for (const TensorGroup& group : groups) {
    options += group.options.size() * (model::traits(group.role).per_expert ? group.parts : 1);
  }
  return options * kBytesPerOption + (experts.replacements.empty() ? 0 : refinement_bytes(spec));
}

/// One slot a token more than the model has, and where matrices are shared the outputs once more.
std::uint64_t expert_batch(const model::ModelSpec& spec, const ExpertOptions& experts,
                           std::size_t tokens) {
  if (!experts.narrow && experts.replacements.empty()) return 0;
  const std::uint64_t slots = 1 + spec.moe.top_k;
  const std::uint64_t inner = spec.moe.moe_intermediate_size;
  return tokens * (slots * spec.hidden_size + 3 * inner + 2 * spec.hidden_size) * sizeof(float);
}

std::size_t items_of(std::span<const TensorGroup> groups, const ExpertOptions* experts) {
  std::size_t items = 0;
  for (const TensorGroup& group : groups) {
    const bool apart = experts != nullptr && experts->any() && model::traits(group.role).per_expert;
    if (group.width == 0) items += apart ? group.parts : 1;
  }
  return items;
}

struct Needs {
  std::uint64_t fixed = 0;    // whatever the batch
  std::uint64_t batch = 0;    // activations
  std::uint64_t states = 0;   // before and after a layer, of the calibration text, in memory
  std::uint64_t hessian = 0;  // sums of one expert, or of the dense inputs of a layer
  std::uint64_t ratios = 0;   // router weights of a layer, of the whole text
  std::uint64_t knapsack = 0;
};

std::size_t longest_window(const CalibrationText& text) {
  std::size_t longest = 1;
  for (const auto* set : {&text.calibration, &text.held_out, &text.probe}) {
    for (const metrics::Window& window : set->windows) {
      longest = std::max(longest, window.tokens.size());
    }
  }
  return longest;
}

std::uint64_t tokens_of(const metrics::WindowSet& set) {
  std::uint64_t tokens = 0;
  for (const metrics::Window& window : set.windows) tokens += window.tokens.size();
  return tokens;
}

/// What a layer's groups are read through, both texts.
std::uint64_t least_hessians(const model::ModelSpec& spec, std::span<const TensorGroup> groups) {
  std::uint64_t dense = 0;
  std::uint64_t expert = 0;
  std::vector<engine::Site> seen;
  for (const TensorGroup& group : groups) {
    const engine::Site site = site_of(group.role);
    if (std::find(seen.begin(), seen.end(), site) != seen.end()) continue;
    seen.push_back(site);
    // An expert's sums lie beside those of its layer.
    (model::traits(group.role).per_expert ? expert : dense) += 2 * hessian_bytes(spec, site).value;
  }
  return std::max(dense, 2 * expert);
}

Needs needs_of(const model::Checkpoint& source, std::span<const TensorGroup> groups,
               const CalibrationText* text) {
  const model::ModelSpec& spec = source.spec();
  const std::uint64_t weights = engine::LayerRunner::largest_weights(source).value;
  std::uint64_t widest = 0;
  std::uint64_t stretch = 0;
  std::uint64_t fitting = 0;
  for (const TensorGroup& group : groups) {
    widest = std::max<std::uint64_t>(widest, group.cols);
    stretch = std::max<std::uint64_t>(stretch,
                                      std::min(kStretch, std::uint64_t{group.rows} * group.cols));
    for (const GroupOption& option : group.options) {
      if (option.rank > 0) fitting = std::max(fitting, fitting_bytes(group).value);
    }
  }
  Needs needs;
  needs.fixed = os::resident_memory().value + kSlack + 2 * weights +
                stretch * kStretchBytesPerWeight + fitting +
                kBytesPerHessianElement * square(widest) + narrowing_bytes(source, groups);
  if (text == nullptr) return needs;
  const std::size_t longest = longest_window(*text);
  const std::size_t tokens = std::max(MemoryPlan::kBatchTokens, longest);
  needs.fixed += 2 * kSweepLogitRows * spec.vocab_size * sizeof(float);
  needs.batch = engine::LayerRunner::activations(spec, tokens, longest).value +
                2 * std::uint64_t{tokens} * spec.hidden_size * sizeof(float);
  needs.states = 2 * (tokens_of(text->calibration) + tokens_of(text->held_out)) * spec.hidden_size *
                 sizeof(float);
  needs.hessian = least_hessians(spec, groups);
  return needs;
}

/// What is wished for on top.
void add_wishes(const MemoryWishes& wishes, const model::Checkpoint& source,
                std::span<const TensorGroup> groups, const CalibrationText* text, Needs& needs) {
  const model::ModelSpec& spec = source.spec();
  if (wishes.experts != nullptr && text != nullptr) {
    const std::size_t tokens = std::max(MemoryPlan::kBatchTokens, longest_window(*text));
    needs.fixed += expert_tables(spec, groups, *wishes.experts);
    needs.batch += expert_batch(spec, *wishes.experts, tokens);
  }
  if (wishes.skip_text != nullptr) {
    needs.ratios = tokens_of(*wishes.skip_text) * spec.moe.top_k * sizeof(float);
  }
  if (wishes.solves_knapsack) {
    needs.knapsack = knapsack_memory(items_of(groups, wishes.experts)).value;
  }
}

}  // namespace

MemoryPlan plan_memory(const model::Checkpoint& source, std::span<const TensorGroup> groups,
                       const CalibrationText* text, Bytes limit, const MemoryWishes& wishes) {
  MemoryPlan plan;
  Needs needs = needs_of(source, groups, text);
  add_wishes(wishes, source, groups, text, needs);
  // Ratios are of a run of their own, and the knapsack runs nothing.
  const std::uint64_t least =
      needs.fixed + std::max({needs.batch + std::max(needs.hessian, needs.ratios), needs.knapsack});
  if (least > limit.value) {
    fail(ErrorCode::kBudget,
         "--max-memory: {} bytes are too few; one layer of {} with what is done to it takes {} "
         "bytes ({})",
         limit.value, source.file().name(), least, format_bytes({least}));
  }
  std::uint64_t rest = limit.value - needs.fixed - needs.batch;
  plan.sweep_states = Bytes{rest};
  // Portions of Hessians cost a pass over the text each; states on the disk cost little.
  plan.states_on_disk = needs.states + 4 * needs.hessian > rest;
  if (!plan.states_on_disk) rest -= needs.states;
  plan.hessians = Bytes{rest};
  return plan;
}

}  // namespace winnow::compress
