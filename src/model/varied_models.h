// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: models whose experts vary, made of a model whose experts do not.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "model/exporter.h"
#include "model/test_models.h"

namespace winnow::model::testing {

/// Experts of every kind, in other numbers and another order in each layer; of up to 8.
inline std::vector<std::vector<ExportExpert>> every_kind(const ModelSpec& spec) {
  const std::uint32_t width = spec.moe.moe_intermediate_size;
  const ExpertShape whole{ExpertKind::kFeedForward, width};
  const ExpertShape narrow{ExpertKind::kFeedForward, width / 2};
  const auto expert = [](std::uint32_t source, ExpertShape shape) {
    return ExportExpert{ExpertId{source}, shape};
  };
  std::vector<std::vector<ExportExpert>> lists(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.is_moe_layer(LayerId{layer})) continue;
    if (layer % 2 == 0) {
      lists[layer] = {expert(0, {ExpertKind::kConstant, 0}), expert(2, whole), expert(3, narrow),
                      expert(5, {ExpertKind::kIdentity, 0}), expert(6, {ExpertKind::kZero, 0})};
    } else {
      for (const std::uint32_t e : {7, 6, 5, 4, 3, 1, 0}) lists[layer].push_back(expert(e, whole));
    }
    std::erase_if(lists[layer], [&](const ExportExpert& e) {
      return index(e.source) >= spec.num_experts(LayerId{layer});
    });
  }
  return lists;
}

/// All experts of the source in their order, of which 0 uses the matrices of 3, and 5 those of 1.
inline std::vector<std::vector<ExportExpert>> shared_experts(const ModelSpec& spec) {
  std::vector<std::vector<ExportExpert>> lists(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    for (std::uint32_t e = 0; e < spec.num_experts(LayerId{layer}); ++e) {
      lists[layer].push_back({ExpertId{e}, spec.expert(LayerId{layer}, ExpertId{e})});
    }
    if (lists[layer].empty()) continue;
    lists[layer][0].shape = {ExpertKind::kShared, 0, 3};
    lists[layer][5].shape = {ExpertKind::kShared, 0, 1};
  }
  return lists;
}

/// The vector that stands for a constant expert.
inline float constant_value(LayerId layer, ExpertId expert, std::size_t i) {
  return 0.01F * static_cast<float>(1 + index(layer) + 2 * index(expert)) *
         static_cast<float>(1 + i % 7);
}

/// The first rows, or columns, of a matrix of the source, for an expert of this width.
inline std::vector<float> narrowed(const Checkpoint& source, Role role, LayerId layer,
                                   ExpertId expert, std::size_t width) {
  const TensorRef ref = source.at(role, layer, expert);
  std::vector<float> values(ref.rows * ref.cols);
  source.read_floats(ref, 0, ref.rows, values);
  if (role != Role::kExpertDownProj) {
    values.resize(width * ref.cols);
    return values;
  }
  std::vector<float> result;
  for (std::size_t row = 0; row < ref.rows; ++row) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * ref.cols);
    result.insert(result.end(), begin, begin + static_cast<std::ptrdiff_t>(width));
  }
  return result;
}

/// Writes `source` with these experts; narrow ones have its first channels. codec: of an expert's
/// matrix; other matrices are F32.
inline void write_varied(const Checkpoint& source, const std::filesystem::path& path,
                         const std::vector<std::vector<ExportExpert>>& experts,
                         const std::function<const quant::Codec&(Role, LayerId, ExpertId)>& codec) {
  ExportOptions options;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
  options.experts = experts;
  options.expert_codec = codec;
  options.constant = [](LayerId layer, ExpertId expert, std::span<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = constant_value(layer, expert, i);
  };
  options.rows = [&](Role role, LayerId layer, ExpertId expert, std::size_t first,
                     std::span<std::byte> out) {
    if (!traits(role).per_expert) return false;
    const auto& list = experts[index(layer)];
    const auto chosen = std::find_if(list.begin(), list.end(),
                                     [&](const ExportExpert& e) { return e.source == expert; });
    const std::size_t width = chosen->shape.width;
    const TensorRef ref = source.at(role, layer, expert);
    const std::size_t cols = role == Role::kExpertDownProj ? width : ref.cols;
    if (width == source.spec().moe.moe_intermediate_size) return false;
    const std::vector<float> values = narrowed(source, role, layer, expert, width);
    const quant::Codec& wanted = quant::codec_for_row(codec(role, layer, expert), cols);
    const std::size_t blocks = cols / wanted.block_size;
    for (std::size_t r = 0; r < out.size() / (blocks * wanted.block_bytes); ++r) {
      wanted.encode(values.data() + (first + r) * cols, blocks, nullptr,
                    out.data() + r * blocks * wanted.block_bytes);
    }
    return true;
  };
  os::ThreadPool pool(1);
  Log log;
  export_model(source, path, options, pool, log);
}

}  // namespace winnow::model::testing
