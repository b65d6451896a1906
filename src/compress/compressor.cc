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
#include "os/file.h"

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

/// Every n-th window is held out, spread over the whole text, until `probe_tokens` are reached. Of
/// a single window the divergence is measured on the text that the moments come from.
SplitText split_text(const metrics::WindowSet& all, std::uint64_t probe_tokens,
                     std::uint32_t vocab_size) {
  const std::uint64_t total = all.scored_tokens();
  const std::uint64_t fits =
      std::max<std::uint64_t>(kProbeBytes / (std::uint64_t{4} * vocab_size), 1);
  const std::uint64_t wanted =
      std::max<std::uint64_t>(std::min({probe_tokens, total / 4, fits}), 1);
  const std::size_t stride = static_cast<std::size_t>(
      std::clamp<std::uint64_t>(total / wanted, 2, std::max<std::size_t>(2, all.windows.size())));
  SplitText text{{all.domains, {}}, {all.domains, {}}};
  std::uint64_t held_out = 0;
  for (std::size_t i = 0; i < all.windows.size(); ++i) {
    const bool hold_out = i % stride == stride - 1 && held_out < wanted;
    if (hold_out) held_out += all.windows[i].scored();
    (hold_out ? text.probe : text.calibration).windows.push_back(all.windows[i]);
  }
  if (text.probe.windows.empty()) text.probe.windows.push_back(all.windows.back());
  // A window may be longer than what was wanted; its logits have to fit all the same.
  metrics::Window& last = text.probe.windows.back();
  const std::uint64_t surplus =
      text.probe.scored_tokens() - std::min(text.probe.scored_tokens(), fits);
  last.tokens.resize(last.tokens.size() - static_cast<std::size_t>(surplus));
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
  void list_options();
  void warn_of_quantised_source();
  std::uint64_t budget() const;
  std::uint64_t fixed_bytes() const;
  void require_budget() const;
  void measure_option(TensorGroup& group, GroupOption& option, KlProbe* probe);
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

/// All that is known of the options before anything is measured.
void Compressor::list_options() {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    TensorGroup& group = groups_[g];
    group_index_[{group.role, index(group.layer)}] = g;
    for (const quant::Codec* codec : candidate_codecs(source_, group)) {
      GroupOption option;
      option.codec = codec;
      option.payload = packed_bytes(group, *codec);
      option.bytes = padded(option.payload);
      group.options.push_back(option);
    }
  }
}

void Compressor::warn_of_quantised_source() {
  for (const TensorGroup& group : groups_) {
    const quant::Codec& stored = source_.at(group.role, group.layer).codec();
    if (stored.is_float()) continue;
    log_.warn(fmt::format(
        "{}: is quantised already ({}: {}); what that lost stays lost, and the divergence is "
        "measured from this file. Compress the original where you have it",
        source_.file().name(), group.name(), stored.name));
    return;
  }
}

void Compressor::measure_option(TensorGroup& group, GroupOption& option, KlProbe* probe) {
  if (is_stored_as(source_, group, *option.codec)) return;  // copied: no error
  const InputMoments* moments = moments_ ? &*moments_ : nullptr;
  const PackedGroup packed =
      pack_group(source_, group, *option.codec, moments, engine_.pool(), log_);
  option.error = packed.error;
  // The smallest codec disturbs the model most, so its divergence is best measured.
  const GroupOption& first = group.options.front();
  if (probe != nullptr && &option == &first && option.error > 0) {
    engine_.override_weights(group.role, group.layer, packed.parts);
    option.predicted_kl = probe->divergence(engine_);
    engine_.restore_weights();
    group.kl_per_error = option.predicted_kl / option.error;
  }
  if (probe == nullptr) {
    // Each group's relative error counts by its share of the weights.
    option.predicted_kl = option.error * static_cast<double>(group.weights) /
                          static_cast<double>(source_.num_parameters());
  } else if (first.error > 0) {
    option.predicted_kl = first.predicted_kl * (option.error / first.error);
  }
}

