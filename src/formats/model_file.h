// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What every model file format offers: a directory of named tensors whose payloads are read when
// asked for, and a streaming writer. Knows no architecture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "formats/metadata.h"
#include "os/file.h"
#include "quant/codec.h"
#include "tensor/shape.h"

namespace winnow::formats {

/// One tensor of a model file. Readers have checked that its bytes lie inside its file.
struct TensorInfo {
  std::string name;
  /// Null when the type is one this program cannot decode; `type_name` says which.
  const quant::Codec* codec = nullptr;
  std::string type_name;
  tensor::Shape shape;   ///< outermost first; [num_experts, out_features, in_features] for stacks
  std::size_t file = 0;  ///< which of `ModelFile::files()`
  std::uint64_t offset = 0;  ///< of the payload, from the beginning of that file
  Bytes size;                ///< of the payload
};

/// An opened model: headers are in memory, payloads are not.
class ModelFile {
 public:
  virtual ~ModelFile() = default;
  /// "GGUF" or "safetensors".
  virtual std::string_view format() const = 0;
  /// GGUF key-values; empty for safetensors.
  virtual const Metadata& metadata() const = 0;
  /// Text of a file beside the weights (config.json, tokenizer.json, tokenizer_config.json,
  /// generation_config.json, chat_template.jinja), "" when there is none. GGUF has none.
  virtual std::string sidecar(std::string_view file_name) const = 0;
  /// In file order.
  virtual std::span<const TensorInfo> tensors() const = 0;
  /// Null when there is no such tensor.
  virtual const TensorInfo* find(std::string_view name) const = 0;
  virtual std::span<const std::unique_ptr<os::RandomAccessFile>> files() const = 0;
  /// The path it was opened with.
  virtual const std::string& name() const = 0;

  /// Reads `out.size()` bytes of the payload from `offset` on. Throws as RandomAccessFile, with the
  /// tensor's name.
  void read(const TensorInfo& tensor, std::uint64_t offset, std::span<std::byte> out) const;
};

/// Opens a safetensors folder, a .safetensors file, a GGUF file or the first split of one;
/// recognises the format by content. Reads headers only.
/// Throws Error{kBadData} for anything malformed: file, tensor or key, offset, remedy.
std::unique_ptr<ModelFile> open_model(const std::filesystem::path& path);

/// A tensor that will be written.
struct PlannedTensor {
  std::string name;
  const quant::Codec* codec = nullptr;
  tensor::Shape shape;
};

/// Writes a model in one pass: all headers are known first, then payloads follow in the planned
/// order in pieces of any size. Nothing appears under the final name before `finish`.
class ModelWriter {
 public:
  virtual ~ModelWriter() = default;
  /// Appends the next bytes of the payloads, in planned order, without padding; a call may not
  /// cross the border between two tensors.
  virtual void append(std::span<const std::byte> bytes) = 0;
  /// Writes this metadata over that of the beginning: the same keys, and values of the same length.
  /// For what is known when the payloads have been written. GGUF alone has a place for it.
  virtual void replace_metadata(const Metadata& metadata) = 0;
  /// Throws Error{kInternal} unless every planned byte has been appended. Syncs and renames.
  virtual void finish() = 0;
};

/// GGUF v3, alignment 32. `general.alignment` is not written (32 is the format's default).
std::unique_ptr<ModelWriter> write_gguf(const std::filesystem::path& path, const Metadata& metadata,
                                        std::vector<PlannedTensor> tensors);

/// Bytes of the file that `write_gguf` would make. A change of codec changes only the payloads,
/// each padded to 32 bytes; the header's length stays.
Bytes gguf_file_size(const Metadata& metadata, const std::vector<PlannedTensor>& tensors);

struct SafetensorsOptions {
  /// Files are split before they exceed this; one file is named model.safetensors, several
  /// model-00001-of-000NN.safetensors with model.safetensors.index.json.
  Bytes max_file_size{5'000'000'000};
  /// (file name, text) pairs stored beside the weights: config.json, tokenizer.json ...
  std::vector<std::pair<std::string, std::string>> sidecars;
};

/// A Hugging Face folder. It is written as `<path>.partial-<pid>/` and renamed by `finish`; an
/// existing non-empty folder at `path` is refused with Error{kUsage}. Codecs: F32, F16, BF16.
std::unique_ptr<ModelWriter> write_safetensors(const std::filesystem::path& path,
                                               std::vector<PlannedTensor> tensors,
                                               const SafetensorsOptions& options);

}  // namespace winnow::formats
