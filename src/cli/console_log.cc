// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/console_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>

#include "base/units.h"
#include "cli/signals.h"

namespace winnow::cli {
namespace {

using std::chrono::milliseconds;

// A terminal is redrawn ten times a second; a log file gets a line often enough to show life and
// rarely enough to stay readable over hours.
constexpr milliseconds kRedraw{100};
constexpr milliseconds kLine{5000};
constexpr milliseconds kVerboseLine{1000};

double seconds_between(ConsoleLog::Clock::time_point from, ConsoleLog::Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string amount(std::uint64_t value, std::string_view unit) {
  if (unit == "bytes") return format_bytes(Bytes{value});
  return fmt::format("{} {}", value, unit);
}

std::string rate_text(double per_second, std::string_view unit) {
  if (unit == "bytes") {
    return format_bytes(Bytes{static_cast<std::uint64_t>(per_second)}) + "/s";
  }
  return fmt::format("{} {}/s", format_count(per_second), unit);
}

}  // namespace

std::string format_count(double value) {
  constexpr std::array kPrefixes = {"", " k", " M", " G", " T"};
  std::size_t prefix = 0;
  while (value >= 1000.0 && prefix + 1 < kPrefixes.size()) {
    value /= 1000.0;
    ++prefix;
  }
  if (prefix == 0 && value == std::floor(value)) return fmt::format("{:.0f}", value);
  const int digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return fmt::format("{:.{}f}{}", value, digits, kPrefixes[prefix]);
}

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::uint64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  const std::uint64_t hours = whole / 3600;
  const std::uint64_t minutes = whole / 60 % 60;
  if (hours == 0) return fmt::format("{}:{:02}", minutes, whole % 60);
  return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
}

ConsoleLog::ConsoleLog(Options options) : options_(std::move(options)), start_(options_.now()) {}

ConsoleLog::~ConsoleLog() { erase_line(); }

void ConsoleLog::info(std::string_view text) {
  if (options_.verbosity != Verbosity::kQuiet) message("", "", text);
}

void ConsoleLog::warn(std::string_view text) { message("warning: ", "\x1b[33m", text); }

void ConsoleLog::error(std::string_view text) { message("winnow: ", "\x1b[31m", text); }

void ConsoleLog::plain(std::string_view text) {
  if (options_.verbosity == Verbosity::kQuiet) return;
  const std::lock_guard lock(mutex_);
  erase_line();
  write(fmt::format("{}\n", text));
}

void ConsoleLog::clear_progress() {
  const std::lock_guard lock(mutex_);
  erase_line();
}

void ConsoleLog::message(std::string_view prefix, std::string_view colour, std::string_view text) {
  const std::lock_guard lock(mutex_);
  erase_line();
  std::string out;
  if (options_.verbosity == Verbosity::kVerbose) {
    out += fmt::format("[{:8.2f}] ", seconds_between(start_, options_.now()));
  }
  const bool coloured = options_.colour && !prefix.empty();
  if (coloured) out += colour;
  out += prefix;
  if (coloured) out += "\x1b[0m";
  out += text;
  out += '\n';
  write(out);
}

bool ConsoleLog::stop_requested() const { return stop_signal() != 0; }

void ConsoleLog::progress(std::string_view stage, std::uint64_t done, std::uint64_t total,
                          std::string_view unit) {
  if (options_.verbosity == Verbosity::kQuiet) return;
  const std::lock_guard lock(mutex_);
  // Work may be repeated under one name: progress that begins again is a new stage.
  if (stage_.name != stage || done == 0) begin_stage(stage);
  const bool finished = total != 0 && done >= total;
  if (!due(finished)) return;
  draw(describe(done, total, unit), done, total);
  stage_.shown = true;
  stage_.last_shown = options_.now();
  if (finished) stage_.name.clear();
}

void ConsoleLog::begin_stage(std::string_view stage) {
  erase_line();
  const auto now = options_.now();
  stage_ = {.name = std::string(stage), .start = now, .last_shown = now, .shown = false};
}

bool ConsoleLog::due(bool finished) const {
  // Stages that are over before the first line was due leave no trace.
  if (finished) return stage_.shown;
  const auto interval = options_.terminal                           ? kRedraw
                        : options_.verbosity == Verbosity::kVerbose ? kVerboseLine
                                                                    : kLine;
  return options_.now() - stage_.last_shown >= interval;
}

std::string ConsoleLog::describe(std::uint64_t done, std::uint64_t total,
                                 std::string_view unit) const {
  const double elapsed = seconds_between(stage_.start, options_.now());
  const double rate = elapsed > 0 ? static_cast<double>(done) / elapsed : 0;
  if (total == 0) return fmt::format("{}, {}", amount(done, unit), rate_text(rate, unit));
  const std::uint64_t left = total > done ? total - done : 0;
  std::string text = fmt::format("{:3.0f} %, {} of {}, {}",
                                 100.0 * static_cast<double>(done) / static_cast<double>(total),
                                 unit == "bytes" ? amount(done, unit) : fmt::format("{}", done),
                                 amount(total, unit), rate_text(rate, unit));
  if (left != 0 && rate > 0) {
    text += fmt::format(", {} left", format_duration(static_cast<double>(left) / rate));
  } else if (left == 0) {
    text += fmt::format(", took {}", format_duration(elapsed));
  }
  return text;
}

void ConsoleLog::draw(const std::string& text, std::uint64_t done, std::uint64_t total) {
  if (!options_.terminal) {
    write(fmt::format("{}: {}\n", stage_.name, text));
    return;
  }
  constexpr std::size_t kBar = 20;
  std::string line = stage_.name + " ";
  if (total != 0) {
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(kBar));
    line += fmt::format("[{}{}] ", std::string(filled, '#'), std::string(kBar - filled, '.'));
  }
  line += text;
  // One column stays free: some terminals wrap when the last one is filled.
  if (options_.columns > 1 && line.size() >= options_.columns) line.resize(options_.columns - 1);
  write("\r\x1b[2K" + line);
  line_shown_ = true;
  if (total != 0 && done >= total) erase_line();
}

void ConsoleLog::erase_line() {
  if (line_shown_) write("\r\x1b[2K");
  line_shown_ = false;
}

void ConsoleLog::write(std::string_view text) const {
  while (!text.empty()) {
    const ssize_t written = ::write(options_.fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      return;
    }
  }
}

}  // namespace winnow::cli
