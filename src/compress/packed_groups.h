// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Groups that have been packed, one file each in the folder of an unfinished output: what a killed
// run has finished, and what the output is put together from.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/json.h"
#include "compress/tensor_group.h"
#include "model/extended_layout.h"
#include "os/file.h"

namespace winnow::compress {

class PackedGroups {
 public:
  explicit PackedGroups(std::filesystem::path folder) : folder_(std::move(folder)) {}

  bool has(const TensorGroup& group, const quant::Codec& codec) const;
  /// Appears whole or not at all. bytes: of all matrices, expert after expert.
  void write(const TensorGroup& group, const quant::Codec& codec,
             std::span<const std::byte> bytes) const;
  /// The factors of all matrices' corrections, expert after expert, left before right. To be
  /// written before the group, whose presence says that all is there.
  void write_factors(const TensorGroup& group, const quant::Codec& codec,
                     std::span<const std::byte> bytes) const;
  /// The whole group in memory, with corrections of that rank (0: none). Throws Error{kBadData} for
  /// a file of another size.
  PackedGroup read(const TensorGroup& group, const quant::Codec& codec, std::size_t rank) const;
  /// One factor of one matrix.
  void read_factor(const TensorGroup& group, const quant::Codec& codec, ExpertId expert,
                   model::LowRankSide side, std::size_t rank, std::span<std::byte> out) const;
  /// Bytes from `offset` on, for copying without holding all.
  void read_at(const TensorGroup& group, const quant::Codec& codec, std::uint64_t offset,
               std::span<std::byte> out) const;

 private:
  std::filesystem::path path_of(const TensorGroup& group, const quant::Codec& codec) const;
  std::filesystem::path factors_path(const TensorGroup& group, const quant::Codec& codec) const;
  void read_file(const std::filesystem::path& path, std::uint64_t offset,
                 std::span<std::byte> out) const;

  std::filesystem::path folder_;
  // The file that was read last: copies come in order.
  mutable std::filesystem::path open_path_;
  mutable std::unique_ptr<os::RandomAccessFile> open_file_;
};

}  // namespace winnow::compress
