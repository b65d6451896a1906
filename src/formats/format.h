// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What one model file format is to `open_model`, and what its reader hands over. A format is one
// reader file and one line in registry.def.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model_file.h"

namespace winnow::formats {

/// One format; the objects are listed in registry.def.
struct Format {
  std::string_view name;
  /// How its files are told from others, for the message when no format fits.
  std::string_view sign;
  /// `head`: the first bytes (up to kHeadBytes) of a regular file, empty for a folder.
  bool (*recognises)(bool is_folder, std::span<const std::byte> head);
  std::unique_ptr<ModelFile> (*open)(const std::filesystem::path& path);

  static constexpr std::size_t kHeadBytes = 16;
};

/// All formats, in the order of registry.def.
std::span<const Format* const> all_formats();

/// Opens a file that belongs to a model beside the first one; replaced in tests and fuzzers.
using OpenFile =
    std::function<std::unique_ptr<os::RandomAccessFile>(const std::filesystem::path& path)>;

/// What a reader has gathered and checked.
struct ModelContents {
  std::string_view format;
  std::string name;  ///< path it was opened with
  Metadata metadata;
  std::vector<TensorInfo> tensors;
  std::vector<std::unique_ptr<os::RandomAccessFile>> files;
  std::filesystem::path sidecar_folder;  ///< empty when the format has no files beside the weights
};

/// Throws Error{kBadData} when two tensors have one name.
std::unique_ptr<ModelFile> make_model_file(ModelContents contents);

/// Throws Error{kBadData} naming both tensors and the offset when payloads of `tensors`, all of one
/// file, overlap. Returns their indices ordered by offset (equal offsets: as given).
std::vector<std::size_t> check_no_overlap(const std::string& file_name,
                                          std::span<const TensorInfo> tensors);

}  // namespace winnow::formats
