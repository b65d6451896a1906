// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Spends the budget on single experts: types of their own, or something in the place of their
// matrices, in one knapsack with everything else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/json.h"
#include "compress/divergence_sweep.h"
#include "compress/expert_items.h"
#include "compress/expert_options.h"
#include "compress/expert_replacement.h"
#include "compress/expert_sharing.h"
#include "compress/group_packer.h"
#include "compress/mix_search.h"

namespace winnow::compress {

class ExpertAllocator {
 public:
  /// All borrowed. probe: what divergence is measured on.
  ExpertAllocator(const PackerContext& context, const ExpertOptions& options, GroupPacker& packer,
                  const WindowBatches& probe, SweepMemory memory);

  /// What doing without each expert would change, on `text`. groups: divided, with noise, narrowed
  /// ones behind the others; borrowed. pads:
  /// whether the budget counts the padding of tensors. states: folder for hidden states, empty: in
  /// memory.
  void measure(const std::vector<TensorGroup>& groups, const WindowBatches& text, bool pads,
               const std::filesystem::path& states);
  /// Least predicted damage, to text of which `options.other_text` is of other kinds
  /// (other_text.h); what is predicted and recorded is that of the calibration's kinds. A
  /// replacement's damage is its change of the layer's output times the layer's slope, which begins
  /// as that of rounding errors and is fitted anew to the divergence of what was chosen, until the
  /// choice stays; where it does not, the best of those that were measured. The smallest options
  /// must fit `problem.room`, from which the routers' rows are taken. Throws what measuring throws.
  /// The same for the same problem, whatever was asked before.
  ExpertMix choose(const MixProblem& problem, const DamageTable& damages);

  /// From what `choose` gave: mixes for slopes that differ from the fitted ones at random, each
  /// judged by the measured divergence of all its replacements together and the predicted damage of
  /// its types; the best of them, at most `options.rounds` times `options.offspring` measured.
  ExpertMix search(const MixProblem& problem, const DamageTable& damages, const ExpertMix& start,
                   const MixSearchOptions& options);
  /// From what `choose` or `search` gave, a mix of the same bytes that one more pass over `text`,
  /// the one that was measured, finds better (expert_refinement.h): by the measured divergence of
  /// all replacements and the predicted damage of types, of the mix as it is, with experts swapped,
  /// and with constants fitted together, the least. The constants stay until the next choice.
  ExpertMix refine(const ExpertMix& mix, const DamageTable& damages, const WindowBatches& text,
                   const std::filesystem::path& states);
  /// The same with the slopes as they are.
  ExpertMix solve(const MixProblem& problem, const DamageTable& damages) const;
  /// The same replacements, and types for `spare` bytes more than the mix takes.
  ExpertMix refill(MixProblem problem, const DamageTable& damages, const ExpertMix& mix,
                   std::uint64_t spare) const;

  /// Layer after layer, all experts of each.
  const std::vector<ExpertItem>& items() const { return items_; }
  /// The model with all that the mix puts in the place of experts, and all else as it was.
  /// Borrows from the allocator.
  WeightVariant replaced(const ExpertMix& mix);
  /// Puts what stands for experts into a variant that is run, of one layer or of all. The
  /// allocator's, and borrowed from it. matrix: what packs the matrix that a shared expert uses, a
  /// group of another; null: as the source has it.
  using MatrixSource = std::function<PackedGroup(std::size_t group)>;
  void add_to(WeightVariant& variant, const ExpertMix& mix, const MatrixSource& matrix,
              std::optional<LayerId> layer = std::nullopt) const;
  /// `damages`, those of matrices that more experts use times the share of their use.
  DamageTable with_shared_use(const DamageTable& damages, const ExpertMix& mix) const;
  /// [hidden_size]: what stands for an expert that becomes a constant.
  const std::vector<float>& constant(LayerId layer, ExpertId expert) const;
  /// Nats per token that the mix's replacements are expected to cost.
  double predicted_kl(const ExpertMix& mix) const;
  /// [layers]: the same of each.
  std::vector<double> predicted_by_layer(const ExpertMix& mix) const;
  /// Multiplies the layers' slopes by factors [layers], until the next choice begins anew.
  void scale_slopes(std::span<const double> factors);
  Json record(const ExpertMix& mix) const;

 private:
  void add_items(LayerId layer, const LayerSums& sums, bool pads);
  void add_groups(std::span<ExpertItem> items, LayerId layer, const LayerSums& sums);
  void protect_super_experts();
  void fill_slopes();
  void prepare_narrowed(const ExpertMix& mix);
  void add_narrowed(WeightVariant& variant, const ReplacementOption& option) const;
  void limit_dropped(std::span<ExpertItem> items) const;
  bool is_super(const ExpertItem& item) const;
  void predict();
  /// Damages of types as decisions weigh them.
  DamageTable decisive(const DamageTable& damages) const;
  ExpertMix solve_decisive(MixProblem problem, const DamageTable& damages) const;
  double fit_slopes(const ExpertMix& mix);

  PackerContext context_;
  ExpertOptions options_;
  GroupPacker& packer_;
  const std::vector<TensorGroup>* groups_ = nullptr;
  const WindowBatches& probe_;
  SweepMemory memory_;
  const ExpertReplacement* shared_ = nullptr;  // where it is asked for
  const ExpertItem& item_of(LayerId layer, ExpertId expert) const {
    return items_[first_item_[index(layer)] + index(expert)];
  }

  std::vector<ExpertItem> items_;
  std::vector<std::size_t> first_item_;                     // [layers]
  std::vector<std::vector<std::vector<float>>> constants_;  // [layers][experts]
  // Of the mix that was refined last; empty where the single ones are used.
  std::vector<std::vector<std::vector<float>>> joint_constants_;
  std::vector<std::vector<double>> largest_outputs_;  // [layers][experts]
  std::vector<std::vector<bool>> super_experts_;      // [layers][experts]
  std::vector<Likeness> likenesses_;                  // places in items_
  std::vector<double> slopes_;                        // [layers]: nats per token and unit of change
  std::vector<double> first_slopes_;                  // before any were fitted
  Json rounds_ = Json::array();
  std::size_t round_taken_ = 0;
  Json search_;
  Json refinement_;
};

}  // namespace winnow::compress
