// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What `winnow bench` measured, as JSON and as text.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/memory_plan.h"
#include "engine/op_profile.h"
#include "experts/prefetcher.h"
#include "experts/store.h"

namespace winnow::cli {

/// Rates of the repetitions, in tokens per second.
struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};
/// `values` holds at least one.
Spread spread_of(std::vector<double> values);

/// What the machine can do at best, in bytes and int8 operations per second.
struct Machine {
  double read_rate_huge = 0;
  double read_rate_small = 0;
  double int8_rate = 0;
  double read_rate() const { return std::max(read_rate_huge, read_rate_small); }
};

/// Several sequences decoded together, beside what the bytes they share would allow.
struct TogetherReport {
  std::size_t sequences = 0;
  Spread rate;     ///< tokens per second of all sequences
  Spread speedup;  ///< the same over one sequence's just before, pair by pair
  double step_bytes =
      0;  ///< a step's weights, experts chosen by any sequence once, and keys and values
};

/// Times of one pass by kind of work.
struct OpsReport {
  engine::OpProfile profile;
  double seconds = 0;  ///< of the whole pass

  /// Share of the pass that is not matrix work.
  double non_matrix_fraction() const;
};

/// What a limit of memory came to.
struct MemoryReport {
  engine::MemoryPlan plan;
  experts::CacheStatistics cache;  ///< of the timed decoding; empty when all experts are held
  double disk_rate = 0;            ///< bytes per second of reads as long as an expert
  std::uint64_t expert_bytes =
      0;  ///< that a read of the largest expert takes; 0 without experts to read
  std::optional<experts::PrefetchStatistics> prefetch;  ///< of everything that was run
};

struct SpeedReport {
  std::size_t prompt = 0;
  std::size_t generate = 0;
  std::size_t repetitions = 0;
  Spread prefill;
  Spread decode;
  /// What each run reached of the limit as it was meanwhile.
  Spread prefill_of_peak;
  Spread decode_of_bandwidth;
  double decode_bytes = 0;           ///< per token
  double prefill_multiply_adds = 0;  ///< per token
  double warm_up_rate = 0;           ///< tokens per second of the first ones, before those timed
  double startup_seconds = 0;        ///< opening the file and loading the weights
  double first_token_seconds = 0;    ///< the same, and one token run
  std::size_t peak_rss = 0;
  Machine machine;
  std::optional<TogetherReport> together;
  std::optional<MemoryReport> memory;
  std::optional<OpsReport> prefill_ops, decode_ops;
  std::string isa;
  unsigned threads = 0;
  std::string kv_type;
  std::uint64_t seed = 0;

  double bandwidth_fraction() const { return decode.median * decode_bytes / machine.read_rate(); }
  double peak_fraction() const {
    return 2 * prefill_multiply_adds * prefill.median / machine.int8_rate;
  }
  /// How many times the tokens of one sequence the sequences together could have, if bytes alone
  /// counted, and how many they had. Require `together`.
  double together_bound() const;
  double together_speedup() const { return together->rate.median / decode.median; }
};

/// Without the facts of the program and the model, which the caller adds.
Json to_json(const SpeedReport& report);
std::string to_text(const SpeedReport& report);

}  // namespace winnow::cli
