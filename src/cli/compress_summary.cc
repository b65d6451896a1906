// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/compress_summary.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace winnow::cli {
namespace {

/// The types that the experts of a layer have, where each has its own.
void print_experts(Output& out, const std::vector<compress::TensorGroup>& groups) {
  using Matrices = std::pair<std::uint32_t, model::Role>;
  // Of several forms of a matrix at most one is in the file.
  std::map<std::pair<Matrices, ExpertId>, std::string> forms_of;
  for (const compress::TensorGroup& group : groups) {
    if (!group.only) continue;
    std::string& form = forms_of[{{index(group.layer), group.role}, *group.only}];
    if (group.left_out) continue;
    form = group.options[group.chosen].codec->name;
    if (group.width != 0) form += fmt::format(" of {} channels", group.width);
  }
  std::map<Matrices, std::map<std::string, std::size_t>> counts;
  for (const auto& [matrix, form] : forms_of) {
    ++counts[matrix.first][form.empty() ? "none" : form];
  }
  for (const auto& [key, forms] : counts) {
    const auto& [layer, role] = key;
    std::string line;
    for (const auto& [form, count] : forms) line += fmt::format("  {} x {}", count, form);
    out.write(fmt::format("  {:<32}{}\n",
                          fmt::format("{} of layer {}", model::traits(role).name, layer), line));
  }
}

}  // namespace

void print_compress_summary(Output& out, const compress::CompressResult& result) {
  const double bits = 8.0 * static_cast<double>(result.tensor_bytes.value) /
                      static_cast<double>(result.num_parameters);
  out.write(fmt::format("file: {} bytes, {:.3f} bits per weight\n", result.file_bytes.value, bits));
  print_experts(out, result.groups);
  for (const compress::TensorGroup& group : result.groups) {
    if (group.only) continue;
    const compress::GroupOption& option = group.options[group.chosen];
    out.write(fmt::format("  {:<32} {:<7} {:>12} bytes", group.name(), option.codec->name,
                          option.bytes.value));
    if (option.rank > 0) out.write(fmt::format("  + rank {}", option.rank));
    if (result.measured && result.predicts_kl) {
      out.write(fmt::format("  predicted KL {:.2e}", option.predicted_kl));
    }
    out.write("\n");
  }
  const std::string predicted =
      result.predicts_kl ? fmt::format(" (predicted {:.5f})", result.predicted_kl) : "";
  if (result.measured_kl) {
    out.write(fmt::format("KL on {} held-out tokens: {:.5f}{}\n", result.probe_tokens,
                          *result.measured_kl, predicted));
  }
  if (!result.measured) return;
  const metrics::Scores& scores = result.measured->all;
  out.write(fmt::format("KL on {} held-out tokens: {:.5f} +- {:.5f}{}, same top token {:.2f} %\n",
                        scores.tokens, scores.kl_divergence, scores.kl_standard_error, predicted,
                        100 * scores.top1_agreement));
}

}  // namespace winnow::cli
