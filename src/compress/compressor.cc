// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/compressor.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/calibration_text.h"
#include "compress/chosen_groups.h"
#include "compress/collect_moments.h"
#include "compress/compress_checks.h"
#include "compress/correction.h"
#include "compress/damage.h"
#include "compress/divergence_sweep.h"
#include "compress/group_packer.h"
#include "compress/list_options.h"
#include "compress/memory_plan.h"
#include "compress/mix_fit.h"
#include "compress/mix_measurer.h"
#include "compress/narrowed_groups.h"
#include "compress/option_costs.h"
#include "compress/partial_output.h"
#include "compress/profile_plan.h"
#include "compress/run_record.h"
#include "compress/skip_ratios.h"
#include "compress/tolerance.h"
#include "model/exporter.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

/// Of what is predicted for the choice before, with the same weights.
constexpr double kWorthPacking = 0.98;

class Compressor {
 public:
  Compressor(const model::Checkpoint& source, const std::filesystem::path& out,
             const metrics::WindowSet* windows, const CompressOptions& options, Log& log)
      : source_(source),
        out_(out),
        windows_(windows),
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
    if (options.skip_ratios) skip_ = no_skip_ratios(source.spec());  // the budget counts their size
  }

  CompressResult run();

 private:
  std::uint64_t budget() const;
  std::uint64_t planned_size() const;
  std::uint64_t fixed_bytes() const;
  std::uint64_t least_size();
  std::uint64_t largest_size();
  void require_budget();
  bool uses_hessians() const {
    return text_ && !text_->calibration.windows.empty() &&
           options_.hessians != HessianScope::kDiagonal && options_.encoders == EncoderKind::kOwn;
  }
  /// Whether the budget is that of the file, header and padding included.
  bool counts_file() const { return !options_.bits_per_weight; }
  bool measures_options() const { return traits(options_.allocation.kind).measures_options; }
  std::unique_ptr<GroupPacker> make_packer(const PackerContext& context);
  void measure_noise(PartialOutput& partial);
  ChosenGroups chosen() const;
  void fit_weights(const PackerContext& tools, const SweepMemory& memory);
  void choose_again(const PackerContext& tools, double measured, const WindowBatches& text,
                    const SweepMemory& memory);
  MixProblem problem() const;
  void choose(const PackerContext& tools);
  void measure_experts(const PackerContext& tools, const SweepMemory& memory);
  void choose_experts(bool fits);
  void choose_any(const PackerContext& tools, bool fits);
  void choose_within_tolerance(const PackerContext& tools, const SweepMemory& memory);
  double predicted_kl() const;
  void take(const ExpertMix& mix);
  void take_whole_experts();
  double measure_by_layers(const SweepMemory& memory);
  void prepare();
  void quantise();
  CompressResult result() const;
  void measure_output(CompressResult& result) const;
  model::ExportOptions export_options() const;

  const model::Checkpoint& source_;
  const std::filesystem::path& out_;
  const metrics::WindowSet* windows_;  // null without text
  const CompressOptions& options_;
  Log& log_;
  engine::LayerRunner runner_;
  std::vector<TensorGroup> groups_;
  std::optional<CalibrationText> text_;  // with text to measure divergence on
  std::optional<InputMoments> collected_;
  AllocationResult allocation_;
  MemoryPlan memory_;
  std::unique_ptr<GroupPacker> packer_;
  std::optional<WindowBatches> probe_;        // with text
  std::optional<MixMeasurer> measurer_;       // with text
  std::optional<WindowBatches> calibration_;  // with experts to choose for, as the two next
  std::filesystem::path expert_states_;       // where hidden states do not fit the memory
  std::optional<ExpertAllocator> experts_;
  ExpertMix expert_mix_;
  std::uint64_t tolerated_ = 0;  // the budget, where a tolerance decides it
  Json attempts_;
  double together_ = 1;  // see MixFit
  Json fitted_;
  std::optional<model::SkipRatios> skip_;
};

model::ExportOptions Compressor::export_options() const {
  model::ExportOptions result = compress::export_options(chosen());
  result.metadata = options_.metadata;
  if (skip_) std::ranges::copy(skip_ratio_metadata(*skip_), std::back_inserter(result.metadata));
  return result;
}

