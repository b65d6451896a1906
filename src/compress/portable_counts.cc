// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/portable_counts.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "compress/divergence_sweep.h"
#include "compress/expert_options.h"
#include "compress/expert_replacement.h"
#include "compress/expert_selection.h"
#include "compress/memory_plan.h"
#include "compress/partial_output.h"

namespace winnow::compress {
namespace {

/// A number of experts, and what came of it.
struct CountTrial {
  std::uint32_t keep = 0;
  KeptExperts kept;       // empty: all
  double dropped_kl = 0;  // of leaving the others out, measured
  std::optional<double> kl;
  std::string impossible;
  std::filesystem::path file;
  CompressResult result;
};

std::uint32_t common_count(const model::ModelSpec& spec, const std::string& by) {
  std::optional<std::uint32_t> count;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    if (!spec.is_moe_layer(LayerId{l})) continue;
    const std::uint32_t experts = spec.num_experts(LayerId{l});
    if (count && *count != experts) {
      fail(ErrorCode::kUsage, "{}: layers with {} and {} experts have no number in common", by,
           *count, experts);
    }
    count = experts;
  }
  if (!count) fail(ErrorCode::kUsage, "{}: the model has no experts", by);
  return *count;
}

std::vector<LayerSums> sums_of_layers(const model::Checkpoint& source, engine::LayerRunner& runner,
                                      const WindowBatches& text,
                                      const std::filesystem::path& states, Log& log) {
  const model::ModelSpec& spec = source.spec();
  std::vector<LayerSums> sums(spec.num_hidden_layers);
  WindowStream stream(text, spec.hidden_size, states);
  stream.embed(runner, nullptr, log);
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    runner.load(LayerId{l});
    if (spec.is_moe_layer(LayerId{l})) {
      sums[l] = collect_expert_sums(runner, spec, LayerId{l}, stream, log);
    }
    if (l + 1 < spec.num_hidden_layers) stream.run(runner, stream, nullptr, log);
    log.progress("watching experts", l + 1, spec.num_hidden_layers, "layers");
  }
  return sums;
}

std::vector<std::vector<bool>> super_experts_of(const std::vector<LayerSums>& sums) {
  std::vector<std::vector<double>> largest(sums.size());
  for (std::size_t l = 0; l < sums.size(); ++l) {
    for (const ExpertSums& expert : sums[l].experts) largest[l].push_back(expert.largest_output);
  }
  return super_experts(largest);
}

/// The model with all but `kept` never chosen.
WeightVariant without_others(const KeptExperts& kept, const model::ModelSpec& spec) {
  WeightVariant variant;
  for (std::uint32_t l = 0; l < kept.size(); ++l) {
    if (kept[l].empty()) continue;
    auto& experts = variant.experts[l];
    experts.resize(spec.num_experts(LayerId{l}));
    for (auto& expert : experts) expert.kind = engine::ExpertSubstitute::Kind::kDropped;
    for (const ExpertId expert : kept[l]) {
      experts[index(expert)].kind = engine::ExpertSubstitute::Kind::kOwn;
    }
  }
  return variant;
}

class Trials {
 public:
  Trials(const model::Checkpoint& source, const std::filesystem::path& out,
         const metrics::WindowSet& windows, const CompressOptions& options, Log& log)
      : source_(source), out_(out), windows_(windows), options_(options), log_(log) {
    CountTrial all;
    all.keep = common_count(source.spec(), options.experts.asked_by);
    trials_.push_back(std::move(all));
  }

  /// Who stays for each number, and what that costs.
  void measure_drops(const PartialOutput& partial);
  /// Compresses as long as it can pay.
  void compress(const std::function<model::Checkpoint(const KeptExperts&)>& reduced);
  /// The best file under its final name, the others and their work removed.
  CompressResult finish();

 private:
  void compress(CountTrial& trial, const model::Checkpoint& model);
  double least_kl() const;
  std::filesystem::path file_of(const CountTrial& trial) const {
    return fmt::format("{}.keep-{}", out_.string(), trial.keep);
  }
  Json record(const CountTrial& taken) const;

  const model::Checkpoint& source_;
  const std::filesystem::path& out_;
  const metrics::WindowSet& windows_;
  const CompressOptions& options_;
  Log& log_;
  std::vector<CountTrial> trials_;  // by falling number
};

void Trials::measure_drops(const PartialOutput& partial) {
  const model::ModelSpec& spec = source_.spec();
  engine::LayerRunner runner(source_, options_.engine);
  const CalibrationText text = options_.probe != nullptr
                                   ? divide_text(windows_, *options_.probe, options_.probe_tokens)
                                   : divide_text(windows_, options_.probe_tokens);
  const WindowBatches calibration(text.calibration.windows, MemoryPlan::kBatchTokens);
  const auto states = options_.max_memory ? partial.folder() / "states" : std::filesystem::path();
  const std::vector<LayerSums> sums = sums_of_layers(source_, runner, calibration, states, log_);
  const std::vector<std::vector<bool>> stays = super_experts_of(sums);
  std::vector<WeightVariant> variants;
  const auto least = static_cast<std::uint32_t>(least_router_rows(spec.moe, trials_.front().keep));
  for (const std::uint32_t keep : counts_to_try(trials_.front().keep, least)) {
    CountTrial trial;
    trial.keep = keep;
    for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
      trial.kept.emplace_back();
      if (spec.is_moe_layer(LayerId{l})) trial.kept[l] = most_needed(sums[l], stays[l], keep);
    }
    variants.push_back(without_others(trial.kept, spec));
    trials_.push_back(std::move(trial));
  }
  const WindowBatches probe(text.probe.windows, MemoryPlan::kBatchTokens);
  SweepMemory memory;
  if (options_.max_memory) memory = {Bytes{0}, partial.folder()};
  const auto divergences = measure_divergences(runner, spec, probe, variants, memory, log_);
  for (std::size_t v = 0; v < divergences.size(); ++v) {
    trials_[v + 1].dropped_kl = std::max(divergences[v], 0.0);
  }
}

