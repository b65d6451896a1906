// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What one subcommand is. Each lives in its own file under commands/ and has one line in
// commands/registry.def; help, man page and completion come by themselves.
#pragma once

#include <functional>
#include <span>
#include <string_view>

namespace CLI {
class App;
}

namespace winnow::cli {

struct Context;

/// What a subcommand does once its options are read. A normal return is success; failures are
/// Error exceptions, whose code decides the exit code.
using Action = std::function<void(Context&)>;

/// One subcommand. Immutable; one object for the whole program.
struct Command {
  std::string_view name;         ///< as typed: "compress"
  std::string_view summary;      ///< one line without a full stop, for lists
  std::string_view description;  ///< a paragraph or more, for `--help` and the man page
  /// Adds the options to `app` (helpers in cli/options.h) and returns the action. The values live
  /// in a shared object that both the options and the action hold, because `declare` has returned
  /// before the arguments are read.
  Action (*declare)(CLI::App& app);
};

/// All commands, in the order of commands/registry.def.
std::span<const Command* const> all_commands();

}  // namespace winnow::cli
