// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The limit of memory, the same for every command that runs a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/log.h"
#include "base/units.h"
#include "engine/engine.h"
#include "engine/memory_plan.h"
#include "experts/store.h"
#include "model/checkpoint.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace winnow::cli {

/// A limit as it was written: bytes, a share of the machine's memory, or what is there.
struct MemoryLimit {
  Bytes bytes{};     ///< when neither of the others is given
  double share = 0;  ///< of os::total_memory, 0 to 1
  bool automatic = false;
};
/// "4GiB", "60%", "auto". Throws Error{kUsage} that names `what`.
MemoryLimit parse_memory_limit(std::string_view text, std::string_view what);

struct MemoryFlags {
  std::optional<MemoryLimit> limit;
  std::string policy;     ///< of experts::cache_policies(), or "auto"
  std::string io;         ///< "auto", "uring", "threads" or "buffered"
  std::string prefetch;   ///< "auto", "always" or "off"
  std::string predictor;  ///< of experts::route_predictors()
  std::string hot_set;    ///< file; "": none
};

/// --memory, --cache-policy, --io, --prefetch, --predictor, --hot-set. The result is --memory's.
CLI::Option* add_memory(CLI::App& app, MemoryFlags& flags);

/// The bytes that a limit stands for in a process that holds `process` by now. Throws
/// Error{kBudget} when the system says nothing of its memory.
Bytes bytes_of(const MemoryLimit& limit, Bytes process);

/// How experts are read: `io` and the policy of the flags.
experts::CacheOptions cache_options(const MemoryFlags& flags);

/// Whose experts are read before they are asked for.
experts::PrefetchOptions prefetch_options(const MemoryFlags& flags);

/// Plans the memory and sets `options` to it, where a limit was given, or where the system has less
/// than the model takes; else nothing. `needs.process` is what has been promised to others so far,
/// where that is more than the process holds; the model gets `share` of what is left. From here on
/// the model's files stay out of the page cache, so that nothing is in memory twice. Says where the
/// memory goes. Throws Error{kBudget} below the minimum.
std::optional<engine::MemoryPlan> plan_within(const MemoryFlags& flags,
                                              const model::Checkpoint& checkpoint,
                                              engine::MemoryNeeds needs,
                                              engine::EngineOptions& options, Log& log,
                                              double share = 1);

/// Lets the engine begin with the experts that earlier runs used most, if --hot-set names a file
/// that is there. Throws as engine::read_hot_set.
void begin_with_hot_set(const MemoryFlags& flags, const model::Checkpoint& checkpoint,
                        engine::Engine& engine);
/// Writes what this run and those before used most, where experts were read while running.
void keep_hot_set(const MemoryFlags& flags, const model::Checkpoint& checkpoint,
                  const engine::Engine& engine);

/// Bytes per second of reads of the model's file, each as long as the largest expert (0: there are
/// none), within the memory that the plan has for reads and experts; before these are there.
double measure_expert_reads(const engine::MemoryPlan& plan, const model::Checkpoint& checkpoint,
                            const MemoryFlags& flags);

/// Keys `hits`, `misses`, `evictions`, `bytes_read`, `stall_seconds`, `hit_rate`.
Json to_json(const experts::CacheStatistics& statistics);
/// The same in a line.
std::string to_text(const experts::CacheStatistics& statistics);
/// Keys `read`, `useful`, `named`, `named_right`, `recall` and `recall_twice` (by layer; null where
/// nothing was predicted).
Json to_json(const experts::PrefetchStatistics& statistics);

}  // namespace winnow::cli
