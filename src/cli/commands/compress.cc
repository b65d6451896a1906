// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow compress`: the main job.
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/options.h"
#include "compress/compressor.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"
#include "os/file.h"

namespace winnow::cli {
namespace {

struct Options {
  std::string model;
  std::string output;
  std::vector<std::string> data;
  std::string budget;
  std::optional<double> bits;
  std::uint64_t tokens = 65536;
  std::size_t context = 512;
  unsigned threads = 0;
  std::string isa;
  std::optional<std::string> report;
};

/// "30%" is a share of the model's bytes at 16 bits a weight.
Bytes read_budget(const std::string& text, const model::Checkpoint& checkpoint) {
  if (!text.ends_with('%')) return parse_bytes(text, "--budget");
  const double percent = parse_real(text.substr(0, text.size() - 1), "--budget", 0, 100);
  return {static_cast<std::uint64_t>(percent / 100.0 * 2.0 *
                                     static_cast<double>(checkpoint.num_parameters()))};
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

void print_summary(Output& out, const compress::CompressResult& result) {
  const double bits = 8.0 * static_cast<double>(result.tensor_bytes.value) /
                      static_cast<double>(result.num_parameters);
  out.write(fmt::format("file: {} bytes, {:.3f} bits per weight\n", result.file_bytes.value, bits));
  for (const compress::TensorGroup& group : result.groups) {
    const compress::GroupOption& option = group.options[group.chosen];
    out.write(fmt::format("  {:<32} {:<7} {:>12} bytes", group.name(), option.codec->name,
                          option.bytes.value));
    if (result.measured) out.write(fmt::format("  predicted KL {:.2e}", option.predicted_kl));
    out.write("\n");
  }
  if (!result.measured) return;
  const metrics::Scores& scores = result.measured->all;
  out.write(
      fmt::format("KL on {} held-out tokens: {:.5f} +- {:.5f} (predicted {:.5f}), same top "
                  "token {:.2f} %\n",
                  scores.tokens, scores.kl_divergence, scores.kl_standard_error,
                  result.predicted_kl, 100 * scores.top1_agreement));
}

void write_report(const Options& options, const Context& context,
                  const compress::CompressResult& result) {
  std::error_code error;
  std::filesystem::create_directories(*options.report, error);
  if (error) {
    fail(ErrorCode::kSystem, "{}: cannot create the folder: {}", *options.report, error.message());
  }
  Json record;
  record["schema_version"] = 1;
  record["version"] = std::string(version());
  record["command"] = joined(context.arguments);
  record["model"] = options.model;
  record["output"] = options.output;
  record.update(compress::to_json(result));
  os::write_text_file(std::filesystem::path(*options.report) / "compress.json",
                      dump_json(record, true) + "\n");
}

void run(const Options& options, Context& context) {
  if (options.budget.empty() == !options.bits.has_value()) {
    fail(ErrorCode::kUsage, "give either --budget or --bits: how large may the result be?");
  }
  const auto checkpoint = model::Checkpoint::open(options.model);
  compress::CompressOptions compress_options;
  if (options.bits) {
    compress_options.bits_per_weight = options.bits;
  } else {
    compress_options.file_budget = read_budget(options.budget, checkpoint);
  }
  compress_options.engine = {options.threads, options.isa};
  compress_options.metadata = {{"winnow.version", std::string(version())},
                               {"winnow.command", joined(context.arguments)}};
  std::optional<metrics::WindowSet> windows;
  if (!options.data.empty()) {
    const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
    windows =
        metrics::make_windows(tokenizer, metrics::read_documents(options.data),
                              {.context = std::min<std::size_t>(
                                   options.context, checkpoint.spec().max_position_embeddings),
                               .max_tokens = options.tokens});
  } else {
    context.log.warn("no --data: the weights alone decide, without knowing which of them matter");
  }
  const compress::CompressResult result = compress::compress_model(
      checkpoint, options.output, windows ? &*windows : nullptr, compress_options, context.log);
  if (options.report) write_report(options, context, result);
  print_summary(context.out, result);
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  require(add_output(app, options->output, "the GGUF file to write"));
  add_data(app, options->data);
  CLI::Option* budget = add_text(
      app, {"--budget", "BYTES", "size of the output file: 8GiB, 500MB, or 30% of 16-bit weights"},
      options->budget);
  CLI::Option* bits = add_real(
      app, {"--bits", "B", "average bits per weight over all tensors, embeddings included"},
      options->bits, 0.1, 32);
  conflict(budget, bits);
  add_whole(app, {"--tokens", "N", "calibration tokens, shared by the domains; 0 means all"},
            options->tokens, 0, std::int64_t{1} << 40);
  add_whole(app, {"--context", "N", "positions of a calibration window"}, options->context, 2,
            1 << 20);
  add_threads(app, options->threads);
  add_isa(app, options->isa);
  add_text(app, {"--report", "DIR", "write compress.json there: every option considered and taken"},
           options->report);
  return [options](Context& context) { run(*options, context); };
}

}  // namespace

extern const Command kCompress{
    .name = "compress",
    .summary = "compress a model to a byte budget",
    .description =
        "Runs the model over the calibration text to learn which inputs of each matrix matter, "
        "measures what every codec would cost every group of tensors, and chooses one codec per "
        "group so that the file stays within the budget and the output distribution changes "
        "least. The result is a plain GGUF file that llama.cpp and its relatives also read.",
    .declare = declare};

}  // namespace winnow::cli
