// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The Log of the command line: messages and progress on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "base/log.h"

namespace winnow::cli {

enum class Verbosity {
  kQuiet,    ///< warnings only
  kNormal,   ///< messages and progress
  kVerbose,  ///< each message with the time since the start, progress lines every second
};

/// A terminal shows one line that is redrawn, with rate and time left; anything else gets plain
/// lines, at most one every few seconds. Thread-safe. Failed writes are ignored: nobody is there
/// to be told.
class ConsoleLog final : public Log {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    int fd = 2;             ///< borrowed descriptor
    bool terminal = false;  ///< whether `fd` is one: redraw lines
    bool colour = false;    ///< ANSI colours in messages
    unsigned columns = 80;  ///< width of the terminal
    Verbosity verbosity = Verbosity::kNormal;
    std::function<Clock::time_point()> now = Clock::now;  ///< replaced by tests
  };
  explicit ConsoleLog(Options options);
  /// Removes a progress line that is still shown.
  ~ConsoleLog() override;

  void info(std::string_view message) override;
  void warn(std::string_view message) override;
  void progress(std::string_view stage, std::uint64_t done, std::uint64_t total,
                std::string_view unit) override;
  bool stop_requested() const override;
  /// A failure that ends the program; shown whatever the verbosity, as "winnow: message".
  void error(std::string_view message);
  /// A line without prefix or time stamp that only `--quiet` suppresses, such as the statistics.
  void plain(std::string_view line);
  /// Takes the progress line off the terminal, so that standard output can be written beside it.
  void clear_progress();

 private:
  struct Stage {
    std::string name;
    Clock::time_point start;
    Clock::time_point last_shown;
    bool shown = false;
  };
  void message(std::string_view prefix, std::string_view colour, std::string_view text);
  void begin_stage(std::string_view stage);
  bool due(bool finished) const;
  std::string describe(std::uint64_t done, std::uint64_t total, std::string_view unit) const;
  void draw(const std::string& text, std::uint64_t done, std::uint64_t total);
  void erase_line();
  void write(std::string_view text) const;

  const Options options_;
  const Clock::time_point start_;
  std::mutex mutex_;
  Stage stage_;
  bool line_shown_ = false;
};

/// "1.23 k", "45.6 M", "812": three significant digits with a decimal prefix.
std::string format_count(double value);
/// "0:07", "12:30", "3:05:00".
std::string format_duration(double seconds);

}  // namespace winnow::cli
