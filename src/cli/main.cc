// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The program `winnow`; everything is in cli/program.cc, where tests reach it.
#include "cli/program.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  return winnow::cli::run_program(arguments, winnow::cli::real_surroundings());
}
