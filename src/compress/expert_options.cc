// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_options.h"

#include <algorithm>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "compress/narrowed_groups.h"
#include "formats/gguf.h"

namespace winnow::compress {
namespace {

using engine::ExpertSubstitute;

bool offers(const ExpertOptions& options, ExpertSubstitute::Kind kind) {
  return std::any_of(options.replacements.begin(), options.replacements.end(),
                     [kind](const ExpertReplacement* how) { return how->substitute == kind; });
}

}  // namespace

ExpertOptions expert_options_of_names(const std::string& names) {
  ExpertOptions options{true, {}};
  if (names == "all") {
    const auto all = expert_replacements();
    options.replacements.assign(all.begin(), all.end());
    options.narrow = true;
    return options;
  }
  std::set<const ExpertReplacement*> chosen;
  for (std::size_t begin = 0; begin <= names.size();) {
    const std::size_t end = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    begin = end + 1;
    if (name == "types") continue;
    if (name == narrow_replacement().name) {
      options.narrow = true;
      continue;
    }
    const ExpertReplacement* replacement = find_expert_replacement(name);
    if (replacement == nullptr) {
      fail(ErrorCode::kUsage, "--expert-options: '{}' is not among: all, types, {}, {}", name,
           narrow_replacement().name, expert_replacement_names());
    }
    chosen.insert(replacement);
  }
  // In the order of the table, however they are named: ties go by it.
  for (const ExpertReplacement* replacement : expert_replacements()) {
    if (chosen.count(replacement) != 0) options.replacements.push_back(replacement);
  }
  return options;
}

bool stays_at_least(const ExpertOptions& options, const model::ModelSpec& spec,
                    const TensorGroup& group) {
  using Kind = ExpertSubstitute::Kind;
  for (const Kind kind : {Kind::kZero, Kind::kIdentity, Kind::kConstant}) {
    if (offers(options, kind)) return false;
  }
  if (!offers(options, Kind::kDropped)) return true;
  return index(*group.only) < least_router_rows(spec.moe, spec.num_experts(group.layer));
}

std::uint64_t least_replacement_bytes(const ExpertOptions& options, const model::ModelSpec& spec) {
  using Kind = ExpertSubstitute::Kind;
  const bool takes_vectors = offers(options, Kind::kConstant) && !offers(options, Kind::kZero) &&
                             !offers(options, Kind::kIdentity);
  if (!takes_vectors) return 0;
  const std::uint64_t bytes = std::uint64_t{spec.hidden_size} * sizeof(float);
  std::uint64_t total = 0;
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    total += spec.num_experts(LayerId{layer}) *
             checked_align_up(bytes, formats::kGgufDefaultAlignment).value();
  }
  return total;
}

std::uint64_t droppable_router_bytes(const ExpertOptions& options, const model::ModelSpec& spec) {
  if (!offers(options, ExpertSubstitute::Kind::kDropped)) return 0;
  std::uint64_t rows = 0;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    if (!spec.is_moe_layer(LayerId{l})) continue;
    const std::size_t experts = spec.num_experts(LayerId{l});
    rows += experts - least_router_rows(spec.moe, experts);
  }
  return rows * spec.hidden_size * sizeof(float);
}

std::size_t least_router_rows(const model::MoeSpec& moe, std::size_t experts) {
  return std::min<std::size_t>(experts, moe.top_k + (moe.top_k + 1) / 2);
}

}  // namespace winnow::compress
