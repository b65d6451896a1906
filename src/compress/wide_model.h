// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: a tiny model whose experts have channels enough to lose some.
#pragma once

#include <bit>
#include <cmath>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/rng.h"
#include "model/checkpoint.h"
#include "model/test_models.h"

namespace winnow::compress::testing {

inline constexpr std::uint32_t kWideChannels = 128;

inline std::string bf16_bytes(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return {static_cast<char>(bits >> 16 & 0xFF), static_cast<char>(bits >> 24)};
}

/// One of the tiny qwen3_moe models with other inner channels in every expert, written to `folder`.
/// Channels matter unequally, and every other one is much like the one before it, so that those
/// that stay can make up for it.
inline model::Checkpoint write_wide(std::string_view tiny, const std::filesystem::path& folder,
                                    std::uint32_t channels = kWideChannels) {
  model::testing::EditableModel made(tiny);
  made.config["moe_intermediate_size"] = channels;
  Rng rng(11);
  for (auto& tensor : made.tensors) {
    if (tensor.name.find(".mlp.experts.") == std::string::npos) continue;
    const bool is_down = tensor.name.find("down_proj") != std::string::npos;
    const std::uint64_t hidden = tensor.shape[is_down ? 0 : 1];
    std::vector<double> values(channels * hidden);  // channel after channel
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t channel = i / hidden;
      const double scale = is_down ? 0.02 + 0.3 * std::pow((channel * 37 % 128) / 128.0, 3) : 0.4;
      values[i] = scale * rng.normal();
      if (!is_down && channel % 2 == 1) values[i] = values[i - hidden] + 0.2 * values[i];
    }
    tensor.shape[is_down ? 1 : 0] = channels;
    tensor.bytes.clear();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t from = is_down ? i % channels * hidden + i / channels : i;
      tensor.bytes += bf16_bytes(values[from]);
    }
  }
  made.write(folder);
  return model::Checkpoint::open(folder);
}

}  // namespace winnow::compress::testing
