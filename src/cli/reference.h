// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The description of every command and option, taken from the parser itself: help, man page and
// shell completion are written from it and cannot disagree with what is accepted.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace winnow::cli {

struct OptionReference {
  std::vector<std::string> names;  ///< as typed: {"-o", "--output"}; {"MODEL"} for a positional
  std::string value;               ///< stands for the value: "BYTES"; empty for a flag
  std::string help;
  std::string fallback;  ///< the default, or empty
  bool positional = false;
  bool required = false;
  bool repeatable = false;  ///< takes several values
  /// The values to choose from, when `value` lists them as "a|b|c".
  std::vector<std::string> choices() const;
  /// Whether the value is the name of a file or folder, which shells complete.
  bool is_path() const;
};

struct CommandReference {
  std::string name;  ///< empty for the program itself
  std::string summary;
  std::string description;
  std::vector<OptionReference> options;  ///< positional ones first, in the order of declaration
};

struct ProgramReference {
  CommandReference program;  ///< the options that come before a command
  std::vector<CommandReference> commands;
};

/// Reads one parser's options.
CommandReference describe(const CLI::App& app, std::string_view summary,
                          std::string_view description);
/// Builds the program's parser and reads all of it.
ProgramReference describe_program();

/// "winnow compress MODEL --output OUT [options]".
std::string usage_line(const CommandReference& command);
/// The text of `winnow COMMAND --help`, at most 100 columns wide.
std::string help_text(const CommandReference& command);
/// The text of `winnow --help`.
std::string help_text(const ProgramReference& program);
/// The manual page winnow(1) in man(7) format; `version` goes into its footer.
std::string man_page(const ProgramReference& program, std::string_view version);
/// A completion script for "bash", "zsh" or "fish". Throws Error{kUsage} for other shells.
std::string completion_script(const ProgramReference& program, std::string_view shell);

}  // namespace winnow::cli