std::uint64_t Compressor::budget() const {
  if (options_.tolerance) return tolerated_;
  if (options_.file_budget) return options_.file_budget->value;
  return static_cast<std::uint64_t>(*options_.bits_per_weight / 8.0 *
                                    static_cast<double>(source_.num_parameters()));
}

/// Of what would be written now, as the budget counts.
std::uint64_t Compressor::planned_size() const {
  const model::ExportOptions current = export_options();
  return counts_file() ? model::planned_file_size(source_, current).value
                       : planned_bytes(plan_export(source_, current)).value;
}

/// Bytes that do not depend on the choices: the header, norms and routers.
std::uint64_t Compressor::fixed_bytes() const {
  std::uint64_t total = planned_size();
  for (const TensorGroup& group : groups_) {
    if (!group.left_out) total -= option_size(group.options[group.chosen], counts_file());
  }
  return total;
}

/// Of the smallest that can be made, as the budget counts. Which experts have to stay is known only
/// once they have been measured, as `take_whole_experts` leaves them.
std::uint64_t Compressor::least_size() {
  if (experts_) {
    const std::vector<ExpertItem>& items = experts_->items();
    return fixed_bytes() - router_bytes(items) +
           least_bytes({option_sizes(groups_, counts_file())}, items);
  }
  const std::vector<TensorGroup> whole = groups_;
  if (options_.experts.any()) groups_ = divide_experts(whole);
  std::uint64_t least = fixed_bytes();
  least += least_bytes(groups_, counts_file(), [this](const TensorGroup& group) {
    return stays_at_least(options_.experts, source_.spec(), group);
  });
  least += least_replacement_bytes(options_.experts, source_.spec());
  least -= droppable_router_bytes(options_.experts, source_.spec());
  groups_ = whole;
  return least;
}

/// Of the one in which every group has its largest option.
std::uint64_t Compressor::largest_size() {
  for (TensorGroup& group : groups_) group.chosen = group.options.size() - 1;
  return planned_size();
}

/// Before hours of measuring.
void Compressor::require_budget() {
  const std::uint64_t least = least_size();
  if (least <= budget()) return;
  const double parameters = static_cast<double>(source_.num_parameters());
  // Rounded up, so that the number can be given back as it stands.
  const double bits = std::ceil(8000.0 * static_cast<double>(least) / parameters) / 1000.0;
  fail(ErrorCode::kBudget,
       "the budget of {} bytes cannot be met: the smallest {} has {} bytes ({}, {:.3f} bits per "
       "weight){}",
       budget(), counts_file() ? "possible file" : "form of all tensors", least,
       format_bytes({least}), bits,
       options_.experts.any() ? ", or more where super experts have to stay" : "");
}

