// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow man`: the manual page, for `make install` and packagers.
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/reference.h"

namespace winnow::cli {
namespace {

Action declare(CLI::App& /*app*/) {
  return [](Context& context) { context.out.write(man_page(describe_program(), version())); };
}

}  // namespace

extern const Command kMan{.name = "man",
                          .summary = "print the manual page",
                          .description =
                              "Prints the manual page winnow(1):\n\n"
                              "  winnow man | man -l -",
                          .declare = declare};

}  // namespace winnow::cli
