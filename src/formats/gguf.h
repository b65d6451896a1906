// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// GGUF as a reader and a writer need it both: constants, split names, layouts of tensor types that
// this program lists but cannot decode. docs/formats/gguf.md describes the format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "formats/format.h"
#include "formats/metadata.h"
#include "formats/model_file.h"
#include "os/file.h"
#include "tensor/shape.h"

namespace winnow::formats {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr std::uint32_t kGgufDefaultAlignment = 32;

/// What stands before the payloads of one GGUF file; tensors carry absolute offsets and file 0.
struct GgufHeader {
  Metadata metadata;
  std::vector<TensorInfo> tensors;
};

/// Parses and checks the header of one file (format versions 2 and 3, little-endian): every count
/// against the bytes left before anything is allocated, every payload inside the file and
/// overlapping no other. Throws Error{kBadData} with file, key or tensor, and offset.
GgufHeader parse_gguf_header(const os::RandomAccessFile& file);

/// Opens a GGUF model whose first (or only) file is `first`. Further splits are opened by
/// `open_split` under the names that follow from that of `first`.
/// Throws Error{kBadData} for anything malformed, and when `first` is a split but not the first.
std::unique_ptr<ModelFile> read_gguf(std::unique_ptr<os::RandomAccessFile> first,
                                     const OpenFile& open_split = os::open_file);

/// Tensor types of GGUF that have no codec here: known so that they can be listed with their bytes.
struct GgufLayout {
  std::uint32_t type;
  std::string_view name;
  std::uint32_t block_size;   ///< weights per block
  std::uint32_t block_bytes;  ///< bytes per block
};
/// Layout of a type number, from its codec where there is one; nothing when it is unknown.
std::optional<GgufLayout> find_gguf_layout(std::uint32_t type);

}  // namespace winnow::formats
