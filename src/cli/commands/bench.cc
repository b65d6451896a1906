// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow bench MODEL`: speed of prefill and decode beside what the machine can do at best.
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/memory_flags.h"
#include "cli/options.h"
#include "cli/routing_flags.h"
#include "cli/speed_report.h"
#include "cli/speed_workload.h"
#include "engine/cost.h"
#include "engine/engine.h"
#include "engine/expert_census.h"
#include "kernels/machine_rates.h"
#include "metrics/text_data.h"
#include "os/aligned_buffer.h"
#include "os/memory.h"
#include "text/tokenizer.h"

namespace winnow::cli {
namespace {

struct Options {
  std::string model;
  std::size_t prompt = 512;
  std::size_t generate = 128;
  std::size_t repetitions = 5;
  std::size_t sequences = 1;
  std::vector<std::string> data;
  bool profile_ops = false;
  engine::EngineOptions engine{.weights = engine::WeightMemory::kMapped,
                               .kv_type = kernels::KvType::kF16};
  RoutingFlags routing;
  MemoryFlags memory;
  std::optional<std::string> json;
};

/// What is measured before a model comes into its limit of memory: afterwards there is no room for
/// buffers beyond any cache.
struct Limited {
  engine::MemoryPlan plan;
  Machine machine;
  double disk_rate = 0;
};

/// The looks at a limit between runs: a buffer beyond any cache, where there is room for it, and a
/// time beyond any clock's error.
constexpr Bytes kLookBytes{std::uint64_t{256} << 20};
constexpr double kLookSeconds = 0.1;

/// One run of the command: a loaded model, its work and what has been measured of it.
class Bench {
 public:
  /// limited: borrowed; null without a limit of memory.
  /// text: tokens to run in the place of random ones, if any.
  Bench(const model::Checkpoint& checkpoint, engine::Engine& engine, const Options& options,
        const Limited* limited, std::vector<TokenId> text, Log& log)
      : checkpoint_(checkpoint),
        engine_(engine),
        options_(options),
        limited_(limited),
        log_(log),
        cost_(engine::token_cost(checkpoint, options.engine.kv_type)),
        workload_(engine, options.prompt, options.generate, options.sequences,
                  limited == nullptr ? Workload::kPrefillChunk : limited->plan.tokens,
                  {std::move(text), limited != nullptr}) {}

  /// Everything but the times of loading, which the caller knows.
  SpeedReport measure();
  /// What decoding went to; with flags that ask for fewer experts alone, after `measure`.
  const std::optional<engine::ExpertUse>& decoded() const { return use_; }
  /// Runs one token, so that it can be told when the first was possible.
  void run_first_token() { workload_.decode(1, log_); }

 private:
  void warm_up();
  void measure_prefill(SpeedReport& report);
  void measure_decode(SpeedReport& report);
  void measure_machine(Machine& machine);
  void time_decoding(SpeedReport& report, const std::function<double()>& read_rate);
  void measure_int8(Machine& machine);
  void measure_ops(SpeedReport& report);
  double step_bytes();
  double computed_experts(const std::function<void()>& work);
  const kernels::Kernels& kernels_in_use() const {
    return kernels::select_kernels(options_.engine.isa, os::CpuFeatures::detect());
  }
  /// For the memory's rate, whatever the kernels in use.
  static const kernels::Kernels& best_kernels() {
    return kernels::select_kernels("", os::CpuFeatures::detect());
  }
  std::size_t warm_up_tokens() const {
    return std::min(options_.generate, Workload::kWarmUpTokens);
  }
  experts::CacheStatistics cache_statistics() const {
    const experts::CacheStatistics* const statistics = engine_.expert_cache();
    return statistics == nullptr ? experts::CacheStatistics{} : *statistics;
  }
  double middle() const { return static_cast<double>(options_.generate) / 2; }

  const model::Checkpoint& checkpoint_;
  engine::Engine& engine_;
  const Options& options_;
  const Limited* limited_;
  Log& log_;
  engine::TokenCost cost_;
  Workload workload_;
  std::optional<engine::ExpertUse> use_;  // of the last `computed_experts`
};

/// What could have been done in the time that something took, by a limit that changes meanwhile.
class Possible {
 public:
  /// `rate` measures the limit, per second.
  explicit Possible(std::function<double()> rate) : rate_(std::move(rate)) {}
  void begin() {
    before_ = rate_();
    total_ = 0;
  }
  void pass(double seconds) {
    const double after = rate_();
    total_ += seconds * (before_ + after) / 2;
    before_ = after;
  }
  /// Since `begin`.
  double total() const { return total_; }

