// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/compressor.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "compress/calibration_text.h"
#include "compress/collect_moments.h"
#include "compress/damage.h"
#include "compress/divergence_sweep.h"
#include "compress/group_packer.h"
#include "compress/memory_plan.h"
#include "compress/mix_measurer.h"
#include "compress/partial_output.h"
#include "compress/profile_plan.h"
#include "model/exporter.h"
#include "model/fingerprint.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr const char* kNoiseFile = "noise.json";
constexpr Bytes kLongestNoise{std::uint64_t{64} << 20};

class Compressor {
 public:
  Compressor(const model::Checkpoint& source, const std::filesystem::path& out,
             const metrics::WindowSet* windows, const CompressOptions& options, Log& log)
      : source_(source),
        out_(out),
        options_(options),
        log_(log),
        runner_(source, options.engine),
        groups_(list_groups(source)) {
    if (windows != nullptr) {
      text_ = options.probe != nullptr ? divide_text(*windows, *options.probe, options.probe_tokens)
                                       : divide_text(*windows, options.probe_tokens);
    } else if (options.probe != nullptr && options.moments != nullptr) {
      text_ = divide_text({options.probe->domains, {}}, *options.probe, options.probe_tokens);
    }
  }

  CompressResult run();

 private:
  void list_options();
  bool can_make(const TensorGroup& group, const quant::Codec& codec) const;
  void name_codecs_left_out();
  void warn_of_quantised_source();
  void require_correctable() const;
  std::uint64_t budget() const;
  std::uint64_t fixed_bytes() const;
  void require_budget() const;
  Json run_record() const;
  bool uses_hessians() const {
    return text_ && !text_->calibration.windows.empty() &&
           options_.hessians != HessianScope::kDiagonal && options_.encoders == EncoderKind::kOwn;
  }
  bool measures_options() const { return traits(options_.allocation.kind).measures_options; }
  std::unique_ptr<GroupPacker> make_packer(const PackerContext& context);
  void measure_noise(PartialOutput& partial);
  void predict();
  MixProblem problem() const;
  void choose(const PackerContext& tools);
  void quantise();
  CompressResult result() const;
  void measure_output(CompressResult& result) const;
  const TensorGroup& group_of(model::Role role, LayerId layer) const {
    return groups_[group_index_.at({role, index(layer)})];
  }
  model::ExportOptions export_options() const;
  std::uint64_t option_bytes(const GroupOption& option) const {
    return options_.file_budget ? option.bytes.value : option.payload.value;
  }

  const model::Checkpoint& source_;
  const std::filesystem::path& out_;
  const CompressOptions& options_;
  Log& log_;
  engine::LayerRunner runner_;
  std::vector<TensorGroup> groups_;
  std::map<GroupKey, std::size_t> group_index_;
  std::optional<CalibrationText> text_;  // with text to measure divergence on
  std::optional<InputMoments> collected_;
  AllocationResult allocation_;
  MemoryPlan memory_;
  std::unique_ptr<GroupPacker> packer_;
  std::optional<WindowBatches> probe_;   // with text
  std::optional<MixMeasurer> measurer_;  // with text
};

/// All that is known of the options before anything is measured.
void Compressor::list_options() {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    TensorGroup& group = groups_[g];
    group_index_[key_of(group)] = g;
    for (const quant::Codec* codec : candidate_codecs(source_, group)) {
      if (!can_make(group, *codec)) continue;
      GroupOption option;
      option.codec = codec;
      option.rank = correction_rank(options_.corrections, source_, group, *codec);
      count_bytes(group, option);
      group.options.push_back(option);
    }
    WINNOW_CHECK(!group.options.empty());
  }
}

bool Compressor::can_make(const TensorGroup& group, const quant::Codec& codec) const {
  return find_encoder(codec, options_.encoders) != nullptr || is_stored_as(source_, group, codec);
}

void Compressor::name_codecs_left_out() {
  const std::string names = codecs_without_encoder(options_.encoders);
  if (names.empty()) return;
  log_.info(fmt::format("there is no encoder with llama.cpp's bytes for {}: left out", names));
}