double Trials::least_kl() const {
  double least = INFINITY;
  for (const CountTrial& trial : trials_) least = std::min(least, trial.kl.value_or(INFINITY));
  return least;
}

void Trials::compress(const std::function<model::Checkpoint(const KeptExperts&)>& reduced) {
  for (CountTrial& trial : trials_) {
    if (!(trial.dropped_kl < least_kl())) continue;
    if (trial.kept.empty()) {
      compress(trial, source_);
    } else {
      compress(trial, reduced(trial.kept));
    }
    log_.info(trial.kl ? fmt::format("{} experts a layer: {:.5f} nats", trial.keep, *trial.kl)
                       : fmt::format("{} experts a layer: {}", trial.keep, trial.impossible));
  }
}

void Trials::compress(CountTrial& trial, const model::Checkpoint& model) {
  CompressOptions options = options_;
  options.experts = {};
  options.keep_measurements = true;
  if (options.bits_per_weight) {  // of the source: the same bytes for every number
    *options.bits_per_weight *=
        static_cast<double>(source_.num_parameters()) / static_cast<double>(model.num_parameters());
  }
  if (!trial.kept.empty()) {
    options.reference = &source_;
    options.run["experts"] = trial.keep;
  }
  try {
    trial.result = compress_model(model, file_of(trial), &windows_, options, log_);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBudget) throw;
    trial.impossible = error.message();
    return;
  }
  const CompressResult& result = trial.result;
  if (result.measured) {
    trial.kl = result.measured->all.kl_divergence;
  } else {
    trial.kl = result.measured_kl.value_or(trial.dropped_kl + result.predicted_kl);
  }
}

Json Trials::record(const CountTrial& taken) const {
  Json tried = Json::array();
  for (const CountTrial& trial : trials_) {
    Json entry = {{"keep", trial.keep}, {"dropped_kl", trial.dropped_kl}};
    if (trial.kl) entry["kl"] = *trial.kl;
    if (!trial.impossible.empty()) entry["impossible"] = trial.impossible;
    tried.push_back(std::move(entry));
  }
  Json kept = Json::array();
  for (const auto& layer : taken.kept) {
    Json experts = Json::array();
    for (const ExpertId expert : layer) experts.push_back(index(expert));
    kept.push_back(std::move(experts));
  }
  return {{"tried", std::move(tried)}, {"keep", taken.keep}, {"kept", std::move(kept)}};
}

CompressResult Trials::finish() {
  const auto best =
      std::min_element(trials_.begin(), trials_.end(), [](const auto& a, const auto& b) {
        return a.kl.value_or(INFINITY) < b.kl.value_or(INFINITY);
      });
  if (!best->kl) {
    fail(ErrorCode::kBudget, "with {} experts a layer and with fewer: {}", trials_.front().keep,
         trials_.back().impossible);
  }
  std::error_code error;
  std::filesystem::rename(file_of(*best), out_, error);
  if (error) {
    fail(ErrorCode::kSystem, "{}: cannot be renamed to {}: {}", file_of(*best).string(),
         out_.string(), error.message());
  }
  for (const CountTrial& trial : trials_) {
    std::filesystem::remove(file_of(trial), error);
    std::filesystem::remove_all(file_of(trial).string() + ".partial", error);
  }
  best->result.counts_record = record(*best);
  return std::move(best->result);
}

}  // namespace

std::vector<std::uint32_t> counts_to_try(std::uint32_t experts, std::uint32_t least) {
  std::vector<std::uint32_t> counts;
  for (std::uint32_t eighths = 7; eighths > 0; --eighths) {
    const std::uint32_t count = experts * eighths / 8;
    if (count < least || count >= experts) continue;
    if (counts.empty() || counts.back() != count) counts.push_back(count);
  }
  return counts;
}

std::vector<ExpertId> most_needed(const LayerSums& sums, const std::vector<bool>& stays,
                                  std::size_t keep) {
  const ExpertReplacement& dropped = *find_expert_replacement("dropped");
  std::vector<double> changes;
  for (std::uint32_t e = 0; e < sums.experts.size(); ++e) {
    changes.push_back(change_per_token(dropped, sums, ExpertId{e}));
  }
  std::vector<bool> protects = stays;
  protects.resize(changes.size());
  return highest(changes, protects, keep);
}

CompressResult compress_portable(
    const model::Checkpoint& source, const std::filesystem::path& out,
    const metrics::WindowSet& windows, const CompressOptions& options,
    const std::function<model::Checkpoint(const KeptExperts&)>& reduced, Log& log) {
  Trials trials(source, out, windows, options, log);
  PartialOutput partial(out.string() + ".counts", Json::object(), PartialOutput::Start::kRestart);
  trials.measure_drops(partial);
  trials.compress(reduced);
  return trials.finish();
}

}  // namespace winnow::compress
