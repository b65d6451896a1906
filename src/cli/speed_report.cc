// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/speed_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "cli/memory_flags.h"

namespace winnow::cli {
namespace {

Json to_json(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.least}, {"max", spread.most}};
}

/// Calls `visit(name, seconds, calls, share)` for the ops that ran, then for what lies between
/// them.
template <typename Visit>
void for_each_op(const OpsReport& report, Visit visit) {
  double rest = report.seconds;
  for (std::size_t i = 0; i < engine::kNumOps; ++i) {
    const auto op = static_cast<engine::Op>(i);
    const engine::OpProfile::Entry& entry = report.profile.entry(op);
    if (entry.calls == 0) continue;
    rest -= entry.seconds;
    visit(engine::to_string(op), entry.seconds, entry.calls, entry.seconds / report.seconds);
  }
  rest = std::max(rest, 0.0);
  visit(std::string_view("other"), rest, std::uint64_t{0}, rest / report.seconds);
}

Json to_json(const OpsReport& report) {
  Json ops = Json::object();
  for_each_op(report,
              [&](std::string_view name, double seconds, std::uint64_t calls, double share) {
                ops[std::string(name)] = {{"seconds", seconds}, {"calls", calls}, {"share", share}};
              });
  return ops;
}

std::string to_text(std::string_view stage, const OpsReport& report) {
  std::string out = fmt::format("{}, one pass of {:.3f} s\n", stage, report.seconds);
  for_each_op(report,
              [&](std::string_view name, double seconds, std::uint64_t calls, double share) {
                out += fmt::format("  {:<22} {:>9.4f} s {:>7} calls {:>6.1f} %\n", name, seconds,
                                   calls, 100 * share);
              });
  return out + fmt::format("  not matrix work {:.1f} %\n", 100 * report.non_matrix_fraction());
}

std::string rate_line(std::string_view what, std::size_t tokens, const Spread& spread) {
  return fmt::format("{:<7} {:>5} tokens  {:.1f} tok/s ({:.1f} - {:.1f})\n", what, tokens,
                     spread.median, spread.least, spread.most);
}

std::string beside_line(std::string_view limit, const Spread& fraction) {
  return fmt::format(
      "        {:.1f} % ({:.1f} - {:.1f}) of what the {} did just before and after\n",
      100 * fraction.median, 100 * fraction.least, 100 * fraction.most, limit);
}

std::string together_text(const SpeedReport& report) {
  const TogetherReport& together = *report.together;
  return rate_line("decode", report.generate, together.rate) +
         fmt::format(
             "        of each of {} sequences: {:.2f} times one; a step reads {}, which "
             "allows {:.2f} ({:.1f} % of it)\n",
             together.sequences, report.together_speedup(),
             format_bytes(Bytes{static_cast<std::uint64_t>(together.step_bytes)}),
             report.together_bound(), 100 * report.together_speedup() / report.together_bound());
}

std::string memory_text(const SpeedReport& report) {
  const MemoryReport& memory = *report.memory;
  const auto tokens = static_cast<double>(report.generate * report.repetitions);
  const double per_token = static_cast<double>(memory.cache.bytes_read) / tokens;
  return fmt::format(
      "within {}: {}, {} a token; the disk gives {:.2f} GB/s in reads as long as an expert\n",
      format_bytes(memory.plan.budget), cli::to_text(memory.cache),
      format_bytes(Bytes{static_cast<std::uint64_t>(per_token)}), memory.disk_rate / 1e9);
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {(values[(n - 1) / 2] + values[n / 2]) / 2, values.front(), values.back()};
}

double OpsReport::non_matrix_fraction() const {
  double matrices = 0;
  for (std::size_t i = 0; i < engine::kNumOps; ++i) {
    const auto op = static_cast<engine::Op>(i);
    if (engine::is_matrix_work(op)) matrices += profile.entry(op).seconds;
  }
  return 1 - matrices / seconds;
}

double SpeedReport::together_bound() const {
  return static_cast<double>(together->sequences) * decode_bytes / together->step_bytes;
}

