// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/parser.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "cli/build_info.h"
#include "cli/options.h"
#include "cli/reference.h"

namespace winnow::cli {

struct Parser::Common {
  bool quiet = false;
  bool verbose = false;
  std::vector<Action> actions;  ///< in the order of all_commands()
};

namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j - 1] + 1, row[j] + 1, substituted});
    }
  }
  return row[b.size()];
}

/// The subcommand that was given, or null.
CLI::App* chosen(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() ? nullptr : commands.front();
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string unexpected_argument(const CLI::App& app, const std::string& argument) {
  if (argument.size() < 2 || argument.front() != '-') {
    return fmt::format("'{}' is one argument too many", argument);
  }
  const std::string flag = argument.substr(0, argument.find('='));
  const std::string similar = nearest(flag, flag_names(app));
  if (similar.empty()) return fmt::format("there is no option '{}'", flag);
  return fmt::format("there is no option '{}', did you mean '{}'?", flag, similar);
}

/// CLI11 words its complaints for programmers; these are the ones that remain after our own checks
/// of values.
std::string complaint(const CLI::App& app, const CLI::ParseError& error) {
  const auto remaining = app.remaining(true);
  if (!remaining.empty()) return unexpected_argument(app, remaining.front());
  return error.what();
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  const std::size_t limit = std::max<std::size_t>(1, word.size() / 3);
  std::string best;
  std::size_t best_distance = limit + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

Parser::Parser()
    : common_(std::make_unique<Common>()),
      app_(std::make_unique<CLI::App>(std::string(kProgramDescription), "winnow")) {
  app_->set_help_flag("-h,--help", "show this help");
  app_->set_version_flag(
      "--version", [] { return version_text(); },
      "show version, commit, compiler, instruction set and file formats");
  for (const Command* command : all_commands()) add_command(*command);
}

Parser::~Parser() = default;

void Parser::add_command(const Command& command) {
  CLI::App* app = app_->add_subcommand(std::string(command.name), std::string(command.summary));
  common_->actions.push_back(command.declare(*app));
  // Set again, so that it comes after the command's own options.
  app->set_help_flag();
  add_flag(*app, "-q,--quiet", common_->quiet, "print warnings and errors only");
  add_flag(*app, "-v,--verbose", common_->verbose, "print times with messages");
  app->set_help_flag("-h,--help", "show this help");
}

void Parser::check_command_name(const std::vector<std::string>& arguments) const {
  if (arguments.empty()) {
    fail(ErrorCode::kUsage, "no command given; 'winnow --help' lists the commands");
  }
  const std::string& name = arguments.front();
  if (name.starts_with('-')) return;
  std::vector<std::string> names;
  for (const Command* command : all_commands()) names.emplace_back(command->name);
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  const std::string similar = nearest(name, names);
  fail(ErrorCode::kUsage, "there is no command '{}'{}; 'winnow --help' lists the commands", name,
       similar.empty() ? "" : fmt::format(", did you mean '{}'?", similar));
}

void Parser::explain(const std::string& command, const std::string& complaint) const {
  fail(ErrorCode::kUsage, "{}{}; see 'winnow {}{}--help'", command.empty() ? "" : command + ": ",
       complaint, command, command.empty() ? "" : " ");
}

Request Parser::parse(const std::vector<std::string>& arguments) {
  check_command_name(arguments);
  try {
    app_->parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    const ProgramReference program = describe_program();
    const CLI::App* command = chosen(*app_);
    if (command == nullptr) return {.action = {}, .text = help_text(program)};
    const auto found = std::find_if(
        program.commands.begin(), program.commands.end(),
        [&](const CommandReference& entry) { return entry.name == command->get_name(); });
    return {.action = {}, .text = help_text(*found)};
  } catch (const CLI::CallForVersion& version) {
    return {.action = {}, .text = version.what()};
  } catch (const CLI::ParseError& error) {
    const CLI::App* command = chosen(*app_);
    const CLI::App& app = command == nullptr ? *app_ : *command;
    explain(command == nullptr ? "" : command->get_name(), complaint(app, error));
  } catch (const Error& error) {
    const CLI::App* command = chosen(*app_);
    explain(command == nullptr ? "" : command->get_name(), error.message());
  }
  const CLI::App* command = chosen(*app_);
  if (command == nullptr) fail(ErrorCode::kUsage, "no command given; see 'winnow --help'");
  Request request;
  for (std::size_t i = 0; i < all_commands().size(); ++i) {
    if (all_commands()[i]->name == command->get_name()) request.action = common_->actions[i];
  }
  if (common_->verbose) request.verbosity = Verbosity::kVerbose;
  if (common_->quiet) request.verbosity = Verbosity::kQuiet;
  return request;
}

}  // namespace winnow::cli
