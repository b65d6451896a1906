// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The command line's grammar: CLI11 filled from the list of commands, and its complaints turned
// into sentences.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/console_log.h"

namespace winnow::cli {

inline constexpr std::string_view kProgramDescription =
    "Winnow compresses Mixture-of-Experts language models to a byte budget and runs them inside "
    "the "
    "memory you allow, on a CPU and an SSD.";

/// What a command line asks for.
struct Request {
  Action action;     ///< empty when `text` is all there is to do
  std::string text;  ///< for standard output: help or version
  Verbosity verbosity = Verbosity::kNormal;
};

/// Owns the options of all commands; a Request's action refers to values that it shares.
class Parser {
 public:
  Parser();
  ~Parser();
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  /// `arguments` without the program's name. Throws Error{kUsage} that names the flag and remedy.
  Request parse(const std::vector<std::string>& arguments);
  const CLI::App& app() const { return *app_; }

 private:
  struct Common;
  void add_command(const Command& command);
  void check_command_name(const std::vector<std::string>& arguments) const;
  [[noreturn]] void explain(const std::string& command, const std::string& complaint) const;

  std::unique_ptr<Common> common_;
  std::unique_ptr<CLI::App> app_;
};

/// The candidate that differs from `word` by the fewest edits, or "" when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace winnow::cli
