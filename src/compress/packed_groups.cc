// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/packed_groups.h"

#include <fmt/format.h>

#include "base/error.h"

namespace winnow::compress {

std::filesystem::path PackedGroups::path_of(const TensorGroup& group,
                                            const quant::Codec& codec) const {
  return folder_ /
         fmt::format("{}-{:05}.{}", model::traits(group.role).name, index(group.layer), codec.name);
}

bool PackedGroups::has(const TensorGroup& group, const quant::Codec& codec) const {
  return std::filesystem::exists(path_of(group, codec));
}

void PackedGroups::write(const TensorGroup& group, const quant::Codec& codec,
                         std::span<const std::byte> bytes) const {
  WINNOW_CHECK(bytes.size() == packed_bytes(group, codec).value);
  os::AtomicFile file(path_of(group, codec));
  file.append(bytes);
  file.commit();
}

PackedGroup PackedGroups::read(const TensorGroup& group, const quant::Codec& codec) const {
  PackedGroup packed;
  packed.bytes.resize(packed_bytes(group, codec).value);
  read_at(group, codec, 0, packed.bytes);
  const std::size_t part_bytes = packed.bytes.size() / group.parts;
  for (std::size_t part = 0; part < group.parts; ++part) {
    packed.parts.push_back(
        {&codec, packed.bytes.data() + part * part_bytes, group.rows, group.cols});
  }
  return packed;
}

void PackedGroups::read_at(const TensorGroup& group, const quant::Codec& codec,
                           std::uint64_t offset, std::span<std::byte> out) const {
  const auto path = path_of(group, codec);
  if (path != open_path_) {
    open_file_ = os::open_file(path);
    open_path_ = path;
  }
  open_file_->read_at(offset, out);
}

}  // namespace winnow::compress
