// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/packed_groups.h"

#include <fmt/format.h>

#include "base/error.h"
#include "compress/correction.h"

namespace winnow::compress {

std::filesystem::path PackedGroups::path_of(const TensorGroup& group,
                                            const quant::Codec& codec) const {
  return folder_ / fmt::format("{}.{}", group.file_stem(), codec.name);
}

std::filesystem::path PackedGroups::factors_path(const TensorGroup& group,
                                                 const quant::Codec& codec) const {
  return path_of(group, codec).concat(".low_rank");
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

void PackedGroups::write_factors(const TensorGroup& group, const quant::Codec& codec,
                                 std::span<const std::byte> bytes) const {
  os::AtomicFile file(factors_path(group, codec));
  file.append(bytes);
  file.commit();
}

PackedGroup PackedGroups::read(const TensorGroup& group, const quant::Codec& codec,
                               std::size_t rank) const {
  const std::size_t matrices = packed_bytes(group, codec).value;
  const std::size_t of_part = factors_bytes(group, rank).value;
  const std::size_t of_left = factor_bytes(group, model::LowRankSide::kLeft, rank).value;
  PackedGroup packed;
  packed.only = group.only;
  packed.bytes.resize(matrices + of_part * group.parts);
  const std::span<std::byte> bytes(packed.bytes);
  read_at(group, codec, 0, bytes.first(matrices));
  if (rank > 0) read_file(factors_path(group, codec), 0, bytes.subspan(matrices));
  const quant::Codec* half = quant::find_codec("F16");
  for (std::size_t part = 0; part < group.parts; ++part) {
    packed.parts.emplace_back(&codec, bytes.data() + part * (matrices / group.parts), group.rows,
                              group.cols);
    if (rank == 0) continue;
    const std::byte* const factors = bytes.data() + matrices + part * of_part;
    packed.parts.back().left = {half, factors, group.rows, rank};
    packed.parts.back().right = {half, factors + of_left, rank, group.cols};
  }
  return packed;
}

void PackedGroups::read_at(const TensorGroup& group, const quant::Codec& codec,
                           std::uint64_t offset, std::span<std::byte> out) const {
  read_file(path_of(group, codec), offset, out);
}

void PackedGroups::read_factor(const TensorGroup& group, const quant::Codec& codec, ExpertId expert,
                               model::LowRankSide side, std::size_t rank,
                               std::span<std::byte> out) const {
  WINNOW_CHECK(out.size() == factor_bytes(group, side, rank).value);
  std::uint64_t offset = group.part_of(expert) * factors_bytes(group, rank).value;
  if (side == model::LowRankSide::kRight) {
    offset += factor_bytes(group, model::LowRankSide::kLeft, rank).value;
  }
  read_file(factors_path(group, codec), offset, out);
}

void PackedGroups::read_file(const std::filesystem::path& path, std::uint64_t offset,
                             std::span<std::byte> out) const {
  if (path != open_path_) {
    open_file_ = os::open_file(path);
    open_path_ = path;
  }
  open_file_->read_at(offset, out);
}

}  // namespace winnow::compress
