// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// make_speed_model: writes the model files that speed is measured on.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/error.h"
#include "cli/context.h"
#include "cli/options.h"
#include "cli/program.h"
#include "os/cpu_features.h"
#include "speed_model/inflate.h"
#include "speed_model/random_model.h"
#include "speed_model/shapes.h"

namespace winnow::tools {
namespace {

constexpr const char* kDescription =
    "Writes a GGUF file to measure speed on: a published shape with random weights, or a real "
    "model "
    "whose experts are made wider with zeros.\n\n"
    "  make_speed_model --shape olmoe-1b-7b --type Q4_0 -o olmoe-q4_0.gguf\n"
    "  make_speed_model --inflate models/grain --type Q4_0 -o grain-wide.gguf\n";

struct Options {
  std::optional<std::string> shape;
  std::optional<std::string> inflate;
  std::string output;
  std::optional<std::string> type;
  std::optional<std::string> output_type;
  std::optional<std::uint32_t> layers;
  std::uint32_t width = InflateOptions{}.width;
  std::uint64_t seed = 0;
  unsigned threads = 0;
};

const quant::Codec* find_type(const std::optional<std::string>& name, std::string_view flag) {
  if (!name) return nullptr;
  const quant::Codec* codec = quant::find_codec(*name);
  if (codec == nullptr) {
    fail(ErrorCode::kUsage, "{}: '{}' is not one of: {}", flag, *name, quant::codec_names());
  }
  return codec;
}

void declare(CLI::App& app, Options& options) {
  cli::conflict(
      cli::add_text(app, {"--shape", "NAME", "one of: " + shape_names()}, options.shape),
      cli::add_text(app, {"--inflate", "MODEL", "model to widen the experts of"}, options.inflate));
  cli::add_output(app, options.output, "the GGUF file");
  cli::add_text(app, {"--type", "TYPE", "type of the matrices: " + quant::codec_names()},
                options.type);
  cli::add_text(app,
                {"--output-type", "TYPE",
                 "type of the output matrix of a shape; Q6_K below 6 bits, else as --type"},
                options.output_type);
  cli::add_whole(app, {"--layers", "N", "fewer or more layers than the shape has"}, options.layers,
                 1, 10000);
  cli::add_whole(app, {"--width", "N", "inner width of inflated experts"}, options.width, 1,
                 1 << 21);
  cli::add_seed(app, options.seed);
  cli::add_threads(app, options.threads);
}

void make(const Options& options, Log& log) {
  if (options.shape.has_value() == options.inflate.has_value()) {
    fail(ErrorCode::kUsage, "give either --shape or --inflate; see --help");
  }
  const quant::Codec* codec = find_type(options.type, "--type");
  const quant::Codec* output_codec = find_type(options.output_type, "--output-type");
  os::ThreadPool pool(options.threads != 0 ? options.threads : os::usable_cpus());
  if (options.inflate) {
    const auto source = model::Checkpoint::open(*options.inflate);
    write_inflated_model(options.output, source, {options.width, codec}, pool, log);
    return;
  }
  if (codec == nullptr) fail(ErrorCode::kUsage, "--shape needs --type; see --help");
  write_random_model(options.output, published_shape(*options.shape, options.layers),
                     {codec, output_codec, options.seed}, pool, log);
}

void run(std::vector<std::string> arguments, cli::Context& context) {
  Options options;
  CLI::App app(kDescription, "make_speed_model");
  declare(app, options);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    context.out.write(app.help());
    return;
  } catch (const CLI::ParseError& error) {
    fail(ErrorCode::kUsage, "{}; see --help", error.what());
  }
  make(options, context.log);
}

}  // namespace
}  // namespace winnow::tools

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto action = [&](winnow::cli::Context& context) {
    winnow::tools::run(arguments, context);
  };
  return winnow::cli::run_action(action, winnow::cli::real_surroundings());
}
