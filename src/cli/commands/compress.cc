// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow compress`: the main job.
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/compress_summary.h"
#include "cli/context.h"
#include "cli/domain_weights.h"
#include "cli/expert_flags.h"
#include "cli/little_text.h"
#include "cli/options.h"
#include "cli/provenance.h"
#include "cli/reduced_model.h"
#include "compress/compressor.h"
#include "compress/imatrix_use.h"
#include "compress/portable_counts.h"
#include "compress/quantizer_methods.h"
#include "compress/quantizer_steps.h"
#include "compress/recipe.h"
#include "compress/statistics_use.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"
#include "os/file.h"

namespace winnow::cli {
namespace {

constexpr const char* kDefaultMethod = "hessian";

struct Options {
  std::string model;
  std::string output;
  std::vector<std::string> data;
  std::vector<std::string> weights;
  std::string budget;
  std::optional<double> bits;
  std::optional<double> tolerance;
  std::string recipe;
  std::uint64_t tokens = 65536;
  std::size_t context = 512;
  unsigned threads = 0;
  std::string isa;
  std::optional<std::string> report;
  std::string method = kDefaultMethod;
  std::optional<std::string> steps;
  std::optional<std::string> transforms;
  std::optional<std::size_t> rank;
  std::string hessians = "expert";
  std::string allocation = "slopes";
  ExpertFlags experts;
  std::string statistics;
  std::optional<Bytes> max_memory;
  bool sequential = false;
  bool restart = false;
  bool keep_measurements = false;
  bool portable = false;
  bool skip_ratios = false;
  bool force = false;
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

void create_report_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorCode::kSystem, "{}: cannot create the folder: {}", folder, error.message());
}

/// Says, or with --portable insists on, what llama.cpp would make of the file.
void report_losses(const model::Checkpoint& source, bool portable, Log& log) {
  const auto losses = source.architecture().lost_in_llama_cpp;
  if (losses == nullptr) return;
  for (const std::string& loss : losses(source.spec())) {
    if (portable) {
      fail_data("{}: --portable is not possible: llama.cpp will not run it as it is meant: {}",
                source.file().name(), loss);
    }
    log.warn(fmt::format("llama.cpp will not run this file as the model is meant: {}", loss));
  }
}

/// The options that decide how matrices are quantised.
std::string recorded_quantiser(const Options& options) {
  std::string text = fmt::format(" --hessians {} --method {}", options.hessians, options.method);
  if (options.steps) text += " --steps " + *options.steps;
  if (options.transforms) text += " --transforms " + *options.transforms;
  if (options.rank) text += fmt::format(" --rank {}", *options.rank);
  if (options.sequential) text += " --sequential";
  text += to_text(options.experts);
  if (options.skip_ratios) text += " --skip-ratios";
  return text;
}

/// In the place of a quantiser.
compress::EncoderKind encoders(const Options& options) {
  return compress::usable_quantizer_method(options.method).encoders;
}

/// The command with what decides the output's bytes, without paths.
std::string recorded_command(const Options& options) {
  std::string command = "compress";
  if (!options.recipe.empty()) command += " --recipe " + model::path_label(options.recipe);
  if (options.tolerance) {
    command += fmt::format(" --tolerance {}", *options.tolerance);
  } else {
    command += options.bits ? fmt::format(" --bits {}", *options.bits)
                            : fmt::format(" --budget {}", options.budget);
  }
  for (const std::string& path : options.data) command += " --data " + model::path_label(path);
  for (const std::string& weight : options.weights) command += " --weight " + weight;
  if (!options.statistics.empty()) {
    command += " --statistics " + model::path_label(options.statistics);
  }
  if (options.data.empty()) {
    return encoders(options) == compress::EncoderKind::kOwn
               ? command
               : command + " --method " + options.method;
  }
  return command + fmt::format(" --tokens {} --context {}", options.tokens, options.context) +
         recorded_quantiser(options) + " --allocation " + options.allocation;
}

/// The command line's and the recipe's, of which one has a size.
void resolve_budget(Options& options, const compress::Recipe& recipe) {
  const bool given = !options.budget.empty() || options.bits || options.tolerance;
  if (given && (recipe.budget || recipe.bits || recipe.tolerance)) {
    fail(ErrorCode::kUsage, "{} has a budget, and so has the command line: leave out one of them",
         options.recipe);
  }
  if (recipe.budget) options.budget = *recipe.budget;
  if (recipe.bits) options.bits = recipe.bits;
  if (recipe.tolerance) options.tolerance = recipe.tolerance;
  if (options.budget.empty() && !options.bits && !options.tolerance) {
    fail(
        ErrorCode::kUsage,
        "give either --budget or --bits: how large may the result be? Or --tolerance: how much may "
        "it lose?");
  }
  take_from(recipe, options.recipe, options.experts);
}

void write_report(const Options& options, const Context& context,
                  const std::optional<Bytes>& budget, const std::optional<ReducedModel>& reduced,
                  const compress::CompressResult& result) {
  Json record;
  record["schema_version"] = 1;
  record["version"] = std::string(version());
  record["command"] = joined(context.arguments);
  record["model"] = options.model;
  record["output"] = options.output;
  if (options.tolerance) {
    record["tolerance"] = *options.tolerance;
  } else if (options.bits) {
    record["budget_bits"] = *options.bits;
  } else {
    record["budget_bytes"] = budget->value;
  }
  if (reduced) record["experts"] = to_json(*reduced);
  record.update(compress::to_json(result));
  os::write_text_file(std::filesystem::path(*options.report) / "compress.json",
                      dump_json(record, true) + "\n");
}

/// What is known of the inputs.
struct Text {
  std::optional<metrics::WindowSet> windows;
  std::optional<compress::InputMoments> moments;
  std::optional<metrics::WindowSet> probe;
};

/// What depends on the numbers of the experts is left out when some of them are.
Text read_text(const Options& options, const model::Checkpoint& checkpoint, bool all_experts,
               Log& log) {
  Text text;
  if (!options.statistics.empty() && compress::is_imatrix(options.statistics)) {
    if (all_experts) text.moments = compress::load_imatrix(options.statistics, checkpoint.spec());
  } else if (!options.statistics.empty()) {
    const auto statistics = compress::StatisticsFile::open(options.statistics);
    statistics.require_model(checkpoint);
    if (all_experts) {
      text.moments = compress::load_moments(
          statistics, checkpoint.spec(), weight_of_domain(options.weights, statistics),
          encoders(options) == compress::EncoderKind::kStock ? compress::RouterWeights::kIgnored
                                                             : compress::RouterWeights::kSquared);
    }
    text.probe = compress::held_out_text(statistics, checkpoint.spec().vocab_size);
    if (text.probe->windows.empty()) text.probe.reset();
  }
  if (!options.data.empty()) {
    const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
    text.windows =
        metrics::make_windows(tokenizer, metrics::read_calibration(options.data),
                              {.context = std::min<std::size_t>(
                                   options.context, checkpoint.spec().max_position_embeddings),
                               .max_tokens = options.tokens,
                               .weights = domain_weights(options.weights)});
    warn_of_little_text(*text.windows, log);
  } else if (options.statistics.empty()) {
    log.warn(
        "neither --data nor --statistics: the weights alone decide, without knowing which of them "
        "matter");
  }
  return text;
}

compress::HessianQuantizerOptions quantizer_options(const Options& options) {
  if (!options.steps) return compress::usable_quantizer_method(options.method).options;
  if (options.method != kDefaultMethod) {
    fail(ErrorCode::kUsage, "--steps chooses among the steps of --method {}, not of {}",
         kDefaultMethod, options.method);
  }
  return compress::options_of_steps(*options.steps);
}

/// Those of the method, at the rank that was asked for.
compress::CorrectionOptions correction_options(const Options& options) {
  compress::CorrectionOptions corrections =
      compress::usable_quantizer_method(options.method).corrections;
  if (corrections.rank == 0) {
    if (!options.rank) return corrections;
    fail(ErrorCode::kUsage, "--rank is that of low-rank corrections, which --method {} has not",
         options.method);
  }
  if (options.portable) {
    fail(ErrorCode::kUsage,
         "--method {} writes low-rank corrections, which llama.cpp does not read: it does not go "
         "with --portable",
         options.method);
  }
  corrections.rank = options.rank.value_or(corrections.rank);
  return corrections;
}

/// Those of the method, or exactly those that were asked for.
compress::TransformWishes transform_wishes(const Options& options) {
  const compress::TransformWishes wishes =
      options.transforms ? compress::wishes_of_names(*options.transforms)
                         : compress::usable_quantizer_method(options.method).transforms;
  if (encoders(options) != compress::EncoderKind::kOwn && (wishes.any() || options.sequential)) {
    fail(ErrorCode::kUsage, "--method {} goes with neither --transforms nor --sequential",
         options.method);
  }
  if (options.sequential && options.allocation == "ranked") {
    fail(ErrorCode::kUsage,
         "--allocation ranked measures many mixes, and with --sequential a group's bytes depend on "
         "the mix: they do not go together");
  }
  return wishes;
}

std::vector<std::string> allocation_names() {
  std::vector<std::string> names;
  for (const auto& allocation : compress::allocations()) names.emplace_back(allocation.name);
  return names;
}

/// Method names for --method's help.
std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const auto& method : compress::quantizer_methods()) names.emplace_back(method.name);
  return names;
}

