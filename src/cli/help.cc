// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes `--help` from the reference.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/reference.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kHelpColumn = 32;

/// Breaks `text` into lines of at most `width`, each after the first indented by `indent`.
/// Line ends in `text` stay.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out;
  std::size_t column = indent;
  bool at_line_start = true;
  while (!text.empty()) {
    if (text.front() == '\n') {
      out += '\n';
      text.remove_prefix(1);
      if (!text.empty() && text.front() != '\n') out.append(indent, ' ');
      column = indent;
      at_line_start = true;
      continue;
    }
    // Blanks that begin a line are layout (examples); between words they are separators.
    std::size_t begin = text.find_first_not_of(' ');
    if (begin == std::string_view::npos) break;
    const std::size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    const std::size_t length = end - begin;
    const std::size_t blanks = at_line_start ? begin : 1;
    if (!at_line_start && column + blanks + length > width) {
      out += '\n';
      out.append(indent, ' ');
      column = indent;
    } else {
      out.append(blanks, ' ');
      column += blanks;
    }
    out += text.substr(begin, length);
    column += length;
    at_line_start = false;
    text.remove_prefix(end);
  }
  return out;
}

/// "  left part         right part, wrapped in its column".
std::string entry(const std::string& left, const std::string& right) {
  std::string out = "  " + left;
  if (out.size() + 2 > kHelpColumn) {
    out += '\n';
    out.append(kHelpColumn, ' ');
  } else {
    out.append(kHelpColumn - out.size(), ' ');
  }
  return out + wrapped(right, kHelpColumn, kWidth) + "\n";
}

std::string option_entry(const OptionReference& option) {
  std::string left = fmt::format("{}", fmt::join(option.names, ", "));
  const std::vector<std::string> choices = option.choices();
  // Many alternatives are told in the text instead.
  const bool too_long = !choices.empty() && left.size() + option.value.size() + 3 > kWidth;
  if (!option.positional && !option.value.empty())
    left += " " + (too_long ? std::string("NAME") : option.value);
  if (option.repeatable) left += "...";
  std::string right = option.help;
  if ((option.positional || too_long) && !choices.empty()) {
    right += fmt::format(": {}", fmt::join(choices, ", "));
  }
  if (!option.fallback.empty()) right += fmt::format(" (default: {})", option.fallback);
  if (option.required && !option.positional) right += " (required)";
  return entry(left, right);
}

std::string option_lists(const CommandReference& command) {
  std::string arguments;
  std::string options;
  for (const OptionReference& option : command.options) {
    (option.positional ? arguments : options) += option_entry(option);
  }
  std::string out;
  if (!arguments.empty()) out += "\nArguments:\n" + arguments;
  if (!options.empty()) out += "\nOptions:\n" + options;
  return out;
}

}  // namespace

std::string usage_line(const CommandReference& command) {
  if (command.name.empty()) return "winnow COMMAND [options]";
  std::string line = "winnow " + command.name;
  for (const OptionReference& option : command.options) {
    if (option.positional) {
      const std::string name = option.names.front() + (option.repeatable ? "..." : "");
      line += option.required ? " " + name : " [" + name + "]";
    } else if (option.required) {
      line += fmt::format(" {} {}", option.names.front(), option.value);
    }
  }
  return line + " [options]";
}

std::string help_text(const CommandReference& command) {
  return fmt::format("Usage: {}\n\n{}\n{}", usage_line(command),
                     wrapped(command.description, 0, kWidth), option_lists(command));
}

std::string help_text(const ProgramReference& program) {
  std::string out = fmt::format("Usage: {}\n\n{}\n\nCommands:\n", usage_line(program.program),
                                wrapped(program.program.description, 0, kWidth));
  for (const CommandReference& command : program.commands) {
    out += entry(command.name, command.summary);
  }
  return out + option_lists(program.program) + "\n'winnow COMMAND --help' explains one command.\n";
}

}  // namespace winnow::cli
