// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/compressor.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "compress/kl_probe.h"
#include "compress/knapsack.h"
#include "compress/moments.h"
#include "model/exporter.h"

namespace winnow::compress {
namespace {

// Logits kept for the held-out text take at most this much memory.
constexpr std::uint64_t kProbeBytes = std::uint64_t{512} << 20;

using GroupKey = std::pair<model::Role, std::uint32_t>;

/// Text for the moments, and text that the decisions are checked on.
struct SplitText {
  metrics::WindowSet calibration;
  metrics::WindowSet probe;
};

/// Every n-th window is held out, spread over the whole text, until `probe_tokens` are reached.
SplitText split_text(const metrics::WindowSet& all, std::uint64_t probe_tokens,
                     std::uint32_t vocab_size) {
  const std::uint64_t total = all.scored_tokens();
  const std::uint64_t fits = kProbeBytes / (std::uint64_t{4} * vocab_size);
  const std::uint64_t wanted =
      std::max<std::uint64_t>(std::min({probe_tokens, total / 4, fits}), 1);
  const std::size_t stride = static_cast<std::size_t>(std::max<std::uint64_t>(2, total / wanted));
  SplitText text{{all.domains, {}}, {all.domains, {}}};
  std::uint64_t held_out = 0;
  for (std::size_t i = 0; i < all.windows.size(); ++i) {
    const bool hold_out = i % stride == stride - 1 && held_out < wanted;
    if (hold_out) held_out += all.windows[i].scored();
    (hold_out ? text.probe : text.calibration).windows.push_back(all.windows[i]);
  }
  if (text.probe.windows.empty()) text.probe.windows.push_back(all.windows.back());
  return text;
}

InputMoments collect_moments(engine::Engine& engine, const metrics::WindowSet& text, Log& log) {
  InputMoments moments(engine.spec());
  std::size_t longest = 1;
  for (const auto& window : text.windows) longest = std::max(longest, window.tokens.size());
  engine::KvCache cache = engine.make_cache(longest);
  const std::uint64_t total = text.scored_tokens();
  std::uint64_t done = 0;
  for (const metrics::Window& window : text.windows) {
    log.check_interrupt();
    cache.truncate(0);
    const engine::SequenceInput input{&cache, window.tokens};
    engine.forward(std::span(&input, 1), &moments);
    done += window.scored();
    log.progress("calibrating", done, total, "tokens");
  }
  return moments;
}

/// Bytes of a group in the file: stacked experts are one tensor, padded to the alignment.
Bytes padded(Bytes payload) { return {checked_align_up(payload.value, 32).value()}; }

class Compressor {
 public:
  Compressor(const model::Checkpoint& source, const CompressOptions& options, Log& log)
      : source_(source),
        options_(options),
        log_(log),
        engine_(source, options.engine, log),
        groups_(list_groups(source)) {}

  CompressResult run(const std::filesystem::path& out, const metrics::WindowSet* windows);

 private:
  void measure_group(TensorGroup& group, KlProbe* probe);
  void choose();
  const TensorGroup& group_of(model::Role role, LayerId layer) const {
    return groups_[group_index_.at({role, index(layer)})];
  }
  model::ExportOptions export_options() const;
  std::uint64_t option_bytes(const GroupOption& option) const {
    return options_.file_budget ? option.bytes.value : option.payload.value;
  }

