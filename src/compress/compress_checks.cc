// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/compress_checks.h"

#include <fmt/format.h>

#include <string>

#include "base/error.h"

namespace winnow::compress {
namespace {

void check_corrections(const CompressOptions& options, bool uses_hessians) {
  if (options.corrections.rank == 0 || uses_hessians) return;
  fail(ErrorCode::kUsage,
       "low-rank corrections are judged on text and its Hessians: give --data, and another "
       "--hessians than 'diagonal'");
}

void check_tolerance(const CompressOptions& options, bool has_text) {
  if (options.tolerance && (!has_text || options.allocation.kind != Allocation::kSlopes)) {
    fail(ErrorCode::kUsage,
         "--tolerance is measured on text, for types by slopes: give --data, or --statistics with "
         "held-out text, and leave out --allocation");
  }
}

void check_experts(const model::Checkpoint& source, const CompressOptions& options,
                   bool uses_hessians) {
  if (!options.experts.any()) return;
  const std::string& by = options.experts.asked_by;
  if (source.spec().num_moe_layers() == 0) {
    fail(ErrorCode::kUsage, "{}: {} has no experts", by, source.file().name());
  }
  if (!uses_hessians) {
    fail(
        ErrorCode::kUsage,
        "{} tells experts apart on text and its Hessians: give --data, and another --hessians than "
        "'diagonal'",
        by);
  }
  if (options.experts.narrow && options.hessians == HessianScope::kLayer) {
    fail(
        ErrorCode::kUsage,
        "{}: 'narrow' rests on each expert's own inner activations; it goes with --hessians expert "
        "alone",
        by);
  }
  if (options.sequential && (options.experts.narrow || !options.experts.replacements.empty())) {
    fail(ErrorCode::kUsage,
         "{}: --sequential measures behind layers whose experts are all there: leave it out, or "
         "everything but 'types'",
         by);
  }
  const Allocation kind = options.allocation.kind;
  if ((kind != Allocation::kSlopes && kind != Allocation::kSearch) ||
      options.corrections.rank != 0 || options.transforms.any()) {
    fail(ErrorCode::kUsage,
         "{} goes with --allocation slopes or search alone, and with neither --transforms nor "
         "low-rank corrections",
         by);
  }
}

/// Whoever runs packed matrices runs them with the vectors of the source.
void check_transforms(const model::Checkpoint& source, const CompressOptions& options) {
  if (!changes_vectors(options.transforms, source.spec())) return;
  std::string runs;
  if (options.sequential) runs = "--sequential";
  if (options.tolerance) runs = "--tolerance";
  if (traits(options.allocation.kind).measures_mixes) {
    runs = fmt::format("--allocation {}", traits(options.allocation.kind).name);
  }
  if (runs.empty()) return;
  fail(ErrorCode::kUsage,
       "{} runs matrices with the original norms and biases: it goes with no change of them "
       "(--transforms attention-input, ffn-input, and methods that make them; value-scales and "
       "value-rotation where values have biases)",
       runs);
}

}  // namespace

void check_compress_options(const model::Checkpoint& source, const CompressOptions& options,
                            bool has_text, bool uses_hessians) {
  check_corrections(options, uses_hessians);
  check_tolerance(options, has_text);
  check_transforms(source, options);
  check_experts(source, options, uses_hessians);
}

void check_skip_ratios(const model::Checkpoint& source, const CompressOptions& options,
                       bool has_text) {
  if (!options.skip_ratios) return;
  if (!has_text) {
    fail(ErrorCode::kUsage, "--skip-ratios is measured on calibration text: give --data");
  }
  if (source.spec().num_moe_layers() == 0) {
    fail(ErrorCode::kUsage, "--skip-ratios: {} has no experts", source.file().name());
  }
  if (source.spec().moe.top_k < 2) {
    fail(ErrorCode::kUsage,
         "--skip-ratios: {} sends each token to one expert, and that cannot be skipped",
         source.file().name());
  }
}

void name_codecs_left_out(EncoderKind encoders, Log& log) {
  const std::string names = codecs_without_encoder(encoders);
  if (names.empty()) return;
  log.info(fmt::format("there is no encoder with llama.cpp's bytes for {}: left out", names));
}

void warn_of_quantised_source(const model::Checkpoint& source, std::span<const TensorGroup> groups,
                              Log& log) {
  for (const TensorGroup& group : groups) {
    const quant::Codec& stored = source.at(group.role, group.layer).codec();
    if (stored.is_float()) continue;
    log.warn(fmt::format(
        "{}: is quantised already ({}: {}); what that lost stays lost, and the divergence is "
        "measured from this file. Compress the original where you have it",
        source.file().name(), group.name(), stored.name));
    return;
  }
}

}  // namespace winnow::compress
