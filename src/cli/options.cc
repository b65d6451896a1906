// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "engine/engine.h"
#include "kernels/kernels.h"
#include "os/memory.h"

namespace winnow::cli {
namespace {

/// from_chars over the whole of `text`; false when anything is left over.
template <typename T>
bool read_number(std::string_view text, T& value) {
  const auto [rest, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  return status == std::errc() && rest == text.data() + text.size();
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

}  // namespace

CLI::Option* add_value(CLI::App& app, const OptionText& text,
                       const std::function<void(const std::string&)>& assign,
                       const std::string& fallback) {
  CLI::Option* option = app.add_option_function<std::string>(text.names, assign, text.help);
  option->type_name(text.value)->take_last();
  if (!fallback.empty()) option->default_str(fallback);
  return option;
}

CLI::Option* add_flag(CLI::App& app, const std::string& names, bool& target,
                      const std::string& help) {
  return app
      .add_flag_callback(
          names, [&target] { target = true; }, help)
      ->take_last();
}

CLI::Option* add_text(CLI::App& app, const OptionText& text, std::string& target) {
  return add_value(
      app, text, [&target](const std::string& value) { target = value; }, target);
}

CLI::Option* add_text(CLI::App& app, const OptionText& text, std::optional<std::string>& target) {
  return add_value(app, text, [&target](const std::string& value) { target = value; });
}

CLI::Option* add_texts(CLI::App& app, const OptionText& text, std::vector<std::string>& target) {
  const auto assign = [&target](const std::vector<std::string>& values) { target = values; };
  CLI::Option* option =
      app.add_option_function<std::vector<std::string>>(text.names, assign, text.help);
  return option->type_name(text.value);
}

CLI::Option* add_repeated(CLI::App& app, const OptionText& text, std::vector<std::string>& target) {
  return add_texts(app, text, target)->allow_extra_args(false);
}

CLI::Option* add_choice(CLI::App& app, OptionText text, const std::vector<std::string>& choices,
                        std::string& target) {
  text.value = joined(choices, "|");
  const auto assign = [&target, choices, name = long_name(text.names)](const std::string& value) {
    if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
      fail(ErrorCode::kUsage, "{}: '{}' is not one of: {}", name, value, joined(choices, ", "));
    }
    target = value;
  };
  return add_value(app, text, assign, target);
}

CLI::Option* add_bytes(CLI::App& app, const OptionText& text, std::optional<Bytes>& target) {
  return add_value(app, text, [&target, name = long_name(text.names)](const std::string& value) {
    target = parse_bytes(value, name);
  });
}

CLI::Option* add_max_memory(CLI::App& app, std::optional<Bytes>& target, std::string_view note) {
  const OptionText text{"--max-memory", "BYTES",
                        fmt::format("memory of the whole process: 4GiB, 500MB{}", note)};
  return add_value(app, text, [&target](const std::string& value) {
    target = parse_bytes(value, "--max-memory");
    os::return_freed_memory();
  });
}

CLI::Option* add_real(CLI::App& app, const OptionText& text, double& target, double least,
                      double most) {
  return add_value(
      app, text,
      [&target, least, most, name = long_name(text.names)](const std::string& value) {
        target = parse_real(value, name, least, most);
      },
      fmt::format("{:g}", target));
}

CLI::Option* add_real(CLI::App& app, const OptionText& text, std::optional<double>& target,
                      double least, double most) {
  return add_value(app, text,
                   [&target, least, most, name = long_name(text.names)](const std::string& value) {
                     target = parse_real(value, name, least, most);
                   });
}

std::int64_t parse_whole(std::string_view text, std::string_view what, std::int64_t least,
                         std::int64_t most) {
  std::int64_t value = 0;
  if (!read_number(text, value) || value < least || value > most) {
    fail(ErrorCode::kUsage, "{}: '{}' is not a whole number from {} to {}", what, text, least,
         most);
  }
  return value;
}

double parse_real(std::string_view text, std::string_view what, double least, double most) {
  double value = 0;
  // A NaN fails both comparisons, hence the form of the test.
  if (!read_number(text, value) || !(value >= least && value <= most)) {
    fail(ErrorCode::kUsage, "{}: '{}' is not a number from {:g} to {:g}", what, text, least, most);
  }
  return value;
}

std::string long_name(const std::string& names) {
  const std::size_t comma = names.rfind(',');
  return comma == std::string::npos ? names : names.substr(comma + 1);
}

void require(CLI::Option* option) { option->required(); }

void conflict(CLI::Option* a, CLI::Option* b) { a->excludes(b); }

CLI::Option* add_model(CLI::App& app, std::string& target) {
  CLI::Option* option = add_text(
      app, {"MODEL", "MODEL", "a safetensors folder, a GGUF file or its first split"}, target);
  return option->required();
}

CLI::Option* add_output(CLI::App& app, std::string& target, const std::string& help) {
  return add_text(app, {"-o,--output", "OUT", help}, target)->required();
}

CLI::Option* add_data(CLI::App& app, std::vector<std::string>& target) {
  return add_texts(app,
                   {"--data", "PATH",
                    "text files, JSONL files (key `text`), or folders of them, whose "
                    "file names without the suffix are the domains"},
                   target);
}

CLI::Option* add_threads(CLI::App& app, unsigned& target) {
  constexpr std::int64_t kMostThreads = 1024;
  return add_whole(
      app,
      {"-t,--threads", "N",
       "threads; 0 means one per physical performance core that the process may use, within the "
       "quota of its cgroup"},
      target, 0, kMostThreads);
}

CLI::Option* add_json(CLI::App& app, std::optional<std::string>& target) {
  return add_text(app, {"--json", "FILE", "write the result as JSON, to standard output for `-`"},
                  target);
}

CLI::Option* add_isa(CLI::App& app, std::string& target) {
  std::vector<std::string> names = {"auto"};
  for (const std::string_view name : kernels::isa_names()) names.emplace_back(name);
  if (target.empty()) target = "auto";
  return add_choice(app, {"--isa", "", "instruction set of the kernels"}, names, target);
}

CLI::Option* add_kv_type(CLI::App& app, kernels::KvType& target) {
  std::vector<std::string> names;
  for (const kernels::KvType type : kernels::all_kv_types()) names.emplace_back(to_string(type));
  const auto assign = [&target, choices = joined(names, ", ")](const std::string& value) {
    const auto type = kernels::parse_kv_type(value);
    if (!type) fail(ErrorCode::kUsage, "--kv-type: '{}' is not one of: {}", value, choices);
    target = *type;
  };
  return add_value(
      app, {"--kv-type", joined(names, "|"), "how keys and values of earlier positions are kept"},
      assign, std::string(to_string(target)));
}

CLI::Option* add_weights(CLI::App& app, engine::WeightMemory& target) {
  using engine::WeightMemory;
  static constexpr std::array<std::pair<std::string_view, WeightMemory>, 3> kChoices = {{
      {"mapped", WeightMemory::kMapped},
      {"mapped-only", WeightMemory::kMappedOnly},
      {"copied", WeightMemory::kCopied},
  }};
  std::vector<std::string> names;
  std::string fallback;
  for (const auto& [name, value] : kChoices) {
    names.emplace_back(name);
    if (value == target) fallback = name;
  }
  const auto assign = [&target, names](const std::string& given) {
    const auto* const found =
        std::find_if(kChoices.begin(), kChoices.end(),
                     [&](const auto& choice) { return choice.first == given; });
    if (found == kChoices.end()) {
      fail(ErrorCode::kUsage, "--weights: '{}' is not one of: {}", given, joined(names, ", "));
    }
    target = found->second;
  };
  return add_value(app,
                   {"--weights", joined(names, "|"),
                    "use the file at once and move it to large pages meanwhile; only use the file; "
                    "or read it before anything else"},
                   assign, fallback);
}

CLI::Option* add_seed(CLI::App& app, std::uint64_t& target) {
  return add_whole(app,
                   {"--seed", "N", "seed of the random choices; equal seeds give equal output"},
                   target, 0, std::numeric_limits<std::int64_t>::max());
}

}  // namespace winnow::cli
