// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/reference.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

#include "cli/command.h"
#include "cli/parser.h"

namespace winnow::cli {
namespace {

OptionReference describe_option(const CLI::Option& option) {
  OptionReference out;
  out.positional = option.get_positional();
  if (out.positional) {
    out.names.push_back(option.get_name(true));
  } else {
    for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
    for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  }
  // CLI11 gives every option a type; flags are those that take no value.
  if (option.get_items_expected_max() > 0) out.value = option.get_type_name();
  out.help = option.get_description();
  out.fallback = option.get_default_str();
  out.required = option.get_required();
  out.repeatable = option.get_items_expected_max() > 1;
  return out;
}

}  // namespace

std::vector<std::string> OptionReference::choices() const {
  std::vector<std::string> out;
  if (value.find('|') == std::string::npos) return out;
  std::string_view rest = value;
  while (true) {
    const std::size_t bar = rest.find('|');
    out.emplace_back(rest.substr(0, bar));
    if (bar == std::string_view::npos) return out;
    rest.remove_prefix(bar + 1);
  }
}

bool OptionReference::is_path() const {
  constexpr std::array kPaths = {"MODEL", "OUT", "PATH", "FILE", "DIR", "STATS", "RUN"};
  return std::find(kPaths.begin(), kPaths.end(), value) != kPaths.end();
}

CommandReference describe(const CLI::App& app, std::string_view summary,
                          std::string_view description) {
  CommandReference out{.name = app.get_name(),
                       .summary = std::string(summary),
                       .description = std::string(description),
                       .options = {}};
  for (const CLI::Option* option : app.get_options()) {
    out.options.push_back(describe_option(*option));
  }
  std::stable_partition(out.options.begin(), out.options.end(),
                        [](const OptionReference& option) { return option.positional; });
  return out;
}

ProgramReference describe_program() {
  const Parser parser;
  ProgramReference out{.program = describe(parser.app(), "", kProgramDescription), .commands = {}};
  out.program.name.clear();
  for (const Command* command : all_commands()) {
    const CLI::App* app = parser.app().get_subcommand(std::string(command->name));
    out.commands.push_back(describe(*app, command->summary, command->description));
  }
  return out;
}

}  // namespace winnow::cli
