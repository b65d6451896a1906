// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Runs one command line: the edge where exceptions become exit codes.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/console_log.h"

namespace winnow::cli {

/// Where the program writes and what it may know of its surroundings; tests replace it.
struct Surroundings {
  int output_fd = 1;
  int error_fd = 2;
  bool output_is_terminal = false;
  bool error_is_terminal = false;
  bool colour = false;
  unsigned columns = 80;
};

/// Asks the terminal and the environment (NO_COLOR, TERM).
Surroundings real_surroundings();

/// Runs one command's action and turns what it throws into an exit code and a message. Installs
/// signal handlers while it runs.
int run_action(const Action& action, const Surroundings& surroundings,
               Verbosity verbosity = Verbosity::kNormal,
               const std::vector<std::string>& arguments = {});

/// `arguments` without the program's name. Returns the exit code (cli/exit_code.h); never throws.
int run_program(const std::vector<std::string>& arguments,
                const Surroundings& surroundings) noexcept;

}  // namespace winnow::cli
