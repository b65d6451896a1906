// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Helpers to declare options. All values pass through these, so that a wrong one always ends in a
// sentence that names the flag and what to write, and so that few files see CLI11's big header.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/units.h"
#include "kernels/key_values.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace winnow::engine {
enum class WeightMemory : std::uint8_t;
}

namespace winnow::cli {

/// How an option is written and explained.
struct OptionText {
  std::string names;  ///< "-o,--output", or "MODEL" for a positional argument
  std::string value;  ///< what stands for the value in help: "BYTES"; alternatives as "a|b|c"
  std::string help;   ///< a phrase without a full stop
};

/// Calls `assign` with each value's text once all arguments are read. The last wins when the option
/// is repeated. `fallback` is shown in help as the default unless empty.
CLI::Option* add_value(CLI::App& app, const OptionText& text,
                       const std::function<void(const std::string&)>& assign,
                       const std::string& fallback = "");

/// True when given.
CLI::Option* add_flag(CLI::App& app, const std::string& names, bool& target,
                      const std::string& help);
/// Any text. A target that is not empty is the default.
CLI::Option* add_text(CLI::App& app, const OptionText& text, std::string& target);
CLI::Option* add_text(CLI::App& app, const OptionText& text, std::optional<std::string>& target);
/// One or more values after the flag, and the flag may be repeated: `--data a b --data c`.
CLI::Option* add_texts(CLI::App& app, const OptionText& text, std::vector<std::string>& target);
/// One value after the flag, which may be repeated: `--stop a --stop b`.
CLI::Option* add_repeated(CLI::App& app, const OptionText& text, std::vector<std::string>& target);
/// One of `choices`, exactly as written. Help shows the choices in place of `text.value`.
CLI::Option* add_choice(CLI::App& app, OptionText text, const std::vector<std::string>& choices,
                        std::string& target);
/// A size such as 8GiB, 500MB or 4096 (see parse_bytes).
CLI::Option* add_bytes(CLI::App& app, const OptionText& text, std::optional<Bytes>& target);
/// --max-memory: when it is given, the process keeps no freed memory from then on. note: appended
/// to the help.
CLI::Option* add_max_memory(CLI::App& app, std::optional<Bytes>& target,
                            std::string_view note = "");
/// A finite number in [least, most].
CLI::Option* add_real(CLI::App& app, const OptionText& text, double& target, double least,
                      double most);
CLI::Option* add_real(CLI::App& app, const OptionText& text, std::optional<double>& target,
                      double least, double most);

/// Reads a whole number in [least, most]. Throws Error{kUsage} that names `what`.
std::int64_t parse_whole(std::string_view text, std::string_view what, std::int64_t least,
                         std::int64_t most);
/// Reads a finite number in [least, most]. Throws Error{kUsage} that names `what`.
double parse_real(std::string_view text, std::string_view what, double least, double most);
/// "--output" of "-o,--output": the name to use in messages.
std::string long_name(const std::string& names);

/// A whole number in [least, most]; `most` has to fit the target.
template <typename T>
CLI::Option* add_whole(CLI::App& app, const OptionText& text, T& target, std::int64_t least,
                       std::int64_t most) {
  static_assert(std::is_integral_v<T>);
  return add_value(
      app, text,
      [&target, least, most, name = long_name(text.names)](const std::string& value) {
        target = static_cast<T>(parse_whole(value, name, least, most));
      },
      std::to_string(target));
}
template <typename T>
CLI::Option* add_whole(CLI::App& app, const OptionText& text, std::optional<T>& target,
                       std::int64_t least, std::int64_t most) {
  static_assert(std::is_integral_v<T>);
  return add_value(app, text,
                   [&target, least, most, name = long_name(text.names)](const std::string& value) {
                     target = static_cast<T>(parse_whole(value, name, least, most));
                   });
}

/// Makes `option` mandatory.
void require(CLI::Option* option);
/// Refuses command lines that give both.
void conflict(CLI::Option* a, CLI::Option* b);

// The options that several commands share, so that they read the same everywhere.

/// The positional MODEL: a safetensors folder, a GGUF file or its first split. Mandatory.
CLI::Option* add_model(CLI::App& app, std::string& target);
/// -o, --output. Mandatory.
CLI::Option* add_output(CLI::App& app, std::string& target, const std::string& help);
/// --data PATH...: text files, JSONL files, or folders of them.
CLI::Option* add_data(CLI::App& app, std::vector<std::string>& target);
/// -t, --threads N; 0, the default, means os::usable_cpus().
CLI::Option* add_threads(CLI::App& app, unsigned& target);
/// --isa NAME: which kernels to use; "auto", the default, means the best the processor has.
CLI::Option* add_isa(CLI::App& app, std::string& target);
/// --kv-type f32|f16|q8_0: how keys and values of earlier positions are kept.
CLI::Option* add_kv_type(CLI::App& app, kernels::KvType& target);
/// --weights mapped|mapped-only|copied: see engine::WeightMemory. The target is the default.
CLI::Option* add_weights(CLI::App& app, engine::WeightMemory& target);
/// --json FILE, "-" for standard output.
CLI::Option* add_json(CLI::App& app, std::optional<std::string>& target);
/// --seed N, any 64-bit seed from 0 to 2^63 - 1.
CLI::Option* add_seed(CLI::App& app, std::uint64_t& target);

}  // namespace winnow::cli