void Compressor::require_correctable() const {
  if (options_.corrections.rank == 0 || uses_hessians()) return;
  fail(ErrorCode::kUsage,
       "low-rank corrections are judged on text and its Hessians: give --data, and another "
       "--hessians than 'diagonal'");
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

model::ExportOptions Compressor::export_options() const {
  model::ExportOptions result;
  result.codec = [this](model::Role role, LayerId layer) -> const quant::Codec& {
    const TensorGroup& group = group_of(role, layer);
    return *group.options[group.chosen].codec;
  };
  result.correction_rank = [this](model::Role role, LayerId layer) {
    const TensorGroup& group = group_of(role, layer);
    return group.options[group.chosen].rank;
  };
  if (packer_ != nullptr) {
    result.rows = [this](model::Role role, LayerId layer, ExpertId expert, std::size_t first,
                         std::span<std::byte> out) {
      const TensorGroup& group = group_of(role, layer);
      return packer_->pack_rows({&group, group.options[group.chosen].codec}, expert, first, out);
    };
    result.factor = [this](model::Role role, LayerId layer, ExpertId expert,
                           model::LowRankSide side, std::span<std::byte> out) {
      const TensorGroup& group = group_of(role, layer);
      packer_->factor({&group, group.options[group.chosen].codec}, expert, side, out);
    };
    result.edit = [this](model::Role role, LayerId layer, std::span<float> values) {
      packer_->edit(role, layer, values);
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

MixProblem Compressor::problem() const {
  MixProblem problem;
  for (const TensorGroup& group : groups_) {
    problem.bytes.emplace_back();
    for (const GroupOption& option : group.options) {
      problem.bytes.back().push_back(option_bytes(option));
    }
  }
  problem.room = budget() - fixed_bytes();  // require_budget has seen that the smallest fit
  return problem;
}

void Compressor::choose(const PackerContext& tools) {
  const AllocationContext context{tools,
                                  groups_,
                                  *packer_,
                                  options_.allocation,
                                  memory_,
                                  problem(),
                                  text_ ? &*text_ : nullptr,
                                  measurer_ ? &*measurer_ : nullptr};
  allocation_ = choose_mix(context);
  WINNOW_CHECK(context.problem.size_of(allocation_.mix) <= context.problem.room);
  for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g].chosen = allocation_.mix[g];
}

/// What the pieces in <OUT>.partial/ depend on. The budget is not among it: another one may use
/// them.
Json Compressor::run_record() const {
  Json run = options_.run.is_object() ? options_.run : Json::object();
  run["model"] = fmt::format("{:016x}", model::fingerprint(source_.file()));
  run["isa"] = std::string(runner_.kernels().isa);
  run["hessians"] = std::string(to_string(options_.hessians));
  run["probe_tokens"] = options_.probe_tokens;
  if (options_.corrections.rank != 0) run["correction_rank"] = options_.corrections.rank;
  run["text"] = "";
  if (text_) {
    run["text"] = fmt::format("{:016x}", text_fingerprint(text_->calibration));
    run["held_out"] = fmt::format("{:016x}", text_fingerprint(text_->held_out));
    run["probe"] = fmt::format("{:016x}", text_fingerprint(text_->probe));
  }
  // What comes before a group decides its bytes, and what is wanted decides a layer's changes.
  if (options_.sequential || options_.transforms.any()) run["budget"] = budget();
  if (options_.sequential) run["allocation"] = dump_json(describe(options_.allocation));
  return run;
}

std::unique_ptr<GroupPacker> Compressor::make_packer(const PackerContext& context) {
  if (uses_hessians()) {
    HessianPackerOptions options;
    options.quantizer = options_.quantizer;
    options.corrections = options_.corrections;
    options.hessians.scope = options_.hessians;
    options.hessians.memory = memory_.hessians;
    options.transforms = options_.transforms;
    options.bits_per_weight =
        8.0 * static_cast<double>(budget()) / static_cast<double>(source_.num_parameters());
    options.sequential = options_.sequential;
    options.states_on_disk = memory_.states_on_disk;
    return make_hessian_packer(context, *text_, options);
  }
  if (options_.moments == nullptr && text_) {
    const WindowBatches batches(text_->calibration.windows, MemoryPlan::kBatchTokens);
    const auto states =
        memory_.states_on_disk ? context.folder / "states-calibration" : std::filesystem::path();
    collected_ = collect_moments(runner_, source_.spec(), batches, states, options_.encoders, log_);
  }
  return make_encoder_packer(context, collected_ ? &*collected_ : options_.moments,
                             options_.encoders);
}

void Compressor::measure_noise(PartialOutput& partial) {
  const auto path = partial.folder() / kNoiseFile;
  if (std::filesystem::exists(path)) {
    const Json json = parse_json(os::read_text_file(path, kLongestNoise), path.string());
    try {
      for (TensorGroup& group : groups_) {
        for (NoisePoint& point : group.noise) {
          point.kl = json.at(group.name()).at(std::string(point.codec->name)).get<double>();
        }
      }
    } catch (const Json::exception&) {
      fail_data("{}: is no record of divergences; add --restart to begin anew", path.string());
    }
    return;
  }
  const std::vector<metrics::Window> windows =
      sweep_windows(groups_, source_.spec(), text_->probe, text_->calibration.scored_tokens());
  const WindowBatches probe(windows, MemoryPlan::kBatchTokens);
  compress::measure_noise(groups_, *packer_, runner_, source_.spec(), probe,
                          {memory_.sweep_states, partial.folder()}, log_);
  Json json = Json::object();
  for (const TensorGroup& group : groups_) {
    for (const NoisePoint& point : group.noise) {
      json[group.name()][std::string(point.codec->name)] = point.kl;
    }
  }
  os::write_text_file(path, dump_json(json) + "\n");
  partial.keep();
}

void Compressor::predict() {
  if (text_) {
    predict_damage(groups_);
    return;
  }
  // Each group's relative error counts by its share of the weights.
  for (TensorGroup& group : groups_) {
    for (GroupOption& option : group.options) {
      option.predicted_kl = option.error * static_cast<double>(group.weights) /
                            static_cast<double>(source_.num_parameters());
    }
  }
}

void Compressor::quantise() {
  std::vector<PackOrder> orders;
  for (const TensorGroup& group : groups_) {
    orders.push_back({&group, group.options[group.chosen].codec});
  }
  packer_->prepare(orders);
  export_model(source_, out_, export_options(), runner_.pool(), log_);
}

CompressResult Compressor::result() const {
  CompressResult result;
  result.groups = groups_;
  result.num_parameters = source_.num_parameters();
  result.file_bytes = model::planned_file_size(source_, export_options());
  result.tensor_bytes = planned_bytes(plan_export(source_, export_options()));
  result.measures_options = measures_options();
  result.predicts_kl = text_.has_value() && result.measures_options;
  result.allocation = std::string(traits(options_.allocation.kind).name);
  result.allocation_record = allocation_.record;
  if (text_) {
    result.calibration_tokens =
        text_->calibration.scored_tokens() + text_->held_out.scored_tokens();
    result.probe_tokens = text_->probe.scored_tokens();
  }
  for (const TensorGroup& group : groups_) {
    result.predicted_kl += group.options[group.chosen].predicted_kl;
  }
  return result;
}

/// Both models at once: only where there is room for them.
void Compressor::measure_output(CompressResult& result) const {
  if (!text_ || options_.max_memory) return;
  const model::Checkpoint& reference =
      options_.reference != nullptr ? *options_.reference : source_;
  engine::Engine original(reference, options_.engine, log_);
  engine::Engine compressed(model::Checkpoint::open(out_), options_.engine, log_);
  result.measured = metrics::evaluate(compressed, &original, text_->probe, log_);
}

CompressResult Compressor::run() {
  check_allocation(options_.allocation.kind, text_.has_value(), source_.spec());
  require_correctable();
  list_options();
  name_codecs_left_out();
  require_budget();
  // An output that cannot be written is better known now than after hours.
  { const os::AtomicFile trial(out_); }
  warn_of_quantised_source();
  if (options_.max_memory) {
    memory_ = plan_memory(source_, groups_, text_ ? &*text_ : nullptr, *options_.max_memory);
  }
  using Start = PartialOutput::Start;
  PartialOutput partial(out_, run_record(), options_.restart ? Start::kRestart : Start::kResume);
  const PackerContext tools{source_, runner_, partial.folder(), [&partial] { partial.keep(); },
                            log_};
  packer_ = make_packer(tools);
  if (text_) {
    probe_.emplace(text_->probe.windows, MemoryPlan::kBatchTokens);
    measurer_.emplace(tools, groups_, *packer_, *probe_,
                      SweepMemory{memory_.sweep_states, partial.folder()});
  }
  if (measures_options()) {
    packer_->measure(groups_);
    if (text_) measure_noise(partial);
    predict();
  }
  choose(tools);
  quantise();
  CompressResult finished = result();
  const bool changes_norms = options_.transforms.attention_input || options_.transforms.ffn_input;
  if (text_ && options_.max_memory && options_.reference == nullptr && !changes_norms) {
    finished.measured_kl = measurer_->measure(std::vector<Mix>{allocation_.mix}).front();
  }
  packer_.reset();
  partial.remove();
  measure_output(finished);
  return finished;
}

Json to_json(const TensorGroup& group, const CompressResult& result) {
  Json json;
  json["role"] = std::string(model::traits(group.role).name);
  if (model::traits(group.role).per_layer) json["layer"] = index(group.layer);
  json["weights"] = group.weights;
  if (result.predicts_kl) json["kl_per_error"] = group.kl_per_error;
  json["chosen"] = std::string(group.options[group.chosen].codec->name);
  Json options = Json::array();
  for (const GroupOption& option : group.options) {
    options.push_back({{"type", std::string(option.codec->name)},
                       {"bytes", option.bytes.value},
                       {"tensor_bytes", option.payload.value}});
    if (result.measures_options) options.back()["error"] = option.error;
    if (option.rank > 0) options.back()["correction_rank"] = option.rank;
    if (result.predicts_kl) options.back()["predicted_kl"] = option.predicted_kl;
  }
  json["options"] = options;
  return json;
}

}  // namespace

CompressResult compress_model(const model::Checkpoint& source, const std::filesystem::path& out,
                              const metrics::WindowSet* windows, const CompressOptions& options,
                              Log& log) {
  WINNOW_CHECK(options.file_budget.has_value() != options.bits_per_weight.has_value());
  require_plain_source(source);
  return Compressor(source, out, windows, options, log).run();
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
  if (result.predicts_kl) json["predicted_kl"] = result.predicted_kl;
  json["allocation"] = result.allocation;
  json.update(result.allocation_record);
  if (result.measured_kl) json["measured"] = {{"kl_divergence", *result.measured_kl}};
  if (result.measured) {
    json["measured"] = metrics::to_json(*result.measured);
  }
  Json groups = Json::array();
  for (const TensorGroup& group : result.groups) {
    groups.push_back(to_json(group, result));
  }
  json["groups"] = groups;
  return json;
}

}  // namespace winnow::compress
