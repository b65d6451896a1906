// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/extended_layout.h"

#include "base/error.h"

namespace winnow::model {
namespace {

constexpr std::string_view kLayout = "winnow.layout";
constexpr std::string_view kExtended = "extended";
constexpr std::string_view kFormatVersion = "winnow.format_version";
constexpr std::string_view kMinReaderVersion = "winnow.min_reader_version";

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

void write_extended_layout(formats::Metadata& metadata) {
  metadata.set(std::string(kLayout), std::string(kExtended));
  metadata.set(std::string(kFormatVersion), kExtendedVersion);
  metadata.set(std::string(kMinReaderVersion), kExtendedVersion);
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
