// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_hessians.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/error.h"
#include "compress/hessian_collector.h"

namespace winnow::compress {
namespace {

using engine::Site;

constexpr std::array<std::pair<std::string_view, HessianScope>, 3> kScopes = {
    {{"expert", HessianScope::kExpert},
     {"layer", HessianScope::kLayer},
     {"diagonal", HessianScope::kDiagonal}}};

bool is_expert_site(Site site) { return site == Site::kExpertInput || site == Site::kExpertInner; }

/// Sums of the calibration text and of the held-out text.
struct Sums {
  HessianCollector calibration;
  std::optional<HessianCollector> held_out;
};

class LayerVisit {
 public:
  LayerVisit(engine::LayerRunner& runner, const model::ModelSpec& spec, LayerId layer,
             const CalibrationStreams& text, const LayerHessianOptions& options, Log& log,
             const HessianVisitor& visit)
      : runner_(runner),
        spec_(spec),
        layer_(layer),
        text_(text),
        options_(options),
        log_(log),
        visit_(visit),
        runs_ahead_(options.run_ahead) {}

  void run(std::span<const Site> sites) {
    for (const Site site : sites)
      (is_expert_site(site) ? expert_sites_ : dense_sites_).push_back(site);
    const std::size_t all = spec_.moe.num_experts;
    once_ = fits_at_once();
    visit_portion(dense_sites_, once_ ? ExpertRange{0, all} : ExpertRange{0, 0});
    if (once_) return;
    const std::size_t portion = experts_at_a_time();
    const auto each_portion = [&](const auto& use) {
      for (std::size_t first = 0; first < all; first += portion) {
        use(ExpertRange{first, std::min(first + portion, all)});
      }
    };
    // Expert after expert, as when all are there at once: sums in another order differ.
    if (portion < all) {
      each_portion([&](ExpertRange experts) { add_layer_sums(collect({}, experts)); });
    }
    each_portion([&](ExpertRange experts) { visit_portion({}, experts); });
  }

 private:
  struct ExpertRange {
    std::size_t begin, end;
    bool holds(ExpertId expert) const { return index(expert) >= begin && index(expert) < end; }
  };
  std::size_t copies() const { return text_.held_out == nullptr ? 1 : 2; }
  std::uint64_t bytes_of(const std::vector<Site>& sites) const;
  bool fits_at_once() const;
  std::size_t experts_at_a_time() const;
  Sums collect(std::span<const Site> dense, ExpertRange experts);
  void observe(WindowStream& text, HessianCollector& sums);
  void add_layer_sums(const Sums& sums);
  void visit_portion(std::span<const Site> dense, ExpertRange experts);
  void visit_experts(const Sums& sums, Site site, ExpertRange experts);
  Hessian of_expert(const HessianCollector& sums, const Hessian& layer, Site site,
                    ExpertId expert) const;

