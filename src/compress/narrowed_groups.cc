// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/narrowed_groups.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/error.h"
#include "compress/narrowing.h"

namespace winnow::compress {
namespace {

using model::Role;

bool is_down(const TensorGroup& group) { return group.role == Role::kExpertDownProj; }

/// `columns` zeros in this codec; nothing where its blocks do not give zeros back, or do not fit.
std::optional<std::vector<std::byte>> zeros(const quant::Codec& codec, std::size_t columns) {
  if (columns == 0) return std::vector<std::byte>();
  if (columns % codec.block_size != 0) return std::nullopt;
  const std::size_t blocks = columns / codec.block_size;
  std::vector<float> values(columns);
  std::vector<std::byte> bytes(blocks * codec.block_bytes);
  codec.encode(values.data(), blocks, nullptr, bytes.data());
  codec.decode(bytes.data(), blocks, values.data());
  if (std::any_of(values.begin(), values.end(), [](float value) { return value != 0; })) {
    return std::nullopt;
  }
  return bytes;
}

/// The same in F32.
PackedGroup decoded(const PackedGroup& packed) {
  const quant::CorrectedMatrix& from = packed.parts.front();
  PackedGroup result;
  result.only = packed.only;
  result.bytes.resize(from.rows * from.cols * sizeof(float));
  const quant::Codec& wide = *quant::find_codec("F32");
  std::vector<float> row(from.cols);
  for (std::size_t r = 0; r < from.rows; ++r) {
    from.codec->decode(from.row(r), from.cols / from.codec->block_size, row.data());
    wide.encode(row.data(), row.size(), nullptr,
                result.bytes.data() + r * row.size() * sizeof(float));
  }
  result.parts.emplace_back(&wide, result.bytes.data(), from.rows, from.cols);
  return result;
}

/// Rows and columns of zeros behind those of the one matrix.
PackedGroup padded(PackedGroup packed, std::size_t rows, std::size_t cols) {
  auto of_row = zeros(*packed.parts.front().codec, cols - packed.parts.front().cols);
  if (!of_row) {
    packed = decoded(packed);
    of_row = zeros(*packed.parts.front().codec, cols - packed.parts.front().cols);
  }
  const quant::CorrectedMatrix& from = packed.parts.front();
  const auto empty_row = zeros(*from.codec, cols);
  if (!empty_row) return padded(decoded(packed), rows, cols);
  PackedGroup result;
  result.only = packed.only;
  result.bytes.reserve(rows * empty_row->size());
  for (std::size_t r = 0; r < from.rows; ++r) {
    result.bytes.insert(result.bytes.end(), from.row(r), from.row(r) + from.row_bytes());
    result.bytes.insert(result.bytes.end(), of_row->begin(), of_row->end());
  }
  for (std::size_t r = from.rows; r < rows; ++r) {
    result.bytes.insert(result.bytes.end(), empty_row->begin(), empty_row->end());
  }
  result.parts.emplace_back(from.codec, result.bytes.data(), rows, cols);
  return result;
}

}  // namespace

const ExpertReplacement& narrow_replacement() {
  static constexpr ExpertReplacement kNarrow{
      "narrow", "Optimal Brain Surgeon, 1992; SparseGPT, arXiv:2301.00774",
      engine::ExpertSubstitute::Kind::kOwn, model::ExpertKind::kFeedForward, nullptr};
  return kNarrow;
}

bool add_narrowed_groups(const model::Checkpoint& source, std::vector<TensorGroup>& groups) {
  const std::size_t count = groups.size();
  for (std::size_t g = 0; g < count; ++g) {
    if (!model::traits(groups[g].role).per_expert) continue;
    for (const std::uint32_t width : narrower_widths(source.spec().moe.moe_intermediate_size)) {
      TensorGroup narrowed = groups[g];
      narrowed.width = width;
      narrowed.left_out = true;
      (is_down(narrowed) ? narrowed.cols : narrowed.rows) = width;
      narrowed.weights = std::uint64_t{narrowed.rows} * narrowed.cols * narrowed.parts;
      groups.push_back(std::move(narrowed));
    }
  }
  return groups.size() > count;
}

void complete_narrowed_groups(std::span<TensorGroup> groups) {
  std::map<std::tuple<Role, std::uint32_t, std::uint32_t>, const TensorGroup*> places;
  for (const TensorGroup& group : groups) {
    places[{group.role, index(group.layer), group.width}] = &group;
  }
  for (TensorGroup& group : groups) {
    if (group.width == 0) continue;
    const std::uint32_t layer = index(group.layer);
    const TensorGroup& whole = *places.at({group.role, layer, 0});
    group.noise = whole.noise;
    if (is_down(group)) continue;
    group.channels = places.at({Role::kExpertDownProj, layer, group.width})->channels;
    WINNOW_CHECK(group.options.size() == whole.options.size());
    for (std::size_t o = 0; o < group.options.size(); ++o) {
      WINNOW_CHECK(group.options[o].codec == whole.options[o].codec);
      WINNOW_CHECK(whole.options[o].part_errors.size() == group.parts);
      GroupOption& option = group.options[o];
      option.part_errors = whole.options[o].part_errors;
      option.error = 0;
      for (std::size_t part = 0; part < group.parts; ++part) {
        option.part_errors[part] *= group.channels[part]->carried;
        option.error += option.part_errors[part];
      }
    }
  }
}

PackOrder unrounded(const model::Checkpoint& source, const TensorGroup& group) {
  const quant::Codec& stored = source.at(group.role, group.layer, group.expert(0)).codec();
  return {&group, is_down(group) && !stored.is_float() ? quant::find_codec("F32") : &stored};
}

PackedGroup pack_at_full_width(GroupPacker& packer, const PackOrder& order,
                               const model::Checkpoint& source) {
  const TensorGroup& group = *order.group;
  if (group.width == 0) return packer.pack(order);
  WINNOW_CHECK(group.only.has_value());
  const model::TensorRef whole = source.at(group.role, group.layer, *group.only);
  return padded(packer.pack(order), whole.rows, whole.cols);
}

}  // namespace winnow::compress
