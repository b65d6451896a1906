// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/memory_flags.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "engine/hot_set_file.h"
#include "experts/cache_policy.h"
#include "experts/route_predictor.h"
#include "model/fingerprint.h"
#include "os/disk_rate.h"
#include "os/memory.h"
#include "os/page_cache.h"
#include "os/thread_pool.h"

namespace winnow::cli {
namespace {

constexpr std::string_view kAutomatic = "auto";

/// What `auto` leaves to others: a sixteenth of what is there, at most so much.
constexpr std::uint64_t kMostFloor = std::uint64_t{512} << 20;
constexpr std::uint64_t kFloorShare = 16;

unsigned threads_of(const engine::EngineOptions& options) {
  return options.threads != 0 ? options.threads : os::usable_cpus();
}

void describe(const engine::MemoryPlan& plan, Log& log) {
  const std::uint64_t rest = plan.process.value + plan.reserve.value + plan.activations.value +
                             plan.scratch.value + plan.reads.value;
  std::string experts = "all of them, each read when it is first needed";
  if (!plan.resident) {
    experts = fmt::format("{:.0f}% of them; the others are read from the disk when needed",
                          100 * plan.covered());
  }
  log.info(fmt::format(
      "memory: {} of {}: {} dense weights, {} keys and values, {} the rest, {} "
      "experts ({})",
      format_bytes(plan.total()), format_bytes(plan.budget), format_bytes(plan.dense),
      format_bytes(plan.kv_caches), format_bytes({rest}), format_bytes(plan.experts), experts));
}

/// Whether the system has less than the model would take when all of it is in memory.
bool too_large(const model::Checkpoint& checkpoint, const engine::MemoryNeeds& needs) {
  const Bytes available = os::available_memory();
  if (available.value == 0) return false;  // unknown
  // Far from it, and without a look at each expert.
  if (checkpoint.tensor_bytes().value < available.value / 4) return false;
  const engine::MemoryRange range = engine::memory_range(checkpoint, needs);
  return range.resident.value - needs.process.value > available.value;
}

engine::MemoryPlan plan_share(const model::Checkpoint& checkpoint, const engine::MemoryNeeds& needs,
                              Bytes budget, double share) {
  if (budget <= needs.process) return engine::plan_memory(checkpoint, needs, budget);
  const auto left = static_cast<double>((budget - needs.process).value);
  return engine::plan_memory(checkpoint, needs,
                             needs.process + Bytes{static_cast<std::uint64_t>(share * left)});
}

/// For a model that does not fit, nobody having asked for a limit. Nothing where there is too
/// little even so: it may still run, slowly, where the system drops and reads its pages again.
std::optional<engine::MemoryPlan> plan_what_is_free(const model::Checkpoint& checkpoint,
                                                    const engine::MemoryNeeds& needs, Bytes budget,
                                                    double share, Log& log) {
  const std::string label = model_label(checkpoint);
  const std::string available = format_bytes(os::available_memory());
  try {
    const engine::MemoryPlan plan = plan_share(checkpoint, needs, budget, share);
    log.warn(
        fmt::format("{} does not fit the {} of memory that are free: experts are read from the "
                    "disk when needed (--memory auto)",
                    label, available));
    os::return_freed_memory();
    return plan;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBudget) throw;
    log.warn(
        fmt::format("{} does not fit the {} of memory that are free, not even without its "
                    "experts: expect it to be slow",
                    label, available));
    return std::nullopt;
  }
}

}  // namespace

MemoryLimit parse_memory_limit(std::string_view text, std::string_view what) {
  if (text == "auto") return {.automatic = true};
  if (text.ends_with('%')) {
    text.remove_suffix(1);
    return {.share = parse_real(text, what, 0, 100) / 100};
  }
  return {.bytes = parse_bytes(text, what)};
}

CLI::Option* add_memory(CLI::App& app, MemoryFlags& flags) {
  const auto assign = [&flags](const std::string& value) {
    flags.limit = parse_memory_limit(value, "--memory");
    os::return_freed_memory();
  };
  CLI::Option* const memory = add_value(
      app,
      {"--memory", "BYTES|60%|auto",
       "memory of the whole process: a size, a share of the machine's or its cgroup's memory, or "
       "what is free; experts that do not fit are read from the disk when needed, with the same "
       "results. Without it, only when the model does not fit"},
      assign);
  std::vector<std::string> policies = {std::string(kAutomatic)};
  for (const experts::PolicyEntry* policy : experts::cache_policies()) {
    policies.emplace_back(policy->name);
  }
  flags.policy = policies.front();
  add_choice(
      app,
      {"--cache-policy", "",
       "which experts leave memory first; 'auto' is 'adaptive', which simulates others and takes "
       "the one that would have missed least lately"},
      policies, flags.policy);
  flags.io = kAutomatic;
  add_choice(
      app,
      {"--io", "",
       "how experts are read: by io_uring, by threads, or by threads through the page cache; "
       "'auto' takes the first that the system allows"},
      {"auto", "uring", "threads", "buffered"}, flags.io);
  flags.prefetch = kAutomatic;
  add_choice(app,
             {"--prefetch", "",
              "whether experts that are likely to be needed by the next layer are read early: "
              "'auto' predicts now and then and reads while that saves time, as it does on a disk "
              "with time to spare; 'always' reads all that is predicted"},
             {"auto", "always", "off"}, flags.prefetch);
  std::vector<std::string> predictors;
  for (const experts::PredictorEntry* predictor : experts::route_predictors()) {
    predictors.emplace_back(predictor->name);
  }
  flags.predictor = predictors.front();
  add_choice(app,
             {"--predictor", "",
              "what is predicted from: the next layer's router on the present state, what the same "
              "token used before (in the first layers), or what this text used most"},
             predictors, flags.predictor);
  add_text(app,
           {"--hot-set", "FILE",
            "begin with the experts that earlier runs used most, read while nothing else is, and "
            "write to FILE which ones these and this run used; FILE need not be there"},
           flags.hot_set);
  return memory;
}

