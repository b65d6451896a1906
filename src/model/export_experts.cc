// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/export_experts.h"

#include <algorithm>
#include <utility>

#include "base/crc32c.h"
#include "base/error.h"

namespace winnow::model {

namespace {

void require_owners(const ExportExperts& experts) {
  for (const std::vector<ExportExpert>& layer : experts) {
    for (const ExportExpert& expert : layer) {
      if (expert.shape.kind != ExpertKind::kShared) continue;
      const std::size_t owner = expert.shape.shared_with;
      WINNOW_CHECK(owner < layer.size() && layer[owner].shape.kind == ExpertKind::kFeedForward);
    }
  }
}

}  // namespace

ExportExperts exported_experts(const Checkpoint& source, const ExportOptions& options) {
  const ModelSpec& spec = source.spec();
  require_owners(options.experts);
  if (!options.experts.empty() || !spec.has_varied_experts()) return options.experts;
  ExportExperts experts(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    for (std::uint32_t e = 0; e < spec.num_experts(LayerId{layer}); ++e) {
      experts[layer].push_back({ExpertId{e}, spec.expert(LayerId{layer}, ExpertId{e})});
    }
  }
  return experts;
}

ModelSpec spec_with(ModelSpec spec, const ExportExperts& experts) {
  if (experts.empty()) return spec;
  std::vector<std::uint32_t> sources;
  std::size_t most = 0;
  ModelSpec result = spec;
  result.varied_experts.assign(spec.num_hidden_layers, {});
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    const std::size_t before = spec.experts_before(LayerId{layer});
    for (const ExportExpert& expert : experts[layer]) {
      const std::size_t at = index(expert.source);
      result.varied_experts[layer].push_back(expert.shape);
      sources.push_back(spec.source_experts.empty() ? index(expert.source)
                                                    : spec.source_experts[before + at]);
    }
    most = std::max(most, experts[layer].size());
  }
  result.source_experts = std::move(sources);
  result.expert_checksums.clear();
  result.moe.num_experts = static_cast<std::uint32_t>(most);
  return result;
}

void ExpertChecksums::add(const ExportTensor& tensor, std::span<const std::byte> bytes) {
  if (!tensor.apart) return;
  std::uint32_t& sum = values_[spec_.experts_before(tensor.layer) + index(*tensor.apart)];
  sum = crc32c(bytes, sum);
}

}  // namespace winnow::model