  engine::LayerRunner& runner_;
  const model::ModelSpec& spec_;
  LayerId layer_;
  const CalibrationStreams& text_;
  const LayerHessianOptions& options_;
  Log& log_;
  const HessianVisitor& visit_;
  bool runs_ahead_;    // when the layer is run next
  bool once_ = false;  // one pass over the text sees all
  std::vector<Site> dense_sites_, expert_sites_;
  /// By place in expert_sites_: sums over all experts, of the calibration and held-out text.
  std::vector<std::pair<Hessian, std::optional<Hessian>>> layer_sums_;
};

/// Of the sums of these sites, for one expert where they are experts'.
std::uint64_t LayerVisit::bytes_of(const std::vector<Site>& sites) const {
  std::uint64_t total = 0;
  for (const Site site : sites) total += copies() * hessian_bytes(spec_, site).value;
  return total;
}

/// Whether all sums have room together; those of the layer need as much as one expert's.
bool LayerVisit::fits_at_once() const {
  if (options_.scope == HessianScope::kLayer || !options_.memory || expert_sites_.empty()) {
    return true;
  }
  const std::uint64_t experts = (spec_.moe.num_experts + 1) * bytes_of(expert_sites_);
  return bytes_of(dense_sites_) + experts <= options_.memory->value;
}

/// All, or as many as fit beside the sums of the layer, once those of its other sites are freed.
std::size_t LayerVisit::experts_at_a_time() const {
  const std::uint64_t expert = bytes_of(expert_sites_);
  const std::uint64_t beside = options_.memory->value / expert;
  return std::clamp<std::uint64_t>(beside, 2, spec_.moe.num_experts + 1) - 1;
}

/// Of these inputs of the layer and of these experts' inputs.
Sums LayerVisit::collect(std::span<const Site> dense, ExpertRange experts) {
  const auto wanted = [dense, experts](Site site, LayerId, ExpertId expert) {
    if (is_expert_site(site)) return experts.holds(expert);
    return std::find(dense.begin(), dense.end(), site) != dense.end();
  };
  const auto of_experts = options_.scope == HessianScope::kLayer
                              ? HessianCollector::Experts::kTogether
                              : HessianCollector::Experts::kEach;
  const auto make = [&] {
    return HessianCollector(runner_.pool(), wanted, of_experts, &runner_.kernels());
  };
  Sums sums{make(), std::nullopt};
  observe(text_.calibration, sums.calibration);
  if (text_.held_out != nullptr) {
    sums.held_out.emplace(make());
    observe(*text_.held_out, *sums.held_out);
  }
  runs_ahead_ = false;
  return sums;
}

void LayerVisit::observe(WindowStream& text, HessianCollector& sums) {
  if (runs_ahead_ && once_) {
    text.observe_in_place(runner_, sums, log_);
  } else if (runs_ahead_) {
    text.observe_ahead(runner_, sums, log_);
  } else {
    text.observe(runner_, sums, log_);
  }
}

void LayerVisit::add_layer_sums(const Sums& sums) {
  for (std::size_t place = 0; place < expert_sites_.size(); ++place) {
    const Site site = expert_sites_[place];
    if (place == layer_sums_.size()) {
      const Hessian none(input_size(spec_, site));
      layer_sums_.emplace_back(none, sums.held_out ? std::optional(none) : std::nullopt);
    }
    auto& [calibration, held_out] = layer_sums_[place];
    sums.calibration.add_experts(site, layer_, calibration);
    if (sums.held_out) sums.held_out->add_experts(site, layer_, *held_out);
  }
}

void LayerVisit::visit_portion(std::span<const Site> dense, ExpertRange experts) {
  const Sums sums = collect(dense, experts);
  for (const Site site : dense) {
    const Hessian* const seen = sums.calibration.find(site, layer_, {});
    const Hessian* const judged = sums.held_out ? sums.held_out->find(site, layer_, {}) : nullptr;
    PreparedHessian hessian(seen != nullptr ? *seen : Hessian(input_size(spec_, site)),
                            judged != nullptr ? std::optional<Hessian>(*judged) : std::nullopt);
    visit_(site, ExpertId{}, hessian);
  }
  if (experts.begin == experts.end) return;
  if (layer_sums_.empty()) add_layer_sums(sums);  // all experts are here
  for (const Site site : expert_sites_) visit_experts(sums, site, experts);
}

void LayerVisit::visit_experts(const Sums& sums, Site site, ExpertRange experts) {
  const auto place = static_cast<std::size_t>(
      std::find(expert_sites_.begin(), expert_sites_.end(), site) - expert_sites_.begin());
  const auto& [layer, held_out] = layer_sums_[place];
  if (options_.scope == HessianScope::kLayer) {
    PreparedHessian hessian(layer, held_out);
    for (std::size_t e = experts.begin; e < experts.end; ++e) {
      visit_(site, ExpertId{static_cast<std::uint32_t>(e)}, hessian);
    }
    return;
  }
  for (std::size_t e = experts.begin; e < experts.end; ++e) {
    const ExpertId expert{static_cast<std::uint32_t>(e)};
    std::optional<Hessian> judged;
    if (held_out) judged = of_expert(*sums.held_out, *held_out, site, expert);
    PreparedHessian hessian(of_expert(sums.calibration, layer, site, expert), std::move(judged));
    if (site == Site::kExpertInner) {
      hessian.set_own({sums.calibration.find(site, layer_, expert),
                       sums.held_out ? sums.held_out->find(site, layer_, expert) : nullptr});
    }
    visit_(site, expert, hessian);
  }
}

Hessian LayerVisit::of_expert(const HessianCollector& sums, const Hessian& layer, Site site,
                              ExpertId expert) const {
  const Hessian* const seen = sums.find(site, layer_, expert);
  const std::size_t size = input_size(spec_, site);
  return shrunk_towards(seen != nullptr ? *seen : Hessian(size), layer,
                        options_.pseudo_tokens * static_cast<double>(size));
}

}  // namespace

std::optional<HessianScope> find_hessian_scope(std::string_view name) {
  for (const auto& [known, scope] : kScopes) {
    if (known == name) return scope;
  }
  return std::nullopt;
}

std::string_view to_string(HessianScope scope) {
  for (const auto& [name, known] : kScopes) {
    if (known == scope) return name;
  }
  return "";
}

std::size_t input_size(const model::ModelSpec& spec, Site site) {
  switch (site) {
    case Site::kAttentionInner:
      return spec.query_width();
    case Site::kFfnInner:
      return spec.intermediate_size;
    case Site::kExpertInner:
      return spec.moe.moe_intermediate_size;
    default:
      return spec.hidden_size;
  }
}

Bytes hessian_bytes(const model::ModelSpec& spec, Site site) {
  const std::uint64_t n = input_size(spec, site);
  return {n * (n + 1) / 2 * sizeof(double)};
}

void visit_layer_hessians(engine::LayerRunner& runner, const model::ModelSpec& spec, LayerId layer,
                          std::span<const Site> sites, const CalibrationStreams& text,
                          const LayerHessianOptions& options, Log& log,
                          const HessianVisitor& visit) {
  WINNOW_CHECK(options.scope != HessianScope::kDiagonal);
  LayerVisit(runner, spec, layer, text, options, log, visit).run(sites);
}

void visit_output_hessian(engine::LayerRunner& runner, const model::ModelSpec& spec,
                          const CalibrationStreams& text, Log& log, const HessianVisitor& visit) {
  const auto all = [](Site, LayerId, ExpertId) { return true; };
  constexpr auto kEach = HessianCollector::Experts::kEach;
  HessianCollector seen(runner.pool(), all, kEach, &runner.kernels());
  text.calibration.observe_output(runner, seen, log);
  std::optional<Hessian> judged;
  if (text.held_out != nullptr) {
    HessianCollector held_out(runner.pool(), all, kEach, &runner.kernels());
    text.held_out->observe_output(runner, held_out, log);
    judged = held_out.layer_sum(Site::kOutputInput, {}, spec.hidden_size);
  }
  PreparedHessian hessian(seen.layer_sum(Site::kOutputInput, {}, spec.hidden_size),
                          std::move(judged));
  visit(Site::kOutputInput, ExpertId{}, hessian);
}

}  // namespace winnow::compress