Json to_json(const SpeedReport& report) {
  Json out;
  out["prompt"] = report.prompt;
  out["generate"] = report.generate;
  out["repetitions"] = report.repetitions;
  out["prefill_tokens_per_second"] = to_json(report.prefill);
  out["decode_tokens_per_second"] = to_json(report.decode);
  out["warm_up_tokens_per_second"] = report.warm_up_rate;
  out["decode_bytes_per_token"] = report.decode_bytes;
  out["read_bandwidth"] = report.machine.read_rate();
  out["read_bandwidth_4k"] = report.machine.read_rate_small;
  out["bandwidth_fraction"] = report.bandwidth_fraction();
  out["bandwidth_fractions"] = to_json(report.decode_of_bandwidth);
  out["int8_peak_ops"] = report.machine.int8_rate;
  out["prefill_peak_fraction"] = report.peak_fraction();
  out["prefill_peak_fractions"] = to_json(report.prefill_of_peak);
  out["peak_rss"] = report.peak_rss;
  out["startup_seconds"] = report.startup_seconds;
  out["first_token_seconds"] = report.first_token_seconds;
  out["sequences"] = report.together ? report.together->sequences : 1;
  if (report.together) {
    out["batch_tokens_per_second"] = to_json(report.together->rate);
    out["decode_bytes_per_step"] = report.together->step_bytes;
    out["batch_speedup"] = report.together_speedup();
    out["batch_speedups"] = to_json(report.together->speedup);
    out["batch_bound"] = report.together_bound();
    out["batch_bound_fraction"] = report.together_speedup() / report.together_bound();
  }
  if (report.memory) {
    out["memory_budget"] = report.memory->plan.budget.value;
    out["expert_cache"] = cli::to_json(report.memory->cache);
    out["disk_bandwidth"] = report.memory->disk_rate;
    out["expert_bytes"] = report.memory->expert_bytes;
    if (report.memory->prefetch) out["prefetch"] = cli::to_json(*report.memory->prefetch);
  }
  if (report.prefill_ops && report.decode_ops) {
    out["ops"] = {{"prefill", to_json(*report.prefill_ops)},
                  {"decode", to_json(*report.decode_ops)}};
    out["non_matrix_fraction"] = report.decode_ops->non_matrix_fraction();
  }
  out["isa"] = report.isa;
  out["threads"] = report.threads;
  out["kv_type"] = report.kv_type;
  out["seed"] = report.seed;
  return out;
}

std::string to_text(const SpeedReport& report) {
  std::string out = fmt::format("{}, threads: {}, repetitions: {}, median (min - max)\n",
                                report.isa, report.threads, report.repetitions);
  out += rate_line("prefill", report.prompt, report.prefill);
  out += rate_line("decode", report.generate, report.decode);
  if (report.together) out += together_text(report);
  out += fmt::format(
      "decode reads {} per token: {:.1f} % of the read bandwidth, {:.1f} GB/s "
      "({:.1f} GB/s with 4 KiB pages)\n",
      format_bytes(Bytes{static_cast<std::uint64_t>(report.decode_bytes)}),
      100 * report.bandwidth_fraction(), report.machine.read_rate() / 1e9,
      report.machine.read_rate_small / 1e9);
  out += beside_line("memory", report.decode_of_bandwidth);
  out += fmt::format("prefill does {:.3f} Gop per token: {:.1f} % of the int8 peak, {:.0f} Gop/s\n",
                     2 * report.prefill_multiply_adds / 1e9, 100 * report.peak_fraction(),
                     report.machine.int8_rate / 1e9);
  out += beside_line("int8 units", report.prefill_of_peak);
  out += fmt::format("loaded in {:.2f} s, first token after {:.2f} s; peak memory {}\n",
                     report.startup_seconds, report.first_token_seconds,
                     format_bytes(Bytes{report.peak_rss}));
  if (report.memory) out += memory_text(report);
  if (report.prefill_ops) out += to_text("prefill", *report.prefill_ops);
  if (report.decode_ops) out += to_text("decode", *report.decode_ops);
  return out;
}

}  // namespace winnow::cli