MixProblem Compressor::problem() const {
  // require_budget has seen that the smallest fit.
  return {option_sizes(groups_, counts_file()), budget() - fixed_bytes()};
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

void Compressor::take(const ExpertMix& mix) {
  expert_mix_ = mix;
  apply_mix(mix, experts_->items(), groups_);
}

void Compressor::measure_experts(const PackerContext& tools, const SweepMemory& memory) {
  groups_ = divide_experts(groups_);
  experts_.emplace(tools, options_.experts, *packer_, *probe_, memory);
  calibration_.emplace(text_->calibration.windows, MemoryPlan::kBatchTokens);
  if (memory_.states_on_disk) expert_states_ = memory.folder / "states-experts";
  experts_->measure(groups_, *calibration_, counts_file(), expert_states_);
  take_whole_experts();
}

void Compressor::take_whole_experts() {
  const std::size_t experts = experts_->items().size();
  take({Mix(groups_.size()), std::vector<std::optional<std::size_t>>(experts)});
}

/// fits: whether the slopes of replacements follow what is chosen, which runs the model.
void Compressor::choose_experts(bool fits) {
  const DamageTable damages = predicted_damages(groups_);
  take_whole_experts();
  const MixProblem all = problem();
  take(fits ? experts_->choose(all, damages) : experts_->solve(all, damages));
  const bool searches = fits && options_.allocation.kind == Allocation::kSearch;
  if (searches) take(experts_->search(all, damages, expert_mix_, options_.allocation.search));
  if (fits) take(experts_->refine(expert_mix_, damages, *calibration_, expert_states_));
  // What is replaced takes no room in the header either.
  const std::uint64_t taken = planned_size();
  WINNOW_CHECK(taken <= budget());
  take(experts_->refill(all, damages, expert_mix_, budget() - taken));
}

void Compressor::choose_any(const PackerContext& tools, bool fits) {
  experts_ ? choose_experts(fits) : choose(tools);
}

double Compressor::predicted_kl() const {
  DamageTable damages = predicted_damages(groups_);
  double total = 0;
  if (experts_) {
    total = experts_->predicted_kl(expert_mix_);
    damages = experts_->with_shared_use(damages, expert_mix_);
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (!groups_[g].left_out) total += damages[g][groups_[g].chosen];
  }
  return total * together_;
}

ChosenGroups Compressor::chosen() const {
  return {source_, groups_, packer_.get(), experts_ ? &*experts_ : nullptr, &expert_mix_};
}

/// On text that is neither learnt from nor what the file is judged by.
void Compressor::fit_weights(const PackerContext& tools, const SweepMemory& memory) {
  prepare();
  const metrics::WindowSet& text = text_->held_out.windows.empty() ? text_->probe : text_->held_out;
  const std::vector<metrics::Window> windows =
      sweep_windows(groups_, source_.spec(), text, text_->calibration.scored_tokens());
  const WindowBatches batches(windows, MemoryPlan::kBatchTokens);
  const double predicted = predicted_kl();
  const MixFit fit = fit_mix(chosen(), predicted_by_unit(chosen()), runner_, batches, memory, log_);
  scale_predictions(fit, groups_);
  if (experts_) {
    std::vector<double> factors;
    for (std::uint32_t l = 0; l < source_.spec().num_hidden_layers; ++l) {
      factors.push_back(fit.factor_of(unit_of_experts(LayerId{l})));
    }
    experts_->scale_slopes(factors);
  }
  together_ = fit.together;
  fitted_ = {{"predicted_kl", predicted}, {"kl", fit.measured}, {"together", fit.together}};
  const bool solves_again = options_.allocation.kind == Allocation::kSlopes &&
                            !options_.sequential && !options_.tolerance;
  if (solves_again) choose_again(tools, fit.measured, batches, memory);
}

/// With the fitted weights; what was chosen before stays unless the new choice measures better. It
/// is packed only where it promises to: quantising is most of the work.
void Compressor::choose_again(const PackerContext& tools, double measured,
                              const WindowBatches& text, const SweepMemory& memory) {
  const std::vector<TensorGroup> groups = groups_;
  const ExpertMix mix = expert_mix_;
  const AllocationResult allocation = allocation_;
  const double before = predicted_kl();
  choose_any(tools, false);
  if (predicted_kl() < kWorthPacking * before) {
    prepare();
    const std::vector<WeightVariant> variants = {packed_variant(chosen())};
    const double again =
        measure_divergences(runner_, source_.spec(), text, variants, memory, log_).front();
    fitted_["kl_chosen_again"] = again;
    if (again < measured) {
      together_ = again / (predicted_kl() / together_);
      return;
    }
  }
  groups_ = groups;
  expert_mix_ = mix;
  allocation_ = allocation;
}

void Compressor::choose_within_tolerance(const PackerContext& tools, const SweepMemory& memory) {
  ToleranceSearch search;
  search.tolerance = *options_.tolerance;
  search.least = least_size();
  search.most = largest_size();
  search.predicted = [&](std::uint64_t budget) {
    tolerated_ = budget;
    choose_any(tools, false);
    return predicted_kl();
  };
  search.measured = [&](std::uint64_t budget) {
    tolerated_ = budget;
    choose_any(tools, true);
    prepare();
    return measure_by_layers(memory);
  };
  const ToleranceResult found = smallest_within(search);
  tolerated_ = found.budget;
  choose_any(tools, true);
  attempts_ = found.attempts;
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
  const auto path = partial.folder() / "noise.json";
  const std::vector<metrics::Window> windows =
      sweep_windows(groups_, source_.spec(), text_->probe, text_->calibration.scored_tokens());
  if (load_noise(path, groups_)) return;
  const WindowBatches probe(windows, MemoryPlan::kBatchTokens);
  compress::measure_noise(groups_, *packer_, runner_, source_.spec(), probe,
                          {memory_.sweep_states, partial.folder()}, log_);
  save_noise(path, groups_);
  partial.keep();
}

void Compressor::prepare() {
  std::vector<PackOrder> orders;
  for (const TensorGroup& group : groups_) {
    if (!group.left_out) orders.push_back({&group, group.options[group.chosen].codec});
  }
  packer_->prepare(orders);
}

void Compressor::quantise() {
  prepare();
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
  result.predicted_kl = predicted_kl();
  result.together = together_;
  result.fit_record = fitted_;
  result.tolerance_record = attempts_;
  if (experts_) result.expert_record = experts_->record(expert_mix_);
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

/// KL(source || output) on the probe, with one layer in memory.
double Compressor::measure_by_layers(const SweepMemory& memory) {
  const std::vector<WeightVariant> variants = {packed_variant(chosen())};
  return measure_divergences(runner_, source_.spec(), *probe_, variants, memory, log_).front();
}

CompressResult Compressor::run() {
  check_allocation(options_.allocation.kind, text_.has_value(), source_.spec());
  check_compress_options(source_, options_, text_.has_value(), uses_hessians());
  list_options(source_, options_, groups_, log_);
  name_codecs_left_out(options_.encoders, log_);
  if (!options_.tolerance) require_budget();
  // An output that cannot be written is better known now than after hours.
  { const os::AtomicFile trial(out_); }
  warn_of_quantised_source(source_, groups_, log_);
  if (options_.max_memory) {
    const bool solves = traits(options_.allocation.kind).solves_knapsack || options_.experts.any();
    const MemoryWishes wishes{solves, skip_ ? windows_ : nullptr, &options_.experts};
    memory_ =
        plan_memory(source_, groups_, text_ ? &*text_ : nullptr, *options_.max_memory, wishes);
  }
  const Json record =
      run_record(source_, options_, text_ ? &*text_ : nullptr, runner_.kernels().isa, budget());
  using Start = PartialOutput::Start;
  PartialOutput partial(out_, record, options_.restart ? Start::kRestart : Start::kResume);
  const PackerContext tools{source_, runner_, partial.folder(), [&partial] { partial.keep(); },
                            log_};
  if (skip_) {
    const WindowBatches text(windows_->windows, MemoryPlan::kBatchTokens);
    skip_ = measure_skip_ratios(runner_, source_.spec(), text,
                                options_.max_memory ? tools.folder / "states-skip" : "", log_);
  }
  packer_ = make_packer(tools);
  const SweepMemory sweep{memory_.sweep_states, partial.folder()};
  if (text_) {
    probe_.emplace(text_->probe.windows, MemoryPlan::kBatchTokens);
    measurer_.emplace(tools, groups_, *packer_, *probe_, sweep);
  }
  if (measures_options()) {
    packer_->measure(groups_);
    if (text_) measure_noise(partial);
    complete_narrowed_groups(groups_);
    text_ ? predict_damage(groups_) : predict_without_text(groups_, source_.num_parameters());
  }
  if (options_.experts.any()) measure_experts(tools, sweep);
  if (options_.tolerance) {
    choose_within_tolerance(tools, sweep);
  } else {
    choose_any(tools, true);
  }
  const bool runs_as_written = !changes_vectors(options_.transforms, source_.spec());
  if (text_ && measures_options() && runs_as_written) fit_weights(tools, sweep);
  quantise();
  CompressResult finished = result();
  if (text_ && options_.max_memory && options_.reference == nullptr && runs_as_written) {
    finished.measured_kl = measure_by_layers(sweep);
  }
  packer_.reset();
  options_.keep_measurements ? partial.keep() : partial.remove();
  measure_output(finished);
  return finished;
}

}  // namespace

CompressResult compress_model(const model::Checkpoint& source, const std::filesystem::path& out,
                              const metrics::WindowSet* windows, const CompressOptions& options,
                              Log& log) {
  WINNOW_CHECK(int{options.file_budget.has_value()} + int{options.bits_per_weight.has_value()} +
                   int{options.tolerance.has_value()} ==
               1);
  require_plain_source(source);
  check_skip_ratios(source, options, windows != nullptr);
  return Compressor(source, out, windows, options, log).run();
}

}  // namespace winnow::compress
