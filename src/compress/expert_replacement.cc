// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_replacement.h"

#include <array>
#include <cmath>

namespace winnow::compress {

#define REPLACEMENT(replacement) extern const ExpertReplacement replacement;
#include "compress/replacements/registry.def"
#undef REPLACEMENT

std::span<const ExpertReplacement* const> expert_replacements() {
  static constexpr std::array kAll = {
#define REPLACEMENT(replacement) &replacement,
#include "compress/replacements/registry.def"
#undef REPLACEMENT
  };
  return kAll;
}

const ExpertReplacement* find_expert_replacement(std::string_view name) {
  for (const ExpertReplacement* replacement : expert_replacements()) {
    if (replacement->name == name) return replacement;
  }
  return nullptr;
}

std::string expert_replacement_names() {
  std::string names;
  for (const ExpertReplacement* replacement : expert_replacements()) {
    names.append(names.empty() ? "" : ", ").append(replacement->name);
  }
  return names;
}

std::vector<float> best_constant(const ExpertSums& sums) {
  std::vector<float> mean(sums.outputs.size());
  if (!(sums.squared_weights > 0)) return mean;
  for (std::size_t j = 0; j < mean.size(); ++j) {
    mean[j] = static_cast<float>(sums.outputs[j] / sums.squared_weights);
  }
  return mean;
}

double change_per_token(std::span<const double> squared_changes, const LayerSums& layer,
                        ExpertId expert, double pseudo_tokens) {
  double total = 0;
  std::uint64_t tokens = 0;
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    if (layer.experts[e].tokens == 0) continue;
    total += squared_changes[e];
    tokens += layer.experts[e].tokens;
  }
  const double mean = tokens == 0 ? 0 : total / static_cast<double>(tokens);
  const bool is_used = layer.experts[index(expert)].tokens != 0;
  const double change = is_used ? squared_changes[index(expert)] : 0;
  const double text = static_cast<double>(std::max<std::uint64_t>(layer.tokens, 1));
  return (change + pseudo_tokens * mean) / text;
}

double change_per_token(const ExpertReplacement& replacement, const LayerSums& layer,
                        ExpertId expert, double pseudo_tokens) {
  std::vector<double> changes;
  for (const ExpertSums& sums : layer.experts) changes.push_back(replacement.squared_change(sums));
  return change_per_token(changes, layer, expert, pseudo_tokens);
}

}  // namespace winnow::compress
