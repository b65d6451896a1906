// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow profile`: calibration statistics.
#include <algorithm>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "cli/provenance.h"
#include "compress/coverage.h"
#include "compress/imatrix_use.h"
#include "compress/profiler.h"
#include "compress/statistics_merge.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::cli {
namespace {

struct Options {
  std::string model;
  std::string output;
  std::vector<std::string> data;
  std::vector<std::string> merge;
  std::uint64_t tokens = 0;
  std::size_t context = 512;
  std::string sequences;
  std::optional<Bytes> max_memory;
  bool keep_states = false;
  bool restart = false;
  bool force = false;
  unsigned threads = 0;
  std::string isa;
  std::optional<std::string> json;
  std::optional<std::string> imatrix;
};

// Rankings of experts by fewer tokens are mostly chance.
constexpr std::uint64_t kFewTokens = 64;

metrics::WindowSet read_text(const Options& options, const model::Checkpoint& checkpoint) {
  if (options.context > checkpoint.spec().max_position_embeddings) {
    fail(ErrorCode::kUsage, "--context: {} is beyond the {} positions of {}", options.context,
         checkpoint.spec().max_position_embeddings, checkpoint.file().name());
  }
  const auto documents = metrics::read_calibration(options.data);
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
  return metrics::make_windows(tokenizer, documents,
                               {.context = options.context, .max_tokens = options.tokens});
}

/// "FIRST:END", either of which may be left out.
compress::SequenceRange parse_range(const std::string& text) {
  compress::SequenceRange range;
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) {
    fail(ErrorCode::kUsage,
         "--sequences: '{}' has no colon; give FIRST:END, like 0:640 or 640:", text);
  }
  const auto number = [](const std::string& part, std::size_t otherwise) {
    constexpr std::int64_t kMost = std::int64_t{1} << 32;
    if (part.empty()) return otherwise;
    return static_cast<std::size_t>(parse_whole(part, "--sequences", 0, kMost));
  };
  range.first = number(text.substr(0, colon), range.first);
  range.end = number(text.substr(colon + 1), range.end);
  if (range.first >= range.end) {
    fail(ErrorCode::kUsage, "--sequences: '{}' is empty; END is to be larger than FIRST", text);
  }
  return range;
}

/// Throws Error{kUsage} when the range has nothing of the text.
compress::SequenceRange read_range(const Options& options, const metrics::WindowSet& text) {
  if (options.sequences.empty()) return {};
  const compress::SequenceRange range = parse_range(options.sequences);
  std::vector<std::size_t> lengths(text.domains.size());
  for (const metrics::Window& window : text.windows) ++lengths[window.domain];
  const std::size_t longest = *std::max_element(lengths.begin(), lengths.end());
  if (range.first < longest) return range;
  fail(ErrorCode::kUsage, "--sequences: no domain has a sequence {}; the longest ends before {}",
       range.first, longest);
}

void print_coverage(Output& out, const compress::LayerCoverage& coverage) {
  const std::string agreement =
      coverage.rank_agreement ? fmt::format("{:.3f}", *coverage.rank_agreement) : "-";
  out.write(fmt::format("{:>5} {:>10} {:>11} {:>10} {:>13}\n", index(coverage.layer),
                        coverage.least_hits, coverage.median_hits, agreement,
                        coverage.under_sampled.size()));
}

void print_summary(Output& out, const compress::StatisticsHeader& header,
                   std::span<const compress::LayerCoverage> layers) {
  out.write(
      fmt::format("{:<24} {:>10} {:>10} {:>10}\n", "domain", "sequences", "held out", "tokens"));
  for (const compress::StatisticsDomain& domain : header.domains) {
    out.write(fmt::format("{:<24} {:>10} {:>10} {:>10}\n", domain.name, domain.sequences,
                          domain.held_out_sequences, domain.tokens));
  }
  if (layers.empty()) return;
  out.write(fmt::format("{:>5} {:>10} {:>11} {:>10} {:>13}\n", "layer", "least hits", "median hits",
                        "agreement", "under-sampled"));
  for (const compress::LayerCoverage& coverage : layers) print_coverage(out, coverage);
}

void warn_of_little_text(const compress::StatisticsHeader& header,
                         std::span<const compress::LayerCoverage> layers, Log& log) {
  for (const compress::StatisticsDomain& domain : header.domains) {
    if (domain.tokens >= kFewTokens) continue;
    log.warn(fmt::format("domain '{}' has only {} tokens: its statistics say little", domain.name,
                         domain.tokens));
  }
  std::size_t few = 0;
  for (const compress::LayerCoverage& coverage : layers) few += coverage.under_sampled.size();
  if (few == 0) return;
  log.warn(
      fmt::format("{} experts were chosen by fewer than {} tokens and will be drawn towards their "
                  "layer; more text, or text of other kinds, would reach them",
                  few, compress::kFewHits));
}

