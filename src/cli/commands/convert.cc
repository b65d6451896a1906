// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow convert MODEL -o OUT`: between safetensors and GGUF, every matrix in one plain type.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "base/error.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "cli/provenance.h"
#include "model/exporter.h"
#include "model/skip_ratios.h"
#include "os/cpu_features.h"

namespace winnow::cli {
namespace {

using model::Role;

struct Options {
  std::string model;
  std::string output;
  std::optional<std::string> type;
  unsigned threads = 0;
  bool force = false;
};

const quant::Codec* wanted_codec(const Options& options) {
  if (!options.type) return nullptr;
  const quant::Codec* codec = quant::find_codec(*options.type);
  if (codec == nullptr) {
    fail(ErrorCode::kUsage, "--type: '{}' is not one of: {}", *options.type, quant::codec_names());
  }
  return codec;
}

/// The type a matrix keeps when none is asked for: its own; F32 when the experts of a layer, which
/// GGUF stacks, differ, or when a correction is added to it; BF16 when the format has no such type.
const quant::Codec& kept_codec(const model::Checkpoint& source, model::OutputFormat format,
                               Role role, LayerId layer) {
  const quant::Codec& own = source.at(role, layer).codec();
  if (format == model::OutputFormat::kSafetensors && !own.is_float()) {
    return *quant::find_codec("BF16");
  }
  if (source.at(role, layer).low_rank != nullptr) return *quant::find_codec("F32");
  for (std::uint32_t part = 1; part < source.part_count(role, layer); ++part) {
    if (&source.at(role, layer, ExpertId{part}).codec() != &own) return *quant::find_codec("F32");
  }
  return own;
}

/// The codec that most of the plan's weights have.
const quant::Codec* commonest_codec(std::span<const model::ExportTensor> plan) {
  std::map<std::string_view, std::uint64_t> weights;
  const quant::Codec* best = nullptr;
  for (const model::ExportTensor& tensor : plan) {
    const quant::Codec* codec = tensor.planned.codec;
    weights[codec->name] += tensor.planned.shape.elements();
    if (best == nullptr || weights[codec->name] > weights[best->name]) best = codec;
  }
  return best;
}

/// Says which matrices could not have the type that was asked for, one message for each role.
void report_fallbacks(std::span<const model::ExportTensor> plan, const quant::Codec* wanted,
                      Log& log) {
  std::map<Role, std::pair<const model::ExportTensor*, std::size_t>> fallen;
  for (const model::ExportTensor& tensor : plan) {
    if (wanted == nullptr || !model::traits(tensor.role).is_matrix) continue;
    if (tensor.planned.codec == wanted) continue;
    auto& [first, count] = fallen[tensor.role];
    first = &tensor;
    ++count;
  }
  for (const auto& [role, entry] : fallen) {
    const formats::PlannedTensor& tensor = entry.first->planned;
    log.info(fmt::format(
        "{}: {} in place of {}, whose blocks of {} do not divide rows of {} ({})",
        model::traits(role).name, tensor.codec->name, wanted->name, wanted->block_size,
        tensor.shape.row_length(),
        entry.second == 1 ? std::string("1 tensor") : fmt::format("{} tensors", entry.second)));
  }
}

/// Says what a reader of the file may miss.
void report_losses(const model::Checkpoint& source, const model::ExportOptions& options,
                   bool type_given, Log& log) {
  if (source.correction_bytes().value != 0) {
    log.info("low-rank corrections are added to their matrices; the output has none of its own");
  }
  if (options.format == model::OutputFormat::kSafetensors) {
    const quant::Codec& codec = source.at(Role::kTokenEmbedding).codec();
    if (!type_given && !codec.is_float()) {
      log.info("quantised weights are written as BF16; --type F32 keeps their exact values");
    }
    return;
  }
  const auto losses = source.architecture().lost_in_llama_cpp;
  if (losses == nullptr) return;
  for (const std::string& loss : losses(source.spec())) {
    log.warn(fmt::format("llama.cpp will not run this file as the model is meant: {}", loss));
  }
}

void convert(Context& context, const Options& options) {
  const Stopwatch watch;
  const quant::Codec* wanted = wanted_codec(options);
  const model::Checkpoint source = model::Checkpoint::open(options.model);
  check_output_path(source, options.output, options.force);
  model::ExportOptions how;
  how.format = options.output.ends_with(".gguf") ? model::OutputFormat::kGguf
                                                 : model::OutputFormat::kSafetensors;
  how.codec = [&](Role role, LayerId layer) -> const quant::Codec& {
    return wanted != nullptr ? *wanted : kept_codec(source, how.format, role, layer);
  };
  how.expert_codec = [&](Role role, LayerId layer, ExpertId expert) -> const quant::Codec& {
    return wanted != nullptr ? *wanted : source.at(role, layer, expert).codec();
  };
  const auto plan = model::plan_export(source, how);
  how.nominal_codec = wanted != nullptr ? wanted : commonest_codec(plan);
  how.metadata = provenance(
      source, wanted == nullptr ? "convert" : fmt::format("convert --type {}", wanted->name));
  // The routers stay, and so do the ratios between their weights.
  if (const auto ratios = model::read_skip_ratios(source.file(), source.spec())) {
    for (auto& entry : model::skip_ratio_metadata(*ratios)) how.metadata.push_back(entry);
  }
  report_fallbacks(plan, wanted, context.log);
  report_losses(source, how, wanted != nullptr, context.log);
  os::ThreadPool pool(options.threads != 0 ? options.threads : os::usable_cpus());
  model::export_model(source, options.output, how, pool, context.log);
  const Bytes bytes = model::planned_bytes(plan);
  context.log.info(fmt::format(
      "{}: {} of tensors, {:.3f} bits per weight, {:.1f} s", options.output, format_bytes(bytes),
      8.0 * static_cast<double>(bytes.value) / static_cast<double>(source.num_parameters()),
      watch.seconds()));
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  add_output(app, options->output,
             "a name ending in .gguf gives GGUF, any other a safetensors folder");
  add_text(app,
           {"--type", "TYPE",
            "type of the matrices: " + quant::codec_names() +
                "; rows that its blocks do not divide get the nearest that fits; without it each "
                "keeps its own"},
           options->type);
  add_threads(app, options->threads);
  add_flag(app, "--force", options->force, "replace an existing GGUF file");
  return [options](Context& context) { convert(context, *options); };
}

}  // namespace

extern const Command kConvert{
    .name = "convert",
    .summary = "convert between safetensors and GGUF",
    .description =
        "Writes a model as GGUF or as a Hugging Face safetensors folder, with the matrices in one "
        "type. Norms, biases and routers stay in F32 in GGUF. The output appears under its name "
        "only when it is whole, and is the same byte for byte however many threads wrote it.\n\n"
        "  winnow convert models/grain -o grain-q4.gguf --type Q4_K",
    .declare = declare};

}  // namespace winnow::cli
