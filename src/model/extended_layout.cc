// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/extended_layout.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>

#include "base/error.h"

namespace winnow::model {
namespace {

constexpr std::string_view kLayout = "winnow.layout";
constexpr std::string_view kExtended = "extended";
constexpr std::string_view kFormatVersion = "winnow.format_version";
constexpr std::string_view kMinReaderVersion = "winnow.min_reader_version";

constexpr std::string_view kExpertCounts = "winnow.experts.counts";
constexpr std::string_view kExpertKinds = "winnow.experts.kinds";
constexpr std::string_view kExpertWidths = "winnow.experts.widths";
constexpr std::string_view kExpertShared = "winnow.experts.shared";
constexpr std::string_view kExpertChecksums = "winnow.experts.crc32c";

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kLeft = ".low_rank_left.weight";
constexpr std::string_view kRight = ".low_rank_right.weight";

void refuse_corrections(const formats::ModelFile& file) {
  for (const formats::TensorInfo& tensor : file.tensors()) {
    if (!is_low_rank_name(tensor.name)) continue;
    fail_data("{}: tensor '{}' is a correction, and key '{}' does not say '{}'", file.name(),
              tensor.name, kLayout, kExtended);
  }
}

/// An array of `count` numbers from 0 to `most`.
std::vector<std::uint32_t> numbers_of(const formats::Metadata& metadata, std::string_view key,
                                      std::size_t count, std::uint32_t most) {
  const std::vector<std::int64_t> stored = metadata.integers(key);
  if (stored.size() != count) {
    fail_data("{}: key '{}' has {} elements; expected {}", metadata.source(), key, stored.size(),
              count);
  }
  std::vector<std::uint32_t> numbers;
  for (const std::int64_t number : stored) {
    if (number < 0 || number > most) {
      fail_data("{}: key '{}' holds {}; expected 0 to {}", metadata.source(), key, number, most);
    }
    numbers.push_back(static_cast<std::uint32_t>(number));
  }
  return numbers;
}

/// Experts in each layer.
std::vector<std::uint32_t> read_counts(const formats::Metadata& metadata, const ModelSpec& spec) {
  auto counts = numbers_of(metadata, kExpertCounts, spec.num_hidden_layers, spec.moe.num_experts);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    const bool moe = spec.is_moe_layer(LayerId{layer});
    if (moe ? counts[layer] < spec.moe.top_k : counts[layer] != 0) {
      fail_data("{}: key '{}' gives layer {} {} experts; a token goes to {} there",
                metadata.source(), kExpertCounts, layer, counts[layer], moe ? spec.moe.top_k : 0);
    }
  }
  return counts;
}

/// The last kind that files of this file's version have.
ExpertKind last_kind(const formats::Metadata& metadata) {
  return metadata.integer(kFormatVersion) < kSharedExpertsVersion ? ExpertKind::kConstant
                                                                  : ExpertKind::kShared;
}

/// Refuses shared experts whose owners have no matrices, and owners of others.
void require_owners(const formats::Metadata& metadata, std::uint32_t layer,
                    std::span<const ExpertShape> experts) {
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::uint32_t owner = experts[e].shared_with;
    const bool shared = experts[e].kind == ExpertKind::kShared;
    const bool owned = owner < experts.size() && experts[owner].kind == ExpertKind::kFeedForward;
    if (shared ? owned : owner == 0) continue;
    fail_data("{}: key '{}' gives expert {} of layer {} the matrices of expert {}, {}",
              metadata.source(), kExpertShared, e, layer, owner,
              shared ? "which has none" : "and it is not a shared one");
  }
}

}  // namespace

void require_readable_layout(const formats::ModelFile& file) {
  if (file.format() != "GGUF") return;
  const formats::Metadata& metadata = file.metadata();
  if (!metadata.contains(kLayout)) return refuse_corrections(file);
  const std::string& layout = metadata.string(kLayout);
  if (layout != kExtended) {
    fail_data("{}: key '{}' is '{}'; this version reads '{}' and files without the key",
              file.name(), kLayout, layout, kExtended);
  }
  const std::uint64_t version = metadata.integer(kFormatVersion);
  const std::uint64_t least = metadata.integer(kMinReaderVersion);
  if (version == 0 || least == 0 || least > version) {
    fail_data("{}: keys '{}' and '{}' are {} and {}; they begin at 1, the second at most the first",
              file.name(), kFormatVersion, kMinReaderVersion, version, least);
  }
  if (least <= kExtendedVersion) return;
  fail_data(
      "{}: needs a reader of version {} of the extended layout, and this program reads up to {}; "
      "take a newer one",
      file.name(), least, kExtendedVersion);
}

