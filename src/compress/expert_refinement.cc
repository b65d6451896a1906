// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_refinement.h"

#include <algorithm>
#include <utility>

#include "compress/joint_constants.h"
#include "compress/layer_swaps.h"
#include "compress/loss_gram.h"

namespace winnow::compress {
namespace {

using Kind = LossGram::Kind;

/// What stands for the expert in the mix, if the router's choices stay with it.
std::optional<Kind> kind_of(const ExpertItem& item, const std::optional<std::size_t>& replaced) {
  if (!replaced) return std::nullopt;
  const ReplacementOption& option = item.replacements[*replaced];
  if (option.width != 0 || !LossGram::covers(option.how->substitute)) return std::nullopt;
  return option.how->substitute;
}

std::optional<std::size_t> option_of(const ExpertItem& item, Kind kind) {
  for (std::size_t r = 0; r < item.replacements.size(); ++r) {
    if (kind_of(item, r) == kind) return r;
  }
  return std::nullopt;
}

/// The experts of one layer, which are neighbours among the items.
class LayerRefiner {
 public:
  LayerRefiner(const RefinementInput& input, std::size_t first, std::size_t count,
               Refinement& result)
      : input_(input), first_(first), count_(count), result_(result) {}

  bool has_any() const {
    for (std::size_t e = 0; e < count_; ++e) {
      if (kind_at(e)) return true;
    }
    return false;
  }

  void swap(const LossGram& gram) {
    SwapProblem problem;
    problem.gram = &gram;
    double changes = 0;
    std::vector<LossGram::Loss> set;
    for (std::uint32_t e = 0; e < count_; ++e) {
      problem.gone.push_back(kind_at(e));
      if (!problem.gone.back()) continue;
      changes += item(e).replacements[*replaced(e)].change;
      set.push_back({ExpertId{e}, *problem.gone.back()});
    }
    // The slope was fitted to the sum of single changes.
    const double together = gram.squared_change(set);
    if (!(together > 0)) return;
    problem.kl_per_change = (1 - input_.other_text) * slope() * changes / together;
    problem.may_go = [this](ExpertId e, Kind kind) {
      return !replaced(index(e)) && option_of(item(index(e)), kind).has_value();
    };
    problem.types_damage = [this](ExpertId e, ExpertId as) { return damage(index(e), index(as)); };
    for (const Swap& swap : improving_swaps(std::move(problem))) apply(swap);
  }

  /// Fits the constants together, where there are any that others or zeros may bear on.
  void fit_constants(engine::LayerRunner& runner, const WindowStream& text, Log& log) {
    std::vector<ExpertId> constants, zeros;
    std::vector<std::vector<float>> single;
    for (std::uint32_t e = 0; e < count_; ++e) {
      const std::optional<Kind> kind = kind_at(e);
      if (kind == Kind::kZero) zeros.push_back(ExpertId{e});
      if (kind != Kind::kConstant) continue;
      constants.push_back(ExpertId{e});
      single.push_back(input_.constants[layer()][e]);
    }
    if (constants.empty() || constants.size() + zeros.size() < 2) return;
    const JointSums sums =
        collect_joint_sums(runner, input_.spec, std::move(constants), zeros, text, log);
    auto joint = joint_constants(sums, single);
    result_.constants[layer()].resize(count_);
    for (std::size_t p = 0; p < joint.size(); ++p) {
      result_.constants[layer()][index(sums.experts[p])] = std::move(joint[p]);
    }
  }

 private:
  const ExpertItem& item(std::size_t e) const { return input_.items[first_ + e]; }
  std::optional<std::size_t>& replaced(std::size_t e) const {
    return result_.mix.replaced[first_ + e];
  }
  std::optional<Kind> kind_at(std::size_t e) const { return kind_of(item(e), replaced(e)); }
  std::uint32_t layer() const { return index(item(0).layer); }
  double slope() const { return input_.slopes[layer()]; }

  double damage(std::size_t e, std::size_t as) const {
    double sum = 0;
    for (std::size_t m = 0; m < item(e).groups.size(); ++m) {
      sum += input_.damages[item(e).groups[m]][result_.mix.mix[item(as).groups[m]]];
    }
    return sum;
  }

  void apply(const Swap& swap) {
    const std::size_t back = index(swap.back), gone = index(swap.gone);
    for (std::size_t m = 0; m < item(back).groups.size(); ++m) {
      result_.mix.mix[item(back).groups[m]] = result_.mix.mix[item(gone).groups[m]];
    }
    replaced(gone) = option_of(item(gone), *kind_at(back));
    replaced(back).reset();
    ++result_.swaps;
  }

  const RefinementInput& input_;
  std::size_t first_, count_;
  Refinement& result_;
};

}  // namespace

bool can_be_refined(std::span<const ExpertItem> items, const ExpertMix& mix) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (kind_of(items[i], mix.replaced[i])) return true;
  }
  return false;
}

Refinement refine_layers(const RefinementInput& input, const ExpertMix& mix,
                         engine::LayerRunner& runner, WindowStream& stream, Log& log) {
  Refinement result{mix, 0, {}};
  result.constants.resize(input.spec.num_hidden_layers);
  std::vector<LayerRefiner> refiners;  // of the layers with anything to refine
  std::vector<std::uint32_t> layers;
  for (std::size_t first = 0; first < input.items.size();) {
    std::size_t end = first;
    while (end < input.items.size() && input.items[end].layer == input.items[first].layer) ++end;
    LayerRefiner refiner(input, first, end - first, result);
    if (refiner.has_any()) {
      refiners.push_back(refiner);
      layers.push_back(index(input.items[first].layer));
    }
    first = end;
  }
  stream.embed(runner, nullptr, log);
  std::size_t next = 0;
  for (std::uint32_t l = 0; next < layers.size(); ++l) {
    runner.load(LayerId{l});
    if (layers[next] == l) {
      LayerRefiner& refiner = refiners[next++];
      refiner.swap(collect_losses(runner, input.spec, LayerId{l}, input.constants[l], stream, log));
      refiner.fit_constants(runner, stream, log);
    }
    if (next < layers.size()) stream.run(runner, stream, nullptr, log);
    log.progress("refining experts", l + 1, layers.back() + 1, "layers");
  }
  return result;
}

std::uint64_t refinement_bytes(const model::ModelSpec& spec) {
  const std::uint64_t experts = spec.moe.num_experts, hidden = spec.hidden_size;
  const std::uint64_t gram = 9 * experts * experts * sizeof(double);
  const std::uint64_t sums = 3 * experts * (experts + hidden) * sizeof(double);
  // The single ones and those that are fitted together.
  const std::uint64_t constants = 2 * spec.num_hidden_layers * experts * hidden * sizeof(float);
  return gram + sums + constants;
}

}  // namespace winnow::compress