compress::CompressResult compressed(const Options& options, const model::Checkpoint& checkpoint,
                                    bool is_reduced, const Text& text,
                                    const compress::CompressOptions& how, Log& log) {
  const metrics::WindowSet* const windows = text.windows ? &*text.windows : nullptr;
  if (!chooses_counts(options.experts, options.portable)) {
    return compress::compress_model(checkpoint, options.output, windows, how, log);
  }
  if (windows == nullptr || is_reduced) {
    fail(ErrorCode::kUsage, "{}: how many experts stay is measured on --data, of the whole model{}",
         options.experts.asked_by,
         is_reduced ? ": leave experts.keep out, or the options of experts" : "");
  }
  return compress::compress_portable(
      checkpoint, options.output, *windows, how,
      [&](const auto& kept) { return model::Checkpoint::open(options.model).with_experts(kept); },
      log);
}

void run(const Options& given, Context& context) {
  Options options = given;
  const compress::Recipe recipe =
      options.recipe.empty() ? compress::Recipe{} : compress::read_recipe(options.recipe);
  resolve_budget(options, recipe);
  const compress::ExpertOptions experts = expert_options(options.experts, options.portable);
  const auto original = model::Checkpoint::open(options.model);
  check_output_path(original, options.output, options.force);
  const std::optional<ReducedModel> reduced = reduce(
      {options.model, options.recipe, options.statistics, options.weights, !options.data.empty()},
      recipe, original, context.log);
  const model::Checkpoint& checkpoint = reduced ? reduced->checkpoint : original;
  report_losses(checkpoint, options.portable, context.log);
  compress::CompressOptions compress_options;
  if (options.tolerance) {
    compress_options.tolerance = options.tolerance;
  } else if (options.bits) {
    compress_options.bits_per_weight = options.bits;
  } else {
    compress_options.file_budget = read_budget(options.budget, original);
  }
  compress_options.engine = {options.threads, options.isa};
  compress_options.metadata = provenance(checkpoint, recorded_command(options));
  compress_options.hessians = *compress::find_hessian_scope(options.hessians);
  compress_options.quantizer = quantizer_options(options);
  compress_options.transforms = transform_wishes(options);
  compress_options.encoders = encoders(options);
  compress_options.allocation.kind = compress::find_allocation(options.allocation)->kind;
  compress_options.corrections = correction_options(options);
  compress_options.experts = experts;
  compress_options.sequential = options.sequential;
  compress_options.skip_ratios = options.skip_ratios;
  compress_options.max_memory = options.max_memory;
  compress_options.restart = options.restart;
  compress_options.keep_measurements = options.keep_measurements;
  compress_options.run = {{"version", std::string(version())},
                          {"method", options.method},
                          {"steps", options.steps.value_or("")},
                          {"transforms", options.transforms.value_or("")}};
  if (reduced) {
    compress_options.reference = &original;
    compress_options.run["experts"] = to_json(*reduced)["kept"];
  }
  const Text text = read_text(options, original, !reduced, context.log);
  if (text.moments) compress_options.moments = &*text.moments;
  if (text.probe) compress_options.probe = &*text.probe;
  if (options.report) create_report_folder(*options.report);
  const compress::CompressResult result =
      compressed(options, checkpoint, reduced.has_value(), text, compress_options, context.log);
  if (options.report) write_report(options, context, compress_options.file_budget, reduced, result);
  context.log.clear_progress();
  print_compress_summary(context.out, result);
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  require(add_output(app, options->output, "the GGUF file to write"));
  add_data(app, options->data);
  add_texts(app,
            {"--weight", "DOMAIN=W",
             "how much a domain counts, others 1: its share of --tokens, and its sums in "
             "--statistics; 0 leaves it out"},
            options->weights);
  CLI::Option* budget = add_text(
      app, {"--budget", "BYTES", "size of the output file: 8GiB, 500MB, or 30% of 16-bit weights"},
      options->budget);
  CLI::Option* bits = add_real(
      app, {"--bits", "B", "average bits per weight over all tensors, embeddings included"},
      options->bits, 0.1, 32);
  CLI::Option* tolerance =
      add_real(app,
               {"--tolerance", "KL",
                "instead of a size: the smallest file whose divergence from the model on held-out "
                "text is at most so many nats per token"},
               options->tolerance, 1e-9, 100);
  conflict(budget, bits);
  conflict(budget, tolerance);
  conflict(bits, tolerance);
  add_text(app,
           {"--recipe", "FILE",
            "a TOML file: which experts to leave out, and the budget if no flag has it"},
           options->recipe);
  add_whole(app, {"--tokens", "N", "calibration tokens, shared by the domains; 0 means all"},
            options->tokens, 0, std::int64_t{1} << 40);
  add_whole(app, {"--context", "N", "positions of a calibration window"}, options->context, 2,
            1 << 20);
  add_threads(app, options->threads);
  add_isa(app, options->isa);
  add_text(
      app,
      {"--statistics", "FILE",
       "what `winnow profile` wrote of this model, or an importance matrix of llama.cpp: in the "
       "place of --data; beside it, divergence is measured on its held-out text"},
      options->statistics);
  add_choice(app,
             {"--method", "NAME",
              "how codes and scales are chosen where there is --data; stock: wherever"},
             method_names(), options->method);
  add_whole(
      app, {"--rank", "N", "rank of the corrections of --method lorc and lorc-hessian (default 8)"},
      options->rank, 1, 4096);
  add_text(app,
           {"--steps", "LIST",
            "the steps of --method hessian to take, of " + compress::quantizer_step_names() +
                " (the default), or 'none'"},
           options->steps);
  add_text(app,
           {"--transforms", "LIST",
            "exact changes of the layers to make where they lower the loss, of " +
                compress::transform_names() +
                ", or 'none' (the default but for methods that are "
                "made of them)"},
           options->transforms);
  add_choice(
      app,
      {"--allocation", "NAME",
       "how each group of tensors gets its codec: one for all (uniform; plain: without measuring "
       "what others would cost, which is quicker); by predicted divergence; that refined by "
       "measuring whole mixes; by PMQ's weighting of experts, equal bits for "
       "every layer; or by the proxy that orders measured mixes best"},
      allocation_names(), options->allocation);
  add_expert_flags(app, options->experts);
  add_choice(app,
             {"--hessians", "SCOPE",
              "what errors are weighted with: full Hessians for each expert, for all experts of a "
              "layer together, or their diagonals only"},
             {"expert", "layer", "diagonal"}, options->hessians);
  add_flag(app, "--sequential", options->sequential,
           "measure inputs behind the layers that are quantised already");
  add_max_memory(app, options->max_memory);
  add_flag(app, "--restart", options->restart, "begin anew where a run was broken off");
  add_flag(app, "--keep-measurements", options->keep_measurements,
           "leave OUT.partial/ there: another budget for the same OUT and text then needs no "
           "measuring");
  add_text(app, {"--report", "DIR", "write compress.json there: every option considered and taken"},
           options->report);
  add_flag(
      app, "--portable", options->portable,
      "write only what llama.cpp runs as it is meant: refuse models and methods that it cannot");
  add_flag(app, "--skip-ratios", options->skip_ratios,
           "also write what a run needs for --skip-experts, measured on --data");
  add_flag(app, "--force", options->force, "replace an existing file");
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
        "least. The result is a plain GGUF file that llama.cpp and its relatives also read, but "
        "for methods with low-rank corrections (lorc, lorc-hessian) and with --expert-options: "
        "those write files for Winnow.",
    .declare = declare};

}  // namespace winnow::cli
