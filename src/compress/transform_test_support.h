// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: random changes of a layer, and models written with changed layers.
#pragma once

#include <cmath>
#include <filesystem>
#include <numeric>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "compress/layer_transform.h"
#include "formats/model_file.h"
#include "model/checkpoint.h"
#include "model/test_models.h"

namespace winnow::compress::testing {

enum class ScaleStyle {
  kPowersOfTwo,  ///< products are exact
  kAny,
};

inline std::vector<float> random_scales(std::size_t size, ScaleStyle style, Rng& rng) {
  std::vector<float> scales(size);
  for (float& s : scales) {
    const double exponent = rng.normal();
    s = static_cast<float>(std::exp2(style == ScaleStyle::kAny ? exponent : std::round(exponent)));
  }
  return scales;
}

inline std::vector<std::uint32_t> random_order(std::size_t size, Rng& rng) {
  std::vector<std::uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0U);
  for (std::size_t i = size; i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  return order;
}

/// Sets random numbers for everything of one kind.
inline void set_random(LayerTransform& transform, const model::ModelSpec& spec, LayerId layer,
                       TransformKind kind, ScaleStyle style, Rng& rng) {
  const bool moe = spec.is_moe_layer(layer);
  const std::size_t inner = moe ? spec.moe.moe_intermediate_size : spec.intermediate_size;
  for (std::uint32_t e = 0; e < (moe ? spec.moe.num_experts : 1); ++e) {
    if (kind == TransformKind::kInnerOrder) {
      transform.set_inner_order(ExpertId{e}, random_order(inner, rng));
    } else if (kind == TransformKind::kInnerScales) {
      transform.set_inner_scales(ExpertId{e}, random_scales(inner, style, rng));
    }
  }
  if (kind == TransformKind::kValueScales) {
    transform.set_value_scales(random_scales(spec.key_value_width(), style, rng));
  } else if (kind == TransformKind::kValueRotation) {
    transform.set_value_rotation();  // there is one only
  } else if (kind == TransformKind::kAttentionInput) {
    transform.set_attention_input_scales(random_scales(spec.hidden_size, style, rng));
  } else if (kind == TransformKind::kFfnInput) {
    transform.set_ffn_input_scales(random_scales(spec.hidden_size, style, rng));
  }
}

/// Writes the model in F32 with each layer changed. transforms: [num_hidden_layers].
inline void write_transformed(const model::Checkpoint& source,
                              const std::vector<LayerTransform>& transforms,
                              const std::filesystem::path& folder) {
  struct Part {
    model::Role role;
    LayerId layer;
    ExpertId expert;
  };
  std::vector<Part> parts;
  std::vector<formats::PlannedTensor> planned;
  source.for_each_role([&](model::Role role, LayerId layer) {
    for (std::uint32_t e = 0; e < source.part_count(role, layer); ++e) {
      parts.push_back({role, layer, ExpertId{e}});
      planned.push_back({model::expand_pattern(model::hf_pattern(source.architecture(), role),
                                               layer, ExpertId{e}),
                         quant::find_codec("F32"),
                         *model::expected_shape(source.spec(), role, layer)});
    }
  });
  formats::SafetensorsOptions options;
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    options.sidecars.emplace_back(name, source.file().sidecar(name));
  }
  const auto writer = formats::write_safetensors(folder, std::move(planned), options);
  for (const auto& [role, layer, expert] : parts) {
    const model::TensorRef ref = source.at(role, layer, expert);
    tensor::Matrix<float> weights(ref.rows, ref.cols);
    source.read_floats(ref, 0, ref.rows, weights.flat());
    const LayerTransform& transform = transforms[index(layer)];
    if (model::traits(role).per_layer && ref.rows > 1) {
      transform.apply(role, expert, weights.view());
    } else if (model::traits(role).per_layer) {
      transform.apply_to_vector(role, weights.flat());
    }
    writer->append(std::as_bytes(weights.flat()));
  }
  writer->finish();
}

}  // namespace winnow::compress::testing
