// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Runs one command line: the edge where exceptions become exit codes.
#pragma once

#include <string>
#include <vector>

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

/// `arguments` without the program's name. Returns the exit code (cli/exit_code.h); never throws.
/// Installs signal handlers while it runs.
int run_program(const std::vector<std::string>& arguments,
                const Surroundings& surroundings) noexcept;

}  // namespace winnow::cli
