// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The proxies of a mix's damage that `--allocation ranked` chooses among, each from a published
// way to allocate bits.
#pragma once

#include <span>
#include <vector>

#include "compress/expert_errors.h"
#include "compress/group_packer.h"
#include "compress/moments.h"
#include "compress/pmq.h"
#include "compress/ranked_proxies.h"
#include "compress/tensor_group.h"

namespace winnow::compress {

struct AllocationContext;
struct AllocationResult;

/// What plain rounding does to a group, from a sample of its rows, scaled to all of them.
struct GroupFacts {
  /// Sums over the text: of squares of the inputs of all matrices, divided by the columns; and of
  /// squares of their outputs, as if inputs did not correlate.
  double input_power = 0;
  double output_power = 0;
  /// Of each option: squared error of the weights, and of the outputs as above.
  std::vector<double> weight_errors, output_errors;
};

/// moments: of the inputs of all groups. Reads and encodes at most 256 rows of the group.
GroupFacts measure_facts(const PackerContext& context, const TensorGroup& group,
                         const InputMoments& moments);

/// What the proxies are made of; of all groups, in their order.
struct ProxyInputs {
  std::vector<GroupFacts> facts;
  DamageTable pmq;  ///< of the groups of experts (`pmq_damages`); empty rows for the others
  double gamma = 2;
};

/// "slopes" (predicted divergence), "squared_error" and "relative_error" (of outputs, in what the
/// quantiser leaves), "pmq" (a group that is no experts' counts as one expert that every token uses
/// with weight 1), "hessian_trace" (mean of the diagonal x squared error of the weights: HAWQ-V2,
/// arXiv:1911.03852), "log_error" (logarithm of the error, by weights) and "bits" (4^-bits, by
/// weights: what a bit is worth to uniform noise).
std::vector<Proxy> make_proxies(std::span<const TensorGroup> groups, const ProxyInputs& inputs);

/// `--allocation ranked`; record key "ranking".
AllocationResult choose_ranked(const AllocationContext& context);

}  // namespace winnow::compress