void Compressor::measure_group(TensorGroup& group, KlProbe* probe) {
  for (GroupOption& option : group.options) {
    log_.check_interrupt();
    with_context(group.name(), [&] { measure_option(group, option, probe); });
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

std::uint64_t Compressor::budget() const {
  if (options_.file_budget) return options_.file_budget->value;
  const double bytes =
      std::floor(*options_.bits_per_weight / 8.0 * static_cast<double>(source_.num_parameters()));
  return static_cast<std::uint64_t>(bytes);
}

/// Bytes that do not depend on the choices: the header, norms and routers.
std::uint64_t Compressor::fixed_bytes() const {
  const model::ExportOptions current = export_options();
  std::uint64_t total = options_.file_budget ? model::planned_file_size(source_, current).value
                                             : planned_bytes(plan_export(source_, current)).value;
  for (const TensorGroup& group : groups_) total -= option_bytes(group.options[group.chosen]);
  return total;
}

/// Before hours of measuring.
void Compressor::require_budget() const {
  std::uint64_t least = fixed_bytes();
  for (const TensorGroup& group : groups_) {
    std::uint64_t smallest = option_bytes(group.options[0]);
    for (const GroupOption& option : group.options) {
      smallest = std::min(smallest, option_bytes(option));
    }
    least += smallest;
  }
  if (least <= budget()) return;
  const double parameters = static_cast<double>(source_.num_parameters());
  // Rounded up, so that the number can be given back as it stands.
  const double bits = std::ceil(8000.0 * static_cast<double>(least) / parameters) / 1000.0;
  fail(ErrorCode::kBudget,
       "the budget of {} bytes cannot be met: the smallest {} has {} bytes ({}, {:.3f} bits per "
       "weight)",
       budget(), options_.file_budget ? "possible file" : "form of all tensors", least,
       format_bytes({least}), bits);
}

void Compressor::choose() {
  std::vector<std::vector<Choice>> items;
  for (const TensorGroup& group : groups_) {
    items.emplace_back();
    for (const GroupOption& option : group.options) {
      items.back().push_back({option_bytes(option), option.predicted_kl});
    }
  }
  const auto picks = solve_knapsack(items, budget() - fixed_bytes());
  WINNOW_CHECK(picks.has_value());  // require_budget has seen that the smallest options fit
  for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g].chosen = (*picks)[g];
}

CompressResult Compressor::run(const std::filesystem::path& out,
                               const metrics::WindowSet* windows) {
  list_options();
  require_budget();
  // An output that cannot be written is better known now than after hours.
  { const os::AtomicFile trial(out); }
  warn_of_quantised_source();
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
    measure_group(groups_[g], probe ? &*probe : nullptr);
    log_.progress("measuring", g + 1, groups_.size(), "tensor groups");
  }
  choose();
  export_model(source_, out, export_options(), engine_.pool(), log_);

  result.groups = groups_;
  result.num_parameters = source_.num_parameters();
  result.file_bytes = model::planned_file_size(source_, export_options());
  result.tensor_bytes = planned_bytes(plan_export(source_, export_options()));
  for (const TensorGroup& group : groups_) {
    result.predicted_kl += group.options[group.chosen].predicted_kl;
  }
  if (text) {
    probe.reset();
    engine::Engine compressed(model::Checkpoint::open(out), options_.engine, log_);
    result.measured = metrics::evaluate(compressed, &engine_, text->probe, log_);
  }
  return result;
}

Json to_json(const TensorGroup& group, bool with_text) {
  Json json;
  json["role"] = std::string(model::traits(group.role).name);
  if (model::traits(group.role).per_layer) json["layer"] = index(group.layer);
  json["weights"] = group.weights;
  if (with_text) json["kl_per_error"] = group.kl_per_error;
  json["chosen"] = std::string(group.options[group.chosen].codec->name);
  Json options = Json::array();
  for (const GroupOption& option : group.options) {
    options.push_back({{"type", std::string(option.codec->name)},
                       {"bytes", option.bytes.value},
                       {"tensor_bytes", option.payload.value},
                       {"error", option.error}});
    if (with_text) options.back()["predicted_kl"] = option.predicted_kl;
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
  for (const TensorGroup& group : result.groups) {
    groups.push_back(to_json(group, result.measured.has_value()));
  }
  json["groups"] = groups;
  return json;
}

}  // namespace winnow::compress