void report(const Options& options, Context& context,
            const std::optional<compress::ProfileResult>& result) {
  const auto statistics = compress::StatisticsFile::open(options.output);
  const auto layers = compress::measure_coverage(statistics);
  warn_of_little_text(statistics.header(), layers, context.log);
  Json json;
  json["schema_version"] = 1;
  json["model"] = options.model;
  json["output"] = options.output;
  json["bytes"] = std::filesystem::file_size(options.output);
  if (result) {
    json["tokens"] = result->tokens;
    json["held_out_tokens"] = result->held_out_tokens;
    json["resumed_layers"] = result->resumed_layers;
    json["states_on_disk"] = result->states_on_disk;
  }
  json["statistics"] = compress::to_json(statistics.header());
  json["few_hits"] = compress::kFewHits;
  json["layers"] = Json::array();
  for (const auto& coverage : layers) json["layers"].push_back(compress::to_json(coverage));
  if (options.json) write_json(context, *options.json, json);
  if (options.json == "-") return;
  context.log.clear_progress();
  print_summary(context.out, statistics.header(), layers);
}

void merge(const Options& options, const model::Checkpoint& checkpoint, Context& context) {
  const std::vector<std::filesystem::path> inputs(options.merge.begin(), options.merge.end());
  using Start = compress::PartialOutput::Start;
  compress::merge_statistics(checkpoint, inputs, options.output, std::string(version()),
                             options.restart ? Start::kRestart : Start::kResume, context.log);
}

void run(const Options& options, Context& context) {
  if (options.data.empty() == options.merge.empty()) {
    fail(ErrorCode::kUsage, "give either --data, a text to read, or --merge, files to add up");
  }
  const auto checkpoint = model::Checkpoint::open(options.model);
  check_output_path(checkpoint, options.output, options.force);
  if (options.imatrix) {
    check_output_path(checkpoint, *options.imatrix, options.force);
    if (*options.imatrix == options.output) {
      fail(ErrorCode::kUsage, "--imatrix: names the same file as --output");
    }
  }
  if (options.json && *options.json != "-") {
    check_output_path(checkpoint, *options.json, /*replace=*/true);
    if (*options.json == options.output || options.json == options.imatrix) {
      fail(ErrorCode::kUsage, "--json: names the same file as another output");
    }
  }
  std::optional<compress::ProfileResult> result;
  if (!options.merge.empty()) {
    merge(options, checkpoint, context);
  } else {
    const metrics::WindowSet text = read_text(options, checkpoint);
    compress::ProfileOptions profile_options;
    profile_options.engine.threads = options.threads;
    profile_options.engine.isa = options.isa;
    profile_options.context = options.context;
    profile_options.max_memory = options.max_memory;
    profile_options.sequences = read_range(options, text);
    profile_options.keep_states = options.keep_states;
    profile_options.restart = options.restart;
    profile_options.version = std::string(version());
    result =
        compress::profile_model(checkpoint, text, options.output, profile_options, context.log);
  }
  if (options.imatrix) {
    compress::write_imatrix(compress::StatisticsFile::open(options.output), checkpoint.spec(),
                            *options.imatrix);
  }
  report(options, context, result);
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  require(add_output(app, options->output, "the statistics file to write"));
  CLI::Option* data = add_data(app, options->data);
  CLI::Option* merge_option = add_texts(
      app, {"--merge", "STATS...", "add these statistics files up in place of reading text"},
      options->merge);
  conflict(data, merge_option);
  add_whole(app,
            {"--tokens", "N", "read at most this many tokens, shared by the domains; 0 means all"},
            options->tokens, 0, std::int64_t{1} << 40);
  CLI::Option* sequences = add_text(
      app,
      {"--sequences", "FIRST:END",
       "only these sequences of each domain, counted from 0 and END not included: one part of a "
       "text that --merge makes whole, wherever it is cut"},
      options->sequences);
  conflict(sequences, merge_option);
  add_whole(app, {"--context", "N", "positions of a window, start token included"},
            options->context, 2, 1 << 20);
  add_max_memory(app, options->max_memory, "; hidden states that do not fit are files");
  add_text(
      app,
      {"--imatrix", "FILE",
       "also write llama.cpp's importance matrix: as GGUF when the name ends in .gguf, else in "
       "the older binary form"},
      options->imatrix);
  add_flag(app, "--keep-states", options->keep_states,
           "keep the hidden states of every layer in STATS.states/");
  add_flag(app, "--restart", options->restart, "begin anew where a run was broken off");
  add_threads(app, options->threads);
  add_isa(app, options->isa);
  add_json(app, options->json);
  add_flag(app, "--force", options->force, "replace an existing file");
  return [options](Context& context) { run(*options, context); };
}

}  // namespace

extern const Command kProfile{
    .name = "profile",
    .summary = "measure how a model uses its weights on text",
    .description =
        "Runs the model over the text once, layer by layer with one layer's weights in memory, and "
        "writes small sums: how often and how strongly each expert is used, with which others, the "
        "norms, products and means of the experts' outputs, second moments of the inputs of every "
        "matrix, and the model's likeliest next tokens on every eighth sequence, which is held "
        "out. The sums are kept per text domain and add up over files (--merge). A run that was "
        "killed goes on where it was and gives the same bytes.",
    .declare = declare};

}  // namespace winnow::cli
