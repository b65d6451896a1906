// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Rows of packed weights on their way into a model file: a few megabytes in memory, whatever the
// size of the file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "formats/model_file.h"
#include "model/roles.h"
#include "model/spec.h"
#include "text/tokenizer_spec.h"

namespace winnow::tools {

/// One tensor of a file that holds every tensor a spec asks for.
struct SpecTensor {
  model::Role role;
  LayerId layer;
  std::uint32_t parts;  ///< experts stacked in it, or 1
  tensor::Shape shape;  ///< of one part: [out_features, in_features], or [values]
};

/// All tensors of a GGUF file of this spec, in file order.
std::vector<SpecTensor> spec_tensors(const model::ModelSpec& spec);

/// How the file calls and types it.
formats::PlannedTensor planned(const SpecTensor& tensor, const quant::Codec& codec);

/// Keys of a GGUF file of this spec that is mostly of type `nominal`.
formats::Metadata speed_metadata(const model::ModelSpec& spec, const text::TokenizerSpec& tokenizer,
                                 const quant::Codec& nominal);

/// Gathers small pieces, hands large ones to the writer, and tells how far it is.
class WeightStream {
 public:
  /// Both are borrowed. `total`: bytes that will be appended.
  WeightStream(formats::ModelWriter& writer, Bytes total, Log& log);
  void append(std::span<const std::byte> bytes);
  /// Call after the last bytes of each tensor.
  void end_tensor();

 private:
  void flush();

  formats::ModelWriter& writer_;
  Log& log_;
  std::vector<std::byte> buffer_;
  std::uint64_t done_ = 0;
  std::uint64_t total_;
};

}  // namespace winnow::tools
