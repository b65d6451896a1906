// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The ways to choose a codec for each group of tensors. A further one is a file with its function,
// an enumerator, and a line in the table of allocation.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "compress/calibration_text.h"
#include "compress/group_packer.h"
#include "compress/memory_plan.h"
#include "compress/mix_measurer.h"
#include "compress/mix_problem.h"
#include "compress/mix_search.h"
#include "compress/pmq.h"
#include "compress/ranked_proxies.h"
#include "compress/tensor_group.h"

namespace winnow::compress {

/// How the codecs of the groups are chosen.
enum class Allocation : std::uint8_t {
  kUniform,  ///< one codec for all, the largest that fits
  kPlain,    ///< the same; what options would cost is not measured
  kSlopes,   ///< knapsack over predicted divergence
  kSearch,   ///< the same, refined on measured divergence; without text the same as kSlopes
  kPmq,      ///< the objective of PMQ (pmq.h) within equal budgets of the layers; needs text
  kRanked,   ///< the proxy that agrees best with measured divergence; needs text
};

struct AllocationOptions {
  Allocation kind = Allocation::kSlopes;
  MixSearchOptions search;
  PmqOptions pmq;
  RankingOptions ranking;
};

/// What is known of an allocation before anything is measured.
struct AllocationTraits {
  Allocation kind;
  std::string_view name;
  bool needs_text;      ///< refused without; else it makes do with what is predicted
  bool measures_mixes;  ///< runs whole mixes, with the original norms and biases
  bool solves_knapsack;
  /// Whether errors and damages of options are measured: for the choice, or for the record.
  bool measures_options = true;
};

/// What decides the mix, for recognising an unfinished run whose pieces depend on it.
Json describe(const AllocationOptions& options);

std::span<const AllocationTraits> allocations();
const AllocationTraits& traits(Allocation kind);
/// By name; null for another.
const AllocationTraits* find_allocation(std::string_view name);
/// Throws Error{kUsage} where the kind cannot be used: without text, or on a model without experts.
void check_allocation(Allocation kind, bool has_text, const model::ModelSpec& spec);

/// Of all options, as they are predicted.
DamageTable predicted_damages(const std::vector<TensorGroup>& groups);

/// What allocators work with; all borrowed.
struct AllocationContext {
  const PackerContext& tools;
  const std::vector<TensorGroup>& groups;  ///< with what the kind has measured of the options
  GroupPacker& packer;
  const AllocationOptions& options;
  const MemoryPlan& memory;
  MixProblem problem;
  const CalibrationText* text = nullptr;  ///< may be null
  MixMeasurer* measurer = nullptr;        ///< null without text

  DamageTable predicted() const { return predicted_damages(groups); }
};

struct AllocationResult {
  Mix mix;
  /// An object: what the choice rests on, by the keys of the run record; empty for the simple ones.
  Json record = Json::object();
};

/// The mix of `context.options.kind`. It fits `context.problem.room`, whose smallest options must.
/// Deterministic; the thread count changes nothing. Throws what measuring throws.
AllocationResult choose_mix(const AllocationContext& context);

}  // namespace winnow::compress
