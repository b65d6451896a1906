// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The feed-forward block of a mixture-of-experts layer: router, chosen experts, weighted sum.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/blocks/activated_gate.h"
#include "engine/blocks/routing.h"
#include "engine/linear.h"
#include "engine/observer.h"
#include "engine/weights.h"
#include "experts/store.h"
#include "model/spec.h"

namespace winnow::engine {

/// The first layer with experts from `first` on.
std::optional<LayerId> moe_layer_from(const model::ModelSpec& spec, std::uint32_t first);

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
  void choose_experts(const Compute& compute, const DenseWeights& weights,
                      const experts::ExpertStore& store, LayerId layer,
                      tensor::MatrixView<const float> x, Observer* observer);
  /// Which of the layer's experts are in memory, where that may change routes.
  void look_what_is_there(const Compute& compute, const experts::ExpertStore& store, LayerId layer);
  void route_tokens(const Compute& compute, LayerId layer, std::size_t top_k);
  void route_token(const Compute& compute, LayerId layer, std::size_t token, unsigned worker);
  std::size_t experts_per_token(const Compute& compute, LayerId layer) const;
  /// Of a prompt's many experts the store should keep those that its last tokens chose.
  void tell_what_lasts(experts::ExpertStore& store, std::size_t tokens) const;
  /// Before the next layer with experts has its turn, so that some may be on their way by then.
  void look_ahead(const Compute& compute, const DenseWeights& weights, LayerId layer);
  os::Range slots_of(ExpertId expert) const;
  Job make_job(const Compute& compute, LayerId layer, ExpertId expert,
               const experts::ExpertMatrices& own) const;
  /// Outputs of an expert that is not made of matrices, into its slots.
  void fill_outputs(ExpertId expert, const experts::ExpertForm& form);
  void gather_values(const Compute& compute, tensor::MatrixView<const float> x);
  /// Runs experts that are in memory; true when their outputs are already summed into `out`.
  bool compute_experts(const Compute& compute, std::span<const experts::PinnedExpert> ready,
                       LayerId layer, tensor::MatrixView<float> out, Observer* observer);
  void observe(Site site, LayerId layer, std::span<const Job> jobs,
               tensor::MatrixView<const float> x, Observer& observer) const;
  void gate_and_up(const Compute& compute, std::span<const Job> jobs);
  void gate_and_up_rows(const Compute& compute, const Job& job, os::Range rows, unsigned worker);
  /// Shows the editor each job's activations, and makes the codes of what it leaves.
  void edit(const Compute& compute, LayerId layer, std::span<const Job> jobs);
  void down(const Compute& compute, std::span<const Job> jobs);
  void down_and_combine(const Compute& compute, std::span<const Job> jobs,
                        tensor::MatrixView<float> out);
  void down_rows(const Compute& compute, const Job& job, os::Range rows, unsigned worker);
  void combine(const Compute& compute, tensor::MatrixView<float> out) const;
  void combine_columns(const Compute& compute, std::size_t token, os::Range cols,
                       std::span<float> out) const;

  const model::ModelSpec& spec_;
  LinearInput input_;                      // [tokens, hidden_size]
  tensor::Matrix<float> slot_values_;      // [slots, hidden_size], only where somebody asks for f32
  kernels::ActivationBuffer inner_codes_;  // [slots, moe_intermediate_size]
  tensor::Matrix<float> logits_, next_logits_;
  std::vector<float> scores_;              // two rows per worker
  std::vector<ExpertId> order_;            // one row per worker, only with a policy
  std::vector<ExpertId> kept_;             // those to choose from; empty: all
  std::vector<ExpertId> chosen_;           // [tokens * top_k]
  std::vector<float> weights_;             // [tokens * top_k]
  std::vector<std::uint32_t> used_;        // [tokens], of the choices; empty without a policy
  std::vector<std::uint8_t> present_;      // [num_experts]; empty: no route depends on it
  std::vector<std::uint32_t> redirected_;  // [tokens], then
  GroupedRouting grouped_;
  tensor::Matrix<float> gate_, up_, slot_out_;  // one row per slot
  ActivatedGate activated_;                     // the same, only with an editor
};

}  // namespace winnow::engine