bool is_extended(const formats::ModelFile& file) { return file.metadata().contains(kLayout); }

void write_extended_layout(formats::Metadata& metadata, std::uint32_t version) {
  metadata.set(std::string(kLayout), std::string(kExtended));
  metadata.set(std::string(kFormatVersion), version);
  metadata.set(std::string(kMinReaderVersion), version);
}

std::vector<std::vector<ExpertShape>> read_varied_experts(const formats::ModelFile& file,
                                                          const ModelSpec& spec) {
  const formats::Metadata& metadata = file.metadata();
  if (file.format() != "GGUF" || !metadata.contains(kExpertCounts)) return {};
  if (!is_extended(file)) {
    fail_data("{}: key '{}' is there, and key '{}' does not say '{}'", file.name(), kExpertCounts,
              kLayout, kExtended);
  }
  const std::vector<std::uint32_t> counts = read_counts(metadata, spec);
  const std::size_t total = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
  const auto last = static_cast<std::uint32_t>(last_kind(metadata));
  const auto kinds = numbers_of(metadata, kExpertKinds, total, last);
  const auto widths = numbers_of(metadata, kExpertWidths, total, spec.moe.moe_intermediate_size);
  const bool sharing = std::find(kinds.begin(), kinds.end(),
                                 static_cast<std::uint32_t>(ExpertKind::kShared)) != kinds.end();
  std::vector<std::uint32_t> owners(total);
  if (sharing) owners = numbers_of(metadata, kExpertShared, total, spec.moe.num_experts - 1);
  std::vector<std::vector<ExpertShape>> experts(spec.num_hidden_layers);
  std::size_t next = 0;
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    for (std::uint32_t e = 0; e < counts[layer]; ++e, ++next) {
      const auto kind = static_cast<ExpertKind>(kinds[next]);
      if ((kind == ExpertKind::kFeedForward) != (widths[next] != 0)) {
        fail_data(
            "{}: keys '{}' and '{}' contradict each other: expert {} of layer {} is {} and {}",
            file.name(), kExpertKinds, kExpertWidths, e, layer, kinds[next], widths[next]);
      }
      experts[layer].push_back({kind, widths[next], owners[next]});
    }
    require_owners(metadata, layer, experts[layer]);
  }
  return experts;
}

void write_varied_experts(const ModelSpec& spec, formats::Metadata& metadata) {
  std::vector<std::uint32_t> counts;
  std::vector<std::uint32_t> kinds;
  std::vector<std::uint32_t> widths;
  std::vector<std::uint32_t> owners;
  for (const std::vector<ExpertShape>& layer : spec.varied_experts) {
    counts.push_back(static_cast<std::uint32_t>(layer.size()));
    for (const ExpertShape& expert : layer) {
      kinds.push_back(static_cast<std::uint32_t>(expert.kind));
      widths.push_back(expert.width);
      owners.push_back(expert.shared_with);
    }
  }
  const bool sharing = spec.has_shared_experts();
  write_extended_layout(metadata, sharing ? kSharedExpertsVersion : kVariedExpertsVersion);
  metadata.set(std::string(kExpertCounts), formats::Array(counts));
  metadata.set(std::string(kExpertKinds), formats::Array(kinds));
  metadata.set(std::string(kExpertWidths), formats::Array(widths));
  if (sharing) metadata.set(std::string(kExpertShared), formats::Array(owners));
}

std::vector<std::uint32_t> read_expert_checksums(const formats::ModelFile& file,
                                                 const ModelSpec& spec) {
  if (!spec.has_varied_experts() || !file.metadata().contains(kExpertChecksums)) return {};
  return numbers_of(file.metadata(), kExpertChecksums,
                    spec.experts_before(LayerId{spec.num_hidden_layers}),
                    std::numeric_limits<std::uint32_t>::max());
}

void write_expert_checksums(std::span<const std::uint32_t> checksums, formats::Metadata& metadata) {
  metadata.set(std::string(kExpertChecksums),
               formats::Array(std::vector<std::uint32_t>(checksums.begin(), checksums.end())));
}

bool may_be_corrected(Role role) { return traits(role).is_matrix && role != Role::kTokenEmbedding; }

std::string low_rank_name(Role role, LayerId layer, LowRankSide side) {
  WINNOW_CHECK(may_be_corrected(role));
  std::string name = expand_pattern(traits(role).gguf_pattern, layer);
  name.resize(name.size() - kWeight.size());
  return name.append(side == LowRankSide::kLeft ? kLeft : kRight);
}

bool is_low_rank_name(std::string_view name) {
  return name.ends_with(kLeft) || name.ends_with(kRight);
}

}  // namespace winnow::model
