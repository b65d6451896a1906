// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow completion SHELL`: a completion script for the user's shell.
#include <memory>

#include "cli/command.h"
#include "cli/context.h"
#include "cli/options.h"
#include "cli/reference.h"

namespace winnow::cli {
namespace {

struct Options {
  std::string shell;
};

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  require(add_choice(app, {"SHELL", "", "the shell that will read the script"},
                     {"bash", "zsh", "fish"}, options->shell));
  return [options](Context& context) {
    context.out.write(completion_script(describe_program(), options->shell));
  };
}

}  // namespace

extern const Command kCompletion{
    .name = "completion",
    .summary = "print a shell completion script",
    .description =
        "Prints a script that teaches the shell to complete winnow's commands, options "
        "and values:\n\n  source <(winnow completion bash)",
    .declare = declare};

}  // namespace winnow::cli
