// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: models in the extended layout, with random corrections, and files of them with
// something changed.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "formats/model_file.h"
#include "model/exporter.h"
#include "model/test_models.h"
#include "tensor/half.h"

namespace winnow::model::testing {

/// Writes `source` as GGUF, matrices in `codec`, each but the embedding with random factors.
inline void write_corrected(const Checkpoint& source, const std::filesystem::path& path,
                            std::string_view codec, std::size_t rank) {
  ExportOptions options;
  const quant::Codec& wanted = *quant::find_codec(codec);
  options.codec = [&](Role, LayerId) -> const quant::Codec& { return wanted; };
  options.correction_rank = [rank](Role, LayerId) { return rank; };
  Rng rng(7);
  options.factor = [&](Role, LayerId, ExpertId, LowRankSide, std::span<std::byte> out) {
    for (std::size_t i = 0; i < out.size(); i += 2) {
      const std::uint16_t value = tensor::float_to_half(static_cast<float>(0.1 * rng.normal()));
      std::memcpy(out.data() + i, &value, sizeof value);
    }
  };
  os::ThreadPool pool(1);
  Log log;
  export_model(source, path, options, pool, log);
}

/// A GGUF file in memory, whose parts a test may change.
class EditableGguf {
 public:
  struct Tensor {
    formats::PlannedTensor planned;
    std::vector<std::byte> bytes;
  };

  explicit EditableGguf(const std::filesystem::path& path) {
    const auto file = formats::open_model(path);
    metadata = file->metadata();
    for (const formats::TensorInfo& info : file->tensors()) {
      tensors.push_back({{info.name, info.codec, info.shape}, {}});
      tensors.back().bytes.resize(info.size.value);
      file->read(info, 0, tensors.back().bytes);
    }
  }

  Tensor& tensor(std::string_view name) {
    for (Tensor& t : tensors) {
      if (t.planned.name == name) return t;
    }
    WINNOW_CHECK(false);
    return tensors.front();
  }
  void remove(std::string_view name) {
    std::erase_if(tensors, [&](const Tensor& t) { return t.planned.name == name; });
  }
  /// All bytes 0, as many as a tensor of this type and shape has.
  void replace(std::string_view name, std::string_view codec, const tensor::Shape& shape) {
    Tensor& t = tensor(name);
    t.planned.codec = quant::find_codec(codec);
    t.planned.shape = shape;
    t.bytes.assign(quant::packed_size(*t.planned.codec, shape)->value, std::byte{0});
  }

  void write(const std::filesystem::path& path) const {
    std::vector<formats::PlannedTensor> planned;
    for (const Tensor& t : tensors) planned.push_back(t.planned);
    const auto writer = formats::write_gguf(path, metadata, std::move(planned));
    for (const Tensor& t : tensors) writer->append(t.bytes);
    writer->finish();
  }

  formats::Metadata metadata;
  std::vector<Tensor> tensors;
};

}  // namespace winnow::model::testing