  const model::Checkpoint& source_;
  const CompressOptions& options_;
  Log& log_;
  engine::Engine engine_;
  std::vector<TensorGroup> groups_;
  std::map<GroupKey, std::size_t> group_index_;
  std::optional<InputMoments> moments_;
  mutable std::vector<float> importance_;  // of the matrix that is being written
};

void Compressor::measure_group(TensorGroup& group, KlProbe* probe) {
  const InputMoments* moments = moments_ ? &*moments_ : nullptr;
  for (const quant::Codec* codec : candidate_codecs(source_, group)) {
    log_.check_interrupt();
    const PackedGroup packed = pack_group(source_, group, *codec, moments, engine_.pool());
    GroupOption option;
    option.codec = codec;
    option.payload = {packed.bytes.size()};
    option.error = packed.error;
    option.bytes = padded(option.payload);
    // The smallest codec disturbs the model most, so its divergence is best measured.
    if (probe != nullptr && group.options.empty() && option.error > 0) {
      engine_.override_weights(group.role, group.layer, packed.parts);
      group.kl_per_error = probe->divergence(engine_) / option.error;
      engine_.restore_weights();
    }
    group.options.push_back(option);
  }
  // Without text each group's relative error counts by its share of the weights.
  if (probe == nullptr) {
    group.kl_per_error =
        static_cast<double>(group.weights) / static_cast<double>(source_.num_parameters());
  }
  for (GroupOption& option : group.options) {
    option.predicted_kl = group.kl_per_error * option.error;
  }
}

model::ExportOptions Compressor::export_options() const {
  model::ExportOptions result;
  result.codec = [this](model::Role role, LayerId layer) -> const quant::Codec& {
    const TensorGroup& group = group_of(role, layer);
    return *group.options[group.chosen].codec;
  };
  if (moments_) {
    result.importance = [this](model::Role role, LayerId layer, ExpertId expert) {
      importance_ = moments_->importance(role, layer, expert);
      return std::span<const float>(importance_);
    };
  }
  std::map<const quant::Codec*, std::uint64_t> weights;
  for (const TensorGroup& group : groups_) {
    weights[group.options[group.chosen].codec] += group.weights;
  }
  std::uint64_t most = 0;
  for (const quant::Codec* codec : quant::all_codecs()) {  // registry order breaks ties
    const auto found = weights.find(codec);
    if (found == weights.end() || found->second <= most) continue;
    most = found->second;
    result.nominal_codec = codec;
  }
  result.metadata = options_.metadata;
  return result;
}

void Compressor::choose() {
  std::vector<std::vector<Choice>> items;
  std::uint64_t chosen_bytes = 0;
  std::uint64_t least = 0;
  for (const TensorGroup& group : groups_) {
    items.emplace_back();
    std::uint64_t smallest = option_bytes(group.options[0]);
    for (const GroupOption& option : group.options) {
      items.back().push_back({option_bytes(option), option.predicted_kl});
      smallest = std::min(smallest, option_bytes(option));
    }
    least += smallest;
    chosen_bytes += option_bytes(group.options[group.chosen]);
  }
  // What does not depend on the choices: the header, norms and routers.
  const model::ExportOptions current = export_options();
  const std::uint64_t total = options_.file_budget
                                  ? model::planned_file_size(source_, current).value
                                  : planned_bytes(plan_export(source_, current)).value;
  const std::uint64_t fixed = total - chosen_bytes;
  const std::uint64_t budget =
      options_.file_budget
          ? options_.file_budget->value
          : static_cast<std::uint64_t>(std::floor(*options_.bits_per_weight / 8.0 *
                                                  static_cast<double>(source_.num_parameters())));
  const auto picks = budget < fixed ? std::nullopt : solve_knapsack(items, budget - fixed);
  if (!picks) {
    fail(ErrorCode::kBudget,
         "the budget of {} cannot be met: the smallest possible {} is {} ({} "
         "bytes, {:.3f} bits per weight)",
         format_bytes({budget}), options_.file_budget ? "file" : "model",
         format_bytes({fixed + least}), fixed + least,
         8.0 * static_cast<double>(fixed + least) / static_cast<double>(source_.num_parameters()));
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g].chosen = (*picks)[g];
}

CompressResult Compressor::run(const std::filesystem::path& out,
                               const metrics::WindowSet* windows) {
  CompressResult result;
  std::optional<SplitText> text;
  std::optional<KlProbe> probe;
  if (windows != nullptr) {
    text = split_text(*windows, options_.probe_tokens, source_.spec().vocab_size);
    moments_ = collect_moments(engine_, text->calibration, log_);
    probe.emplace(engine_, text->probe.windows, log_);
    result.calibration_tokens = text->calibration.scored_tokens();
    result.probe_tokens = probe->tokens();
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    group_index_[{groups_[g].role, index(groups_[g].layer)}] = g;
    measure_group(groups_[g], probe ? &*probe : nullptr);
    log_.progress("measuring", g + 1, groups_.size(), "tensor groups");
  }
  choose();
  export_model(source_, out, export_options(), engine_.pool(), log_);

  result.groups = groups_;
  result.num_parameters = source_.num_parameters();
  result.file_bytes = {std::filesystem::file_size(out)};
  result.tensor_bytes = planned_bytes(plan_export(source_, export_options()));
  for (const TensorGroup& group : groups_) {
    result.predicted_kl += group.options[group.chosen].predicted_kl;
  }
  if (text) {
    engine::Engine compressed(model::Checkpoint::open(out), options_.engine, log_);
    result.measured = metrics::evaluate(compressed, &engine_, text->probe, log_);
  }
  return result;
}

Json to_json(const TensorGroup& group) {
  Json json;
  json["role"] = std::string(model::traits(group.role).name);
  if (model::traits(group.role).per_layer) json["layer"] = index(group.layer);
  json["weights"] = group.weights;
  json["kl_per_error"] = group.kl_per_error;
  json["chosen"] = std::string(group.options[group.chosen].codec->name);
  Json options = Json::array();
  for (const GroupOption& option : group.options) {
    options.push_back({{"type", std::string(option.codec->name)},
                       {"bytes", option.bytes.value},
                       {"error", option.error},
                       {"predicted_kl", option.predicted_kl}});
  }
  json["options"] = options;
  return json;
}

}  // namespace

CompressResult compress_model(const model::Checkpoint& source, const std::filesystem::path& out,
                              const metrics::WindowSet* windows, const CompressOptions& options,
                              Log& log) {
  WINNOW_CHECK(options.file_budget.has_value() != options.bits_per_weight.has_value());
  return Compressor(source, options, log).run(out, windows);
}

Json to_json(const CompressResult& result) {
  Json json;
  json["file_bytes"] = result.file_bytes.value;
  json["tensor_bytes"] = result.tensor_bytes.value;
  json["parameters"] = result.num_parameters;
  json["bits_per_weight"] = 8.0 * static_cast<double>(result.tensor_bytes.value) /
                            static_cast<double>(result.num_parameters);
  json["calibration_tokens"] = result.calibration_tokens;
  json["probe_tokens"] = result.probe_tokens;
  if (result.measured) {
    json["predicted_kl"] = result.predicted_kl;
    json["measured"] = metrics::to_json(*result.measured);
  }
  Json groups = Json::array();
  for (const TensorGroup& group : result.groups) groups.push_back(to_json(group));
  json["groups"] = groups;
  return json;
}

}  // namespace winnow::compress