Bytes bytes_of(const MemoryLimit& limit, Bytes process) {
  if (!limit.automatic && limit.share == 0) return limit.bytes;
  const Bytes known = limit.automatic ? os::available_memory() : os::total_memory();
  if (known.value == 0) {
    fail(ErrorCode::kBudget,
         "--memory: the system does not say how much memory it has; give bytes");
  }
  if (!limit.automatic) {
    return {static_cast<std::uint64_t>(limit.share * static_cast<double>(known.value))};
  }
  return process + known - Bytes{std::min(known.value / kFloorShare, kMostFloor)};
}

experts::CacheOptions cache_options(const MemoryFlags& flags) {
  experts::CacheOptions options;
  if (flags.policy != kAutomatic) options.policy = flags.policy;
  if (flags.io == "uring") options.reader.method = os::ReadMethod::kUring;
  if (flags.io == "threads" || flags.io == "buffered") {
    options.reader.method = os::ReadMethod::kThreads;
  }
  if (flags.io == "buffered") options.page_cache = os::PageCache::kUsed;
  return options;
}

experts::PrefetchOptions prefetch_options(const MemoryFlags& flags) {
  using Mode = experts::PrefetchOptions::Mode;
  experts::PrefetchOptions options;
  options.predictor = flags.predictor;
  if (flags.prefetch == "always") options.mode = Mode::kAlways;
  if (flags.prefetch == "off") options.mode = Mode::kOff;
  return options;
}

std::optional<engine::MemoryPlan> plan_within(const MemoryFlags& flags,
                                              const model::Checkpoint& checkpoint,
                                              engine::MemoryNeeds needs,
                                              engine::EngineOptions& options, Log& log,
                                              double share) {
  const Bytes resident = os::resident_memory();
  needs.kv_type = options.kv_type;
  needs.threads = threads_of(options);
  needs.process = std::max(needs.process, resident);
  std::optional<engine::MemoryPlan> plan;
  if (flags.limit) {
    plan = with_context("--memory", [&] {
      return plan_share(checkpoint, needs, bytes_of(*flags.limit, resident), share);
    });
  } else if (options.weights != engine::WeightMemory::kMappedOnly && too_large(checkpoint, needs)) {
    plan =
        plan_what_is_free(checkpoint, needs, bytes_of({.automatic = true}, resident), share, log);
  }
  if (!plan) return std::nullopt;
  for (const auto& file : checkpoint.file().files()) os::drop_from_page_cache(*file);
  options.expert_cache = cache_options(flags);
  options.prefetch = prefetch_options(flags);
  options = engine::within(*plan, options);
  describe(*plan, log);
  return plan;
}

void begin_with_hot_set(const MemoryFlags& flags, const model::Checkpoint& checkpoint,
                        engine::Engine& engine) {
  if (flags.hot_set.empty() || !std::filesystem::exists(flags.hot_set)) return;
  engine.warm_up(engine::read_hot_set(flags.hot_set, model::describe_source(checkpoint.file())));
}

void keep_hot_set(const MemoryFlags& flags, const model::Checkpoint& checkpoint,
                  const engine::Engine& engine) {
  if (flags.hot_set.empty() || engine.expert_cache() == nullptr) return;
  engine::write_hot_set(flags.hot_set, model::describe_source(checkpoint.file()),
                        engine.hottest_experts());
}

double measure_expert_reads(const engine::MemoryPlan& plan, const model::Checkpoint& checkpoint,
                            const MemoryFlags& flags) {
  constexpr double kSeconds = 1;
  if (plan.slots.empty()) return 0;
  experts::CacheOptions options = cache_options(flags);
  options.reader.in_flight = plan.reads;
  const auto files = checkpoint.file().files();
  const auto largest =
      std::max_element(files.begin(), files.end(),
                       [](const auto& a, const auto& b) { return a->size() < b->size(); });
  return os::measure_disk_rate(**largest, plan.slots.back().bytes, options.page_cache,
                               options.reader, kSeconds);
}

Json to_json(const experts::CacheStatistics& statistics) {
  Json out;
  out["hits"] = statistics.hits;
  out["misses"] = statistics.misses;
  out["evictions"] = statistics.evictions;
  out["bytes_read"] = statistics.bytes_read;
  out["stall_seconds"] = statistics.stall_seconds;
  out["hit_rate"] = statistics.hit_rate();
  return out;
}

Json to_json(const experts::PrefetchStatistics& statistics) {
  Json out;
  out["read"] = statistics.read;
  out["useful"] = statistics.useful;
  out["named"] = statistics.named;
  out["named_right"] = statistics.named_right;
  Json recall = Json::array();
  Json twice = Json::array();
  for (const auto& layer : statistics.layers) {
    const auto share = [&](std::uint64_t found) {
      return layer.chosen == 0
                 ? Json(nullptr)
                 : Json(static_cast<double>(found) / static_cast<double>(layer.chosen));
    };
    recall.push_back(share(layer.among_k));
    twice.push_back(share(layer.among_twice));
  }
  out["recall"] = std::move(recall);
  out["recall_twice"] = std::move(twice);
  return out;
}

std::string to_text(const experts::CacheStatistics& statistics) {
  return fmt::format("expert cache {:.1f}% hits, {} read, waited {:.2f} s",
                     100 * statistics.hit_rate(), format_bytes({statistics.bytes_read}),
                     statistics.stall_seconds);
}

}  // namespace winnow::cli
