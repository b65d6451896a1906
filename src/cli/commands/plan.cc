// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow plan MODEL --memory BYTES`: where every byte would go, and what speed that allows.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "base/error.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/memory_flags.h"
#include "cli/options.h"
#include "engine/cost.h"
#include "engine/memory_plan.h"
#include "engine/speed_bound.h"
#include "kernels/kernels.h"
#include "kernels/machine_rates.h"
#include "os/memory.h"
#include "os/thread_pool.h"
#include "text/tokenizer.h"

namespace winnow::cli {
namespace {

struct Options {
  std::string model;
  MemoryFlags memory;
  std::optional<std::uint32_t> context;
  std::optional<Bytes> disk_rate, read_rate;  ///< per second
  engine::EngineOptions engine{.kv_type = kernels::KvType::kF16};
  std::optional<std::string> json;
};

/// A plan with what it means for decoding.
struct Forecast {
  engine::MemoryPlan plan;
  std::size_t positions = 0;
  engine::SpeedTerms terms;
  engine::SpeedBound bound;
};

double read_rate(const Options& options, const engine::MemoryPlan& plan) {
  if (options.read_rate) return static_cast<double>(options.read_rate->value);
  const unsigned threads = options.engine.threads != 0 ? options.engine.threads : os::usable_cpus();
  os::ThreadPool pool(threads);
  const Bytes room = plan.total() - plan.process - plan.reserve;
  return kernels::measure_read_rate(kernels::select_kernels("", os::CpuFeatures::detect()), pool,
                                    std::min(room, kernels::read_rate_size(os::available_memory())),
                                    os::Pages::kHuge);
}

std::size_t positions_of(const Options& options, const model::ModelSpec& spec) {
  const std::size_t most = spec.max_position_embeddings;
  if (!options.context) return std::min<std::size_t>(most, 4096);
  if (*options.context > most) {
    fail(ErrorCode::kUsage, "--context: {} is beyond the {} positions of the model",
         *options.context, most);
  }
  return *options.context;
}

Forecast forecast(const model::Checkpoint& checkpoint, Options options, Log& log) {
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());  // a run holds one
  Forecast result;
  result.positions = positions_of(options, checkpoint.spec());
  const auto plan =
      plan_within(options.memory, checkpoint,
                  {.positions = result.positions, .other = {}, .process = {}}, options.engine, log);
  WINNOW_CHECK(plan.has_value());
  result.plan = *plan;
  const engine::TokenCost cost = engine::token_cost(checkpoint, options.engine.kv_type);
  engine::SpeedTerms& terms = result.terms;
  terms.expert_bytes = cost.expert_bytes;
  terms.dense_bytes =
      cost.decode_bytes(static_cast<double>(result.positions) / 2) - cost.expert_bytes;
  terms.hit_rate = plan->covered();
  terms.passes = options.memory.io == "buffered" ? 3 : 1;
  terms.disk_rate = options.disk_rate ? static_cast<double>(options.disk_rate->value)
                                      : measure_expert_reads(*plan, checkpoint, options.memory);
  terms.memory_rate = read_rate(options, *plan);
  result.bound = engine::speed_bound(terms);
  return result;
}

std::string_view name_of(engine::SpeedLimit limit) {
  return limit == engine::SpeedLimit::kDisk ? "disk" : "memory";
}

Json to_json(const Forecast& forecast) {
  const engine::MemoryPlan& plan = forecast.plan;
  Json out;
  out["schema_version"] = 1;
  out["budget"] = plan.budget.value;
  out["minimum"] = plan.minimum.value;
  out["context"] = forecast.positions;
  out["bytes"] = {{"process", plan.process.value},
                  {"reserve", plan.reserve.value},
                  {"dense", plan.dense.value},
                  {"kv_caches", plan.kv_caches.value},
                  {"activations", plan.activations.value},
                  {"scratch", plan.scratch.value},
                  {"reads", plan.reads.value},
                  {"experts", plan.experts.value},
                  {"total", plan.total().value}};
  out["prefill_tokens"] = plan.tokens;
  out["resident"] = plan.resident;
  out["all_experts"] = plan.all_experts.value;
  out["token_cycle"] = plan.token_cycle.value;
  out["below_cycle"] = plan.below_cycle();
  Json& slots = out["slots"] = Json::array();
  for (const experts::SlotClass& c : plan.slots) {
    slots.push_back({{"bytes", c.bytes}, {"slots", c.slots}, {"experts", c.experts}});
  }
  out["hit_rate"] = forecast.terms.hit_rate;
  out["read_bandwidth"] = forecast.terms.memory_rate;
  out["disk_bandwidth"] = forecast.terms.disk_rate;
  out["decode_tokens_per_second"] = forecast.bound.tokens_per_second;
  out["limited_by"] = std::string(name_of(forecast.bound.limit));
  return out;
}

std::string slots_text(const engine::MemoryPlan& plan) {
  std::string text;
  for (const experts::SlotClass& c : plan.slots) {
    text += fmt::format("                {} slots of {} for {} experts\n", c.slots,
                        format_bytes({c.bytes}), c.experts);
  }
  return text;
}

std::string to_text(const Forecast& forecast) {
  const engine::MemoryPlan& plan = forecast.plan;
  std::string out;
  const auto line = [&out](std::string_view name, Bytes bytes, std::string_view note = "") {
    out += fmt::format("{:<15} {:>11}  {}", name, format_bytes(bytes), note);
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  };
  line("dense weights", plan.dense);
  line("keys, values", plan.kv_caches, fmt::format("{} positions", forecast.positions));
  line("activations", plan.activations, fmt::format("{} tokens of a prompt at once", plan.tokens));
  line("scratch", plan.scratch);
  line("reads", plan.reads);
  line("process", plan.process, "before the weights");
  line("reserve", plan.reserve);
  line("experts", plan.experts,
       plan.resident
           ? "all of them"
           : fmt::format("{:.1f}% of {}", 100 * plan.covered(), format_bytes(plan.all_experts)));
  out += slots_text(plan);
  line("together", plan.total(), fmt::format("of {}", format_bytes(plan.budget)));
  line("at least", plan.minimum);
  const engine::SpeedTerms& terms = forecast.terms;
  if (!plan.resident) {
    out += fmt::format(
        "a token uses {} of experts, of which {:.1f}% are in memory if all are chosen alike "
        "(real text does better); the disk gives {:.2f} GB/s\n",
        format_bytes(plan.token_cycle), 100 * terms.hit_rate, terms.disk_rate / 1e9);
  }
  out += fmt::format("at most {:.2f} tokens a second, limited by the {} ({:.1f} GB/s of memory)\n",
                     forecast.bound.tokens_per_second, name_of(forecast.bound.limit),
                     terms.memory_rate / 1e9);
  if (plan.below_cycle()) {
    out += fmt::format(
        "the {} of one token's experts do not fit: a policy by recency alone would find none\n",
        format_bytes(plan.token_cycle));
  }
  return out;
}

void plan(Context& context, const Options& options) {
  const auto checkpoint = model::Checkpoint::open(options.model);
  const Forecast result = forecast(checkpoint, options, context.log);
  if (options.json) {
    Json json = to_json(result);
    json["model"] = model_label(checkpoint);
    write_json(context, *options.json, json);
  }
  if (options.json != "-") context.out.write(to_text(result));
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  require(add_memory(app, options->memory));
  add_whole(app, {"--context", "N", "positions of the text; 4096 without it, or the model's own"},
            options->context, 1, 1 << 30);
  add_threads(app, options->engine.threads);
  add_kv_type(app, options->engine.kv_type);
  add_bytes(app, {"--disk-bandwidth", "BYTES", "what the disk gives a second; measured without it"},
            options->disk_rate);
  add_bytes(app,
            {"--read-bandwidth", "BYTES", "what the memory gives a second; measured without it"},
            options->read_rate);
  add_json(app, options->json);
  return [options](Context& context) { plan(context, *options); };
}

}  // namespace

extern const Command kPlan{
    .name = "plan",
    .summary = "show where memory would go under a limit, and the speed that allows",
    .description =
        "Counts what the model would hold within --memory: weights, keys and values, activations, "
        "and "
        "slots for as many experts as fit; the others would be read from the disk when needed. "
        "Then "
        "says how fast that could be at best, from the rates of memory and disk, which it measures "
        "for a second each. Reads headers only. Ends with exit code 3 and the least that is needed "
        "when the limit is below it.\n\n"
        "  winnow plan models/grain --memory 60MiB",
    .declare = declare};

}  // namespace winnow::cli
