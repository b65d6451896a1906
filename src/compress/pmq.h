// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Pre-loading mixed-precision quantisation of MC ("MC-MoE: Mixture Compressor for
// Mixture-of-Experts LLMs", arXiv:2410.06270): an expert i in j bits costs phi_i^alpha w_i^beta
// eps_ij^gamma, and every layer has the same bits per weight to spend on its experts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/expert_errors.h"
#include "compress/mix_problem.h"
#include "compress/tensor_group.h"
#include "metrics/text_data.h"

namespace winnow::compress {

struct AllocationContext;
struct AllocationResult;

/// Exponents, those of the paper's published solver. Its text raises eps to gamma; the solver's
/// source raises it to alpha, which leaves gamma unused: here it is as in the text.
struct PmqOptions {
  double alpha = 1;   ///< of the activation frequency phi; >= 0
  double beta = 1.5;  ///< of the mean router weight w; >= 0
  double gamma = 2;   ///< of the output error eps; > 0
  /// Tokens of the calibration text that phi, w and eps are measured on. The experts of a layer run
  /// on them once for each codec.
  std::uint64_t tokens = 2048;
};

/// Sum over the experts of a group of phi^alpha w^beta eps^gamma. norms: eps of each expert when
/// this group's matrix alone is rounded in it.
double pmq_damage(const ExpertUse& use, std::span<const double> norms, const PmqOptions& options);

/// Damages of all options of the groups of experts; empty rows for the other groups.
DamageTable pmq_damages(std::span<const TensorGroup> groups, const ExpertErrors& errors,
                        const PmqOptions& options);

/// What the groups that are no experts' (attention, embedding, output, dense layers) are held at:
/// MC keeps its attention at 4 bits and lets the experts alone vary. The option nearest to 4 bits,
/// or nearest to them among those that leave room for the smallest experts. [groups]; options of
/// experts' groups are the smallest.
Mix hold_others(std::span<const TensorGroup> groups, const MixProblem& problem);

/// The mix of least damage with `held` for the groups that are no experts'. Each layer's experts
/// may have the share of the remaining bytes that is their share of all experts' weights; what a
/// layer cannot use goes to the next, since options are steps. A layer whose smallest options need
/// more has those, at the cost of the others.
Mix solve_pmq(std::span<const TensorGroup> groups, const DamageTable& damages, const Mix& held,
              const MixProblem& problem);

/// About `PmqOptions::tokens` tokens of the calibration text, spread over it; of the probe text
/// where statistics in its place leave only that.
metrics::WindowSet pmq_text(const AllocationContext& context);
/// Measured on `pmq_text`, and kept in the folder of the unfinished output.
ExpertErrors pmq_errors(const AllocationContext& context);

/// `--allocation pmq`; record key "pmq".
AllocationResult choose_pmq(const AllocationContext& context);

}  // namespace winnow::compress
