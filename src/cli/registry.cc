// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The list of subcommands, read from commands/registry.def.
#include <array>

#include "cli/command.h"

namespace winnow::cli {

#define COMMAND(name) extern const Command name;
#include "cli/commands/registry.def"
#undef COMMAND

namespace {

constexpr std::array kCommands = {
#define COMMAND(name) &name,
#include "cli/commands/registry.def"
#undef COMMAND
};

}  // namespace

std::span<const Command* const> all_commands() { return kCommands; }

}  // namespace winnow::cli
