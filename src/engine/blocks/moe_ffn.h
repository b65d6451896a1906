// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The feed-forward block of a mixture-of-experts layer: router, chosen experts, weighted sum.
#pragma once

#include <span>
#include <vector>

#include "engine/blocks/routing.h"
#include "engine/linear.h"
#include "engine/observer.h"
#include "engine/weights.h"
#include "experts/store.h"
#include "model/spec.h"

namespace winnow::engine {

class MoeFfn {
 public:
  explicit MoeFfn(const model::ModelSpec& spec) : spec_(spec) {}

  /// x: normalised [tokens, hidden_size]; out: the same shape, overwritten. Experts are computed as
  /// the store delivers them; their outputs are added in the order of each token's choices, so the
  /// result does not depend on the order of delivery.
  void forward(const Compute& compute, const DenseWeights& weights, experts::ExpertStore& store,
               LayerId layer, tensor::MatrixView<const float> x, tensor::MatrixView<float> out,
               Observer* observer);

 private:
  struct Job;  // an expert in memory with its stretch of slots
  void choose_experts(const Compute& compute, const DenseWeights& weights, LayerId layer,
                      tensor::MatrixView<const float> x, Observer* observer);
  void compute_experts(const Compute& compute, std::span<const experts::PinnedExpert> ready,
                       LayerId layer, Observer* observer);
  void gate_and_up(const Compute& compute, std::span<const Job> jobs);
  void down(const Compute& compute, std::span<const Job> jobs);
  void combine(const Compute& compute, tensor::MatrixView<float> out) const;

  const model::ModelSpec& spec_;
  LinearInput input_;        // [tokens, hidden_size]
  LinearInput slot_input_;   // [slots, hidden_size], gathered by expert
  LinearInput inner_input_;  // [slots, moe_intermediate_size]
  tensor::Matrix<float> logits_;
  std::vector<ExpertId> chosen_;  // [tokens * top_k]
  std::vector<float> weights_;    // [tokens * top_k]
  GroupedRouting grouped_;
  tensor::Matrix<float> gate_, up_, slot_out_;  // one row per slot
};

}  // namespace winnow::engine
