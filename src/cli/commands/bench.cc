// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow bench MODEL`: speed of prefill and decode beside what the machine can do at best.
#include <algorithm>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "engine/cost.h"
#include "engine/engine.h"
#include "kernels/machine_rates.h"
#include "os/aligned_buffer.h"
#include "os/memory.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kPrefillChunk = 512;  // as in `run`
constexpr std::uint64_t kSeed = 0;

struct Options {
  std::string model;
  std::size_t prompt = 512;
  std::size_t generate = 128;
  std::size_t repetitions = 5;
  engine::EngineOptions engine{.weights = engine::WeightMemory::kMapped};
  std::optional<std::string> json;
};

/// Rates of the repetitions, in tokens per second.
struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {(values[(n - 1) / 2] + values[n / 2]) / 2, values.front(), values.back()};
}

struct Machine {
  double read_rate_huge = 0;
  double read_rate_small = 0;
  double int8_rate = 0;
  double read_rate() const { return std::max(read_rate_huge, read_rate_small); }
};

struct Report {
  Spread prefill;
  Spread decode;
  double decode_bytes = 0;
  double prefill_multiply_adds = 0;
  std::size_t peak_rss = 0;
  Machine machine;

  double bandwidth_fraction() const { return decode.median * decode_bytes / machine.read_rate(); }
  double peak_fraction() const {
    return 2 * prefill_multiply_adds * prefill.median / machine.int8_rate;
  }
};

/// The model with random tokens to run it on, so that every repetition does the same work.
class Workload {
 public:
  Workload(engine::Engine& engine, const Options& options)
      : engine_(engine), cache_(engine.make_cache(std::max(options.prompt, options.generate))) {
    Rng rng(kSeed);
    for (std::size_t i = 0; i < cache_.capacity(); ++i) {
      tokens_.push_back(TokenId{static_cast<std::int32_t>(rng.below(engine.spec().vocab_size))});
    }
  }

  /// Seconds to run `count` tokens, `chunk` at a time, from an empty cache.
  double run(std::size_t count, std::size_t chunk, const Log& log) {
    cache_.truncate(0);
    const Stopwatch watch;
    for (std::size_t begin = 0; begin < count; begin += chunk) {
      log.check_interrupt();
      const std::size_t size = std::min(chunk, count - begin);
      (void)engine_.next_logits(cache_, std::span(tokens_).subspan(begin, size));
    }
    return watch.seconds();
  }

 private:
  engine::Engine& engine_;
  engine::KvCache cache_;
  std::vector<TokenId> tokens_;
};

Spread measure(Workload& workload, std::string_view stage, std::size_t tokens, std::size_t chunk,
               std::size_t repetitions, Log& log) {
  std::vector<double> rates;
  workload.run(std::min<std::size_t>(tokens, 16 * chunk), chunk, log);  // to warm up
  for (std::size_t i = 0; i < repetitions; ++i) {
    rates.push_back(static_cast<double>(tokens) / workload.run(tokens, chunk, log));
    log.progress(stage, i + 1, repetitions, "runs");
  }
  return spread_of(std::move(rates));
}

Machine measure_machine(engine::Engine& engine, const Options& options, Log& log) {
  Machine machine;
  const Bytes size = kernels::read_rate_size(os::available_memory());
  log.progress("machine", 0, 3, "measurements");
  machine.read_rate_huge = kernels::measure_read_rate(engine.pool(), size, os::Pages::kHuge);
  log.check_interrupt();
  log.progress("machine", 1, 3, "measurements");
  machine.read_rate_small = kernels::measure_read_rate(engine.pool(), size, os::Pages::kSmall);
  log.check_interrupt();
  log.progress("machine", 2, 3, "measurements");
  const kernels::Kernels& kernels =
      kernels::select_kernels(options.engine.isa, os::CpuFeatures::detect());
  machine.int8_rate = kernels::measure_int8_rate(kernels, engine.pool());
  log.progress("machine", 3, 3, "measurements");
  return machine;
}

Report measure_all(engine::Engine& engine, const engine::TokenCost& cost, const Options& options,
                   Log& log) {
  Report report;
  {
    Workload workload(engine, options);
    report.prefill =
        measure(workload, "prefill", options.prompt, kPrefillChunk, options.repetitions, log);
    report.decode = measure(workload, "decode", options.generate, 1, options.repetitions, log);
  }
  // Before the memory for the read rate is taken: it is not the model's.
  report.peak_rss = os::peak_resident_bytes();
  report.machine = measure_machine(engine, options, log);
  report.decode_bytes = cost.decode_bytes(static_cast<double>(options.generate) / 2);
  report.prefill_multiply_adds = cost.prefill_multiply_adds(options.prompt);
  return report;
}

