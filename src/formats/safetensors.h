// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// safetensors as a reader and a writer need it both. docs/formats/safetensors.md describes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/format.h"
#include "formats/model_file.h"
#include "os/file.h"
#include "quant/codec.h"

namespace winnow::formats {

inline constexpr std::string_view kSafetensorsFile = "model.safetensors";
inline constexpr std::string_view kSafetensorsIndex = "model.safetensors.index.json";

/// One element type of the format.
struct SafetensorsType {
  std::string_view name;
  std::uint32_t bits;  ///< per element
  /// Codec with the same layout; null when this program cannot decode the type.
  const quant::Codec* codec() const;
};
/// Nothing when the format has no such type.
std::optional<SafetensorsType> find_safetensors_type(std::string_view name);

/// Parses and checks the header of one file: types, shapes and sizes agree, payloads fill the rest
/// of the file without holes or overlaps. Tensors come ordered by offset, with file 0. Throws
/// Error{kBadData} with file, tensor and offset.
std::vector<TensorInfo> parse_safetensors_header(const os::RandomAccessFile& file);

/// Opens one file as a whole model. `sidecar_folder` may be empty: then there are no sidecars.
std::unique_ptr<ModelFile> read_safetensors(std::unique_ptr<os::RandomAccessFile> file,
                                            std::filesystem::path sidecar_folder = {});

/// Opens the files of a model that an index (`index_text`, read from `index_path`) lists; they are
/// opened by `open_shard` in the folder of the index, ordered by name.
/// Throws Error{kBadData} when index and files do not list the same tensors.
std::unique_ptr<ModelFile> read_safetensors_index(const std::filesystem::path& index_path,
                                                  std::string_view index_text,
                                                  const OpenFile& open_shard = os::open_file);

}  // namespace winnow::formats
