// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/quantizer_steps.h"

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

#include "base/error.h"

namespace winnow::compress {
namespace {

constexpr std::array<QuantizerStep, 9> kSteps = {{
    {"scales", "scales searched with what an error costs once later columns have made up for it"},
    {"feedback", "each rounding error is made up for by the columns still to come"},
    {"around", "with feedback: neighbours of the searched block scales are tried"},
    {"polish", "coordinate descent over the codes"},
    {"blocks", "a sub-block's scale or minimum moves with all of its codes"},
    {"integers", "coordinate descent over the scales of sub-blocks"},
    {"refit", "all block scales of a row by least squares"},
    {"chains", "two to four codes move at once where no single one can"},
    {"guard", "the codec's own encoder where held-out text prefers it"},
}};

std::set<std::string> parse(const std::string& list) {
  std::set<std::string> names;
  if (list == "none") return names;
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    const bool known = std::any_of(kSteps.begin(), kSteps.end(),
                                   [&](const QuantizerStep& step) { return step.name == word; });
    if (!known) {
      std::string all;
      for (const QuantizerStep& step : kSteps) all.append(" ").append(step.name);
      fail(ErrorCode::kUsage, "--steps: there is no step '{}'; there are{}, and 'none'", word, all);
    }
    names.insert(word);
  }
  return names;
}

}  // namespace

std::span<const QuantizerStep> quantizer_steps() { return kSteps; }

std::string quantizer_step_names() {
  std::string names;
  for (const QuantizerStep& step : kSteps) {
    if (!names.empty()) names += ',';
    names.append(step.name);
  }
  return names;
}

HessianQuantizerOptions options_of_steps(const std::string& list) {
  const std::set<std::string> names = parse(list);
  const auto has = [&](const char* name) { return names.count(name) != 0; };
  HessianQuantizerOptions options;
  options.scale_weights = has("scales") ? ScaleWeights::kConditional : ScaleWeights::kDiagonal;
  options.feedback = has("feedback");
  options.neighbour_scales = has("around");
  const bool descends = has("polish") || has("blocks") || has("integers") || has("refit");
  if (descends || has("chains")) {
    DescentOptions descent;
    if (!has("polish")) descent.code_sweeps = 0;
    if (!has("blocks")) descent.block_sweeps = 0;
    if (!has("chains")) descent.chain_sweeps = 0;
    descent.integers = has("integers");
    descent.block_scales = has("refit");
    options.descent = descent;
  } else {
    options.descent.reset();
  }
  options.guard = has("guard");
  return options;
}

}  // namespace winnow::compress
