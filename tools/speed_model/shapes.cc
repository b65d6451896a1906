// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "speed_model/shapes.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace winnow::tools {
namespace {

struct NamedShape {
  std::string_view name;
  std::string_view architecture;
  std::uint32_t layers;
  std::uint32_t hidden_size;
  std::uint32_t attention_heads;
  std::uint32_t key_value_heads;
  std::uint32_t head_dim;
  std::uint32_t intermediate_size;  ///< of dense layers; as published, also where there are none
  model::MoeSpec moe;               ///< no experts: dense
  std::uint32_t vocab_size;
  std::uint32_t context;
  double rope_theta;
};

constexpr model::MoeSpec experts(std::uint32_t count, std::uint32_t top_k, std::uint32_t width) {
  return {.num_experts = count, .top_k = top_k, .moe_intermediate_size = width};
}

constexpr std::array kShapes = {
    // arXiv:2409.02060; its router weights are not renormalised, which costs no time.
    NamedShape{"olmoe-1b-7b", "qwen3moe", 16, 2048, 16, 16, 128, 8192, experts(64, 8, 1024), 50304,
               4096, 10000},
    // arXiv:2505.09388
    NamedShape{"qwen3-30b-a3b", "qwen3moe", 48, 2048, 32, 4, 128, 6144, experts(128, 8, 768),
               151936, 40960, 1000000},
    // Widths of Qwen3-1.7B with as many layers and words as make 1.0 B parameters.
    NamedShape{"dense-1b", "qwen3", 16, 2048, 16, 8, 128, 6144, {}, 50304, 4096, 1000000},
    // For tests: all types of 256 weights a block fit.
    NamedShape{"tiny", "qwen3moe", 2, 256, 4, 2, 64, 512, experts(16, 4, 256), 1024, 512, 10000},
    // As many experts as large models have, in layers of 12.6 MB in F32.
    NamedShape{"tiny-128", "qwen3moe", 9, 128, 2, 1, 64, 256, experts(128, 8, 64), 1024, 512,
               10000},
    // The same with experts of 384 KiB in F32, so that they, and not what is known of them, are
    // large.
    NamedShape{"small-128", "qwen3moe", 12, 256, 4, 2, 64, 512, experts(128, 8, 128), 1024, 512,
               10000},
    NamedShape{"tiny-dense", "qwen3", 2, 256, 4, 2, 64, 512, {}, 1024, 512, 10000},
};

}  // namespace

std::string shape_names() {
  std::string names;
  for (const NamedShape& shape : kShapes) {
    names += fmt::format("{}{}", names.empty() ? "" : " ", shape.name);
  }
  return names;
}

model::ModelSpec published_shape(std::string_view name, std::optional<std::uint32_t> layers) {
  const auto* shape = std::find_if(kShapes.begin(), kShapes.end(),
                                   [&](const NamedShape& s) { return s.name == name; });
  if (shape == kShapes.end()) {
    fail(ErrorCode::kUsage, "--shape: '{}' is not one of: {}", name, shape_names());
  }
  model::ModelSpec spec;
  spec.architecture = shape->architecture;
  spec.name = fmt::format("{}, random weights", name);
  spec.vocab_size = shape->vocab_size;
  spec.hidden_size = shape->hidden_size;
  spec.intermediate_size = shape->intermediate_size;
  spec.num_hidden_layers = layers.value_or(shape->layers);
  spec.num_attention_heads = shape->attention_heads;
  spec.num_key_value_heads = shape->key_value_heads;
  spec.head_dim = shape->head_dim;
  spec.max_position_embeddings = shape->context;
  spec.rms_norm_eps = 1e-6F;
  spec.rope_theta = shape->rope_theta;
  spec.query_key_norm = model::QueryKeyNorm::kPerHead;
  spec.moe = shape->moe;
  spec.moe_layers.assign(spec.num_hidden_layers, shape->moe.num_experts != 0);
  model::check_spec(spec, std::string(name));
  return spec;
}

}  // namespace winnow::tools