 private:
  std::function<double()> rate_;
  double before_ = 0;
  double total_ = 0;
};

SpeedReport Bench::measure() {
  SpeedReport report;
  report.prompt = options_.prompt;
  report.generate = options_.generate;
  report.repetitions = options_.repetitions;
  report.isa = engine_.isa();
  report.threads = engine_.threads();
  report.kv_type = kernels::to_string(options_.engine.kv_type);
  report.seed = Workload::kSeed;
  const double computed = computed_experts([&] { workload_.prefill(log_); });
  report.prefill_multiply_adds =
      cost_.with_experts(computed).prefill_multiply_adds(options_.prompt);
  const double decoded = computed_experts([&] { workload_.decode(options_.generate, log_); });
  report.decode_bytes = cost_.with_experts(decoded).decode_bytes(middle());
  measure_prefill(report);
  measure_decode(report);
  if (options_.profile_ops) measure_ops(report);
  return report;
}

void Bench::measure_prefill(SpeedReport& report) {
  const auto tokens = static_cast<double>(options_.prompt);
  std::vector<double> rates;
  std::vector<double> fractions;
  workload_.prefill(log_);  // to warm up
  measure_int8(report.machine);
  kernels::Int8RateMeter meter(kernels_in_use(), engine_.pool(), kLookSeconds);
  Possible possible([&] { return meter.rate(); });
  for (std::size_t i = 0; i < options_.repetitions; ++i) {
    possible.begin();
    rates.push_back(tokens / workload_.prefill(log_, [&](double took) { possible.pass(took); }));
    fractions.push_back(2 * report.prefill_multiply_adds * tokens / possible.total());
    log_.progress("prefill", i + 1, options_.repetitions, "runs");
  }
  measure_int8(report.machine);
  report.prefill = spread_of(std::move(rates));
  report.prefill_of_peak = spread_of(std::move(fractions));
}

/// One sequence and several take turns, and the memory is measured before, between and after them:
/// what is compared is measured within seconds.
void Bench::measure_decode(SpeedReport& report) {
  report.warm_up_rate =
      static_cast<double>(warm_up_tokens()) / workload_.decode(warm_up_tokens(), log_);
  if (options_.sequences > 1) {
    report.together.emplace();
    report.together->sequences = options_.sequences;
    report.together->step_bytes = step_bytes();
  }
  // Before the memory for the read rate is taken: it is not the model's.
  report.peak_rss = os::peak_resident_bytes();
  if (limited_ != nullptr) {
    report.machine.read_rate_huge = limited_->machine.read_rate_huge;
    report.machine.read_rate_small = limited_->machine.read_rate_small;
    time_decoding(report, [this] { return limited_->machine.read_rate(); });
    return;
  }
  measure_machine(report.machine);
  {
    const Bytes size = std::min(kLookBytes, kernels::read_rate_size(os::available_memory()));
    kernels::ReadRateMeter meter(best_kernels(), engine_.pool(), size, os::Pages::kHuge);
    time_decoding(report, [&meter] { return meter.rate(); });
  }
  measure_machine(report.machine);
}

void Bench::time_decoding(SpeedReport& report, const std::function<double()>& read_rate) {
  const bool together = report.together.has_value();
  const auto tokens = static_cast<double>(options_.generate);
  std::vector<double> rates, fractions, together_rates, speedups;
  experts::CacheStatistics cache;
  Possible possible(read_rate);
  for (std::size_t i = 0; i < options_.repetitions; ++i) {
    const experts::CacheStatistics before = cache_statistics();
    possible.begin();
    rates.push_back(tokens / workload_.decode(options_.generate, log_,
                                              [&](double took) { possible.pass(took); }));
    fractions.push_back(report.decode_bytes * tokens / possible.total());
    cache += cache_statistics() - before;
    if (together) {
      together_rates.push_back(static_cast<double>(options_.sequences) * tokens /
                               workload_.decode_together(options_.generate, log_));
      speedups.push_back(together_rates.back() / rates.back());
    }
    log_.progress("decode", i + 1, options_.repetitions, "runs");
  }
  report.decode = spread_of(std::move(rates));
  report.decode_of_bandwidth = spread_of(std::move(fractions));
  if (together) {
    report.together->rate = spread_of(std::move(together_rates));
    report.together->speedup = spread_of(std::move(speedups));
  }
  if (limited_ != nullptr) {
    const auto& slots = limited_->plan.slots;
    const std::uint64_t expert_bytes = slots.empty() ? 0 : slots.back().bytes;
    report.memory = {limited_->plan, cache, limited_->disk_rate, expert_bytes, {}};
    if (engine_.prefetch() != nullptr) report.memory->prefetch = *engine_.prefetch();
  }
}

/// Bytes of a step of all sequences, with the experts that they choose on the tokens of the timed
/// runs, or on others like them where every run has its own. Also warms up.
double Bench::step_bytes() {
  engine::ExpertCensus census(checkpoint_);
  workload_.decode_together(options_.generate, log_, &census);
  const double chosen =
      static_cast<double>(census.bytes()) / static_cast<double>(options_.generate);
  return cost_.step_bytes(options_.sequences, chosen, middle());
}

/// The share of the model's expert slots that `work` computes: all, unless flags ask for fewer.
double Bench::computed_experts(const std::function<void()>& work) {
  if (!options_.routing.given()) return 1;
  use_.emplace(engine_.spec());
  engine_.count_experts(&*use_);
  work();
  engine_.count_experts(nullptr);
  return 1 - use_->skipped_share().value_or(0);
}

void Bench::measure_machine(Machine& machine) {
  const Bytes size = kernels::read_rate_size(os::available_memory());
  const auto measure = [&](double& rate, os::Pages pages) {
    rate = std::max(rate, kernels::measure_read_rate(best_kernels(), engine_.pool(), size, pages));
    log_.check_interrupt();
  };
  measure(machine.read_rate_huge, os::Pages::kHuge);
  measure(machine.read_rate_small, os::Pages::kSmall);
}

void Bench::measure_int8(Machine& machine) {
  machine.int8_rate =
      std::max(machine.int8_rate, kernels::measure_int8_rate(kernels_in_use(), engine_.pool()));
  log_.check_interrupt();
}

/// In passes of their own: timers cost a little.
void Bench::measure_ops(SpeedReport& report) {
  OpsReport prefill;
  engine_.set_profile(&prefill.profile);
  prefill.seconds = workload_.prefill(log_);
  OpsReport decode;
  engine_.set_profile(&decode.profile);
  decode.seconds = workload_.decode(options_.generate, log_);
  engine_.set_profile(nullptr);
  report.prefill_ops = prefill;
  report.decode_ops = decode;
}

Json full_json(const SpeedReport& report, const std::string& model) {
  Json out;
  out["schema_version"] = 1;
  out["model"] = model;
  out.update(to_json(report));
  out["version"] = std::string(version());
  out["commit"] = std::string(commit());
  return out;
}

/// Lengths that fit the model, with a message for each that was cut.
Options fitted(Options options, const model::ModelSpec& spec, Log& log) {
  const auto fit = [&](std::size_t& length, std::string_view flag) {
    if (length <= spec.max_position_embeddings) return;
    log.warn(fmt::format("{} {} is beyond the model's context; using {}", flag, length,
                         spec.max_position_embeddings));
    length = spec.max_position_embeddings;
  };
  fit(options.prompt, "--prompt");
  fit(options.generate, "--generate");
  return options;
}

/// The limits of the machine, and the memory that the model gets; nothing without a limit.
std::optional<Limited> limit(const model::Checkpoint& checkpoint, Options& options, Log& log) {
  const auto plan = plan_within(options.memory, checkpoint,
                                {.positions = std::max(options.prompt, options.generate),
                                 .caches = options.sequences,
                                 .tokens = std::min(options.prompt, Workload::kPrefillChunk),
                                 .least_tokens = std::max<std::size_t>(options.sequences, 16),
                                 .logit_rows = options.sequences,
                                 .other = {},
                                 .process = {}},
                                options.engine, log);
  if (!plan) return std::nullopt;
  Limited limited{*plan, {}, measure_expert_reads(*plan, checkpoint, options.memory)};
  const Bytes room = plan->total() - plan->process - plan->reserve;
  os::ThreadPool pool(options.engine.threads != 0 ? options.engine.threads : os::usable_cpus());
  const kernels::Kernels& kernels = kernels::select_kernels("", os::CpuFeatures::detect());
  const auto measure = [&](os::Pages pages) {
    log.check_interrupt();
    return kernels::measure_read_rate(
        kernels, pool, std::min(room, kernels::read_rate_size(os::available_memory())), pages);
  };
  limited.machine.read_rate_huge = measure(os::Pages::kHuge);
  limited.machine.read_rate_small = measure(os::Pages::kSmall);
  return limited;
}

/// All tokens of --data, document after document; none without it.
std::vector<TokenId> read_tokens(const Options& options, const model::Checkpoint& checkpoint) {
  std::vector<TokenId> tokens;
  if (options.data.empty()) return tokens;
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
  for (const metrics::Document& document : metrics::read_documents(options.data)) {
    const auto encoded = tokenizer.encode(document.text, text::SpecialTokens::kAsText);
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  }
  if (tokens.empty())
    fail(ErrorCode::kBadData, "--data: there is no text in {}", fmt::join(options.data, ", "));
  return tokens;
}

void bench(Context& context, const Options& given) {
  const Stopwatch watch;
  const model::Checkpoint checkpoint = model::Checkpoint::open(given.model);
  Options options = fitted(given, checkpoint.spec(), context.log);
  const engine::RoutingPolicy policy = routing_policy(options.routing, checkpoint, context.log);
  std::vector<TokenId> text = read_tokens(options, checkpoint);
  const Stopwatch measuring;
  const std::optional<Limited> limited = limit(checkpoint, options, context.log);
  const double measured = measuring.seconds();
  const auto engine = load_engine(checkpoint, options.engine, context.log);
  engine->set_routing_policy(policy);
  begin_with_hot_set(options.memory, checkpoint, *engine);
  const double startup = watch.seconds() - measured;
  Bench bench(checkpoint, *engine, options, limited ? &*limited : nullptr, std::move(text),
              context.log);
  bench.run_first_token();
  const double first_token = watch.seconds() - measured;
  engine->settle();  // what is measured is the steady state
  SpeedReport report = bench.measure();
  keep_hot_set(options.memory, checkpoint, *engine);
  report.startup_seconds = startup;
  report.first_token_seconds = first_token;
  if (options.json) {
    Json json = full_json(report, model_label(checkpoint));
    if (bench.decoded()) json["routing_policy"] = to_json(options.routing, *bench.decoded());
    write_json(context, *options.json, json);
  }
  if (options.json == "-") return;
  context.out.write(to_text(report));
  if (bench.decoded()) context.out.write(to_text(*bench.decoded()) + "\n");
}

Action declare(CLI::App& app) {
  constexpr std::int64_t kMost = 1 << 30;
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  add_whole(app, {"--prompt", "N", "tokens of the prompt"}, options->prompt, 1, kMost);
  add_whole(app, {"--generate", "N", "tokens to generate"}, options->generate, 1, kMost);
  add_whole(app, {"--repetitions", "N", "runs of each kind; the median counts"},
            options->repetitions, 1, 1000000);
  add_whole(
      app,
      {"--sequences", "N", "also decode N sequences together, beside one, by the bytes they read"},
      options->sequences, 1, 4096);
  add_data(app, options->data);
  add_flag(app, "--profile-ops", options->profile_ops,
           "also show where the time of a prompt and of decoding goes");
  add_threads(app, options->engine.threads);
  add_isa(app, options->engine.isa);
  add_kv_type(app, options->engine.kv_type);
  conflict(add_memory(app, options->memory), add_weights(app, options->engine.weights));
  add_routing(app, options->routing);
  add_json(app, options->json);
  return [options](Context& context) { bench(context, *options); };
}

}  // namespace

extern const Command kBench{
    .name = "bench",
    .summary = "measure speed against the machine's limits",
    .description =
        "Runs random tokens, or those of --data, through the model, a prompt at once and then one "
        "token at a time from an empty context, and compares decoding with the rate at which the "
        "same threads read memory, and the prompt with the peak of the processor's int8 "
        "instructions, both measured in the same run. A model that fits the processor's caches can "
        "exceed the first. All runs have the same tokens, but for a limit of memory, where a cache "
        "of experts would know them: then each takes the next.\n\n"
        "With --sequences, several sequences are decoded together: dense weights are read once for "
        "all of them, and experts once for those that chose them. How much faster that could be is "
        "the ratio of the bytes.",
    .declare = declare};

}  // namespace winnow::cli