Json to_json(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.least}, {"max", spread.most}};
}

Json to_json(const Report& report, const engine::Engine& engine, const std::string& model,
             const Options& options) {
  Json out;
  out["schema_version"] = 1;
  out["model"] = model;
  out["prompt"] = options.prompt;
  out["generate"] = options.generate;
  out["repetitions"] = options.repetitions;
  out["prefill_tokens_per_second"] = to_json(report.prefill);
  out["decode_tokens_per_second"] = to_json(report.decode);
  out["decode_bytes_per_token"] = report.decode_bytes;
  out["read_bandwidth"] = report.machine.read_rate();
  out["read_bandwidth_4k"] = report.machine.read_rate_small;
  out["bandwidth_fraction"] = report.bandwidth_fraction();
  out["int8_peak_ops"] = report.machine.int8_rate;
  out["prefill_peak_fraction"] = report.peak_fraction();
  out["peak_rss"] = report.peak_rss;
  out["isa"] = std::string(engine.isa());
  out["threads"] = engine.threads();
  out["seed"] = kSeed;
  out["version"] = std::string(version());
  out["commit"] = std::string(commit());
  return out;
}

std::string to_text(const Report& report, const engine::Engine& engine, const Options& options) {
  std::string out = fmt::format("{}, threads: {}, repetitions: {}, median (min - max)\n",
                                engine.isa(), engine.threads(), options.repetitions);
  out += fmt::format("prefill {:>5} tokens  {:.1f} tok/s ({:.1f} - {:.1f})\n", options.prompt,
                     report.prefill.median, report.prefill.least, report.prefill.most);
  out += fmt::format("decode  {:>5} tokens  {:.1f} tok/s ({:.1f} - {:.1f})\n", options.generate,
                     report.decode.median, report.decode.least, report.decode.most);
  out += fmt::format(
      "decode reads {} per token: {:.1f} % of the read bandwidth, {:.1f} GB/s "
      "({:.1f} GB/s with 4 KiB pages)\n",
      format_bytes(Bytes{static_cast<std::uint64_t>(report.decode_bytes)}),
      100 * report.bandwidth_fraction(), report.machine.read_rate() / 1e9,
      report.machine.read_rate_small / 1e9);
  out += fmt::format("prefill does {:.3f} Gop per token: {:.1f} % of the int8 peak, {:.0f} Gop/s\n",
                     2 * report.prefill_multiply_adds / 1e9, 100 * report.peak_fraction(),
                     report.machine.int8_rate / 1e9);
  return out + fmt::format("peak memory {}\n", format_bytes(Bytes{report.peak_rss}));
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

void bench(Context& context, const Options& given) {
  const model::Checkpoint checkpoint = model::Checkpoint::open(given.model);
  const Options options = fitted(given, checkpoint.spec(), context.log);
  const auto engine = load_engine(checkpoint, options.engine, context.log);
  engine->settle();  // what is measured is the steady state
  const Report report = measure_all(*engine, engine::token_cost(checkpoint), options, context.log);
  if (options.json) {
    write_json(context, *options.json, to_json(report, *engine, model_label(checkpoint), options));
  }
  if (options.json != "-") context.out.write(to_text(report, *engine, options));
}

Action declare(CLI::App& app) {
  constexpr std::int64_t kMost = 1 << 30;
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  add_whole(app, {"--prompt", "N", "tokens of the prompt"}, options->prompt, 1, kMost);
  add_whole(app, {"--generate", "N", "tokens to generate"}, options->generate, 1, kMost);
  add_whole(app, {"--repetitions", "N", "runs of each kind; the median counts"},
            options->repetitions, 1, 1000000);
  add_threads(app, options->engine.threads);
  add_isa(app, options->engine.isa);
  add_weights(app, options->engine.weights);
  add_json(app, options->json);
  return [options](Context& context) { bench(context, *options); };
}

}  // namespace

extern const Command kBench{
    .name = "bench",
    .summary = "measure speed against the machine's limits",
    .description =
        "Runs random tokens through the model, a prompt at once and then one token at a time from "
        "an empty context, and compares decoding with the rate at which the same threads read "
        "memory, and the prompt with the peak of the processor's int8 instructions, both measured "
        "in the same run. A model that fits the processor's caches can exceed the first.",
    .declare = declare};

}  // namespace winnow::cli
