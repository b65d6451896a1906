// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Run-time policies: fewer experts for each token than the model's top_k. Off unless asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/units.h"
#include "model/spec.h"

namespace winnow::engine {

/// Without a field set, the model's own routes, bit for bit. The two parts do not go together.
struct RoutingPolicy {
  /// Experts that a token goes to, 1 to the model's top_k; 0: top_k.
  std::uint32_t experts_per_token = 0;
  /// Router weights that the model renormalises are divided by the sum over the best so many, from
  /// those a token goes to up to all of the layer (gain-corrected reduced top-k, arXiv:2609.04575;
  /// as many as a token goes to is the naive form); 0: the model's top_k. Weights that it does not
  /// renormalise stay what they are.
  std::uint32_t gates_over = 0;
  /// [num_hidden_layers], each in [0, 1]; empty: nothing is skipped. A token's expert is skipped
  /// when its weight is below ratio x the weight of the token's best one (NAEE, arXiv:2402.14800,
  /// and ODP of MC, arXiv:2410.06270, both for top_k 2; here for any). 0 skips nothing; 1 leaves
  /// the best alone, also where others weigh as much. Weights that the model renormalises are
  /// divided by the sum over what remains: they are those of a model with so many experts per
  /// token.
  std::vector<float> skip_ratios;
  /// A token's best `always` experts, and of the rest of its top_k those in memory first, from the
  /// best `among` of the layer (cache-conditional experts, arXiv:2412.00099). Only in passes of a
  /// few tokens; the outputs depend on what happens to be in memory. `among` 0: not so; else
  /// always <= top_k < among.
  struct PreferCached {
    std::uint32_t always = 0;
    std::uint32_t among = 0;
  };
  PreferCached prefer_cached;

  bool reduces() const { return experts_per_token != 0 || gates_over != 0; }
  bool skips() const { return !skip_ratios.empty(); }
  bool prefers() const { return prefer_cached.among != 0; }
  bool active() const { return reduces() || skips() || prefers(); }
};

/// Throws Error{kUsage} for what the model cannot do; messages name the flags of the program.
void check_routing_policy(const RoutingPolicy& policy, const model::ModelSpec& spec);

/// How many of a model's expert slots (top_k for each token and MoE layer) were computed.
class ExpertUse {
 public:
  explicit ExpertUse(const model::ModelSpec& spec)
      : top_k_(spec.moe.top_k), layers_(spec.num_hidden_layers) {}

  void add(LayerId layer, std::uint64_t tokens, std::uint64_t computed);
  /// Slots of a layer that went to another expert than the router's choice.
  void add_redirected(std::uint64_t slots) { redirected_ += slots; }
  /// Of the slots of all layers; nothing where there were none.
  std::optional<double> skipped_share() const;
  /// [num_hidden_layers]: of each layer alone; nothing for dense layers.
  std::vector<std::optional<double>> layer_skipped_shares() const;
  /// Of the slots of all layers, those that went to another expert; nothing where there were none.
  std::optional<double> redirected_share() const;

 private:
  struct Slots {
    std::uint64_t all = 0;
    std::uint64_t computed = 0;
    std::optional<double> skipped_share() const;
  };
  std::uint32_t top_k_;
  std::vector<Slots> layers_;
  std::uint64_t redirected_ = 0;
};

}  // namespace winnow::engine
