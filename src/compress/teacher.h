// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The model's own next-token distributions on held-out text, cut to the likeliest tokens: what a
// changed model is compared with when the original is not at hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/units.h"
#include "metrics/text_data.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Tokens of a distribution that are kept.
inline constexpr std::size_t kTeacherTop = 64;

/// The likeliest tokens of each scored position of some windows.
struct Teacher {
  std::vector<std::int32_t> window_lengths;  ///< tokens of each window
  std::vector<std::int32_t> first_scored;    ///< of each window: tokens from there on are predicted
  std::vector<std::int32_t> tokens;          ///< of all windows
  std::vector<std::int32_t> top_tokens;      ///< [positions, top]: likeliest first, ties: lower id
  std::vector<float> top_log_probs;          ///< [positions, top], natural logarithms
  std::vector<float> rest_mass;              ///< [positions]: probability of all other tokens

  std::size_t top = 0;  ///< kTeacherTop, or the size of a smaller vocabulary

  void add_window(const metrics::Window& window);
  /// Appends what these logits [positions, vocab_size] say. They must be finite.
  void add_logits(tensor::MatrixView<const float> logits);
  /// What is held; whole texts are written in pieces.
  Bytes memory() const;
  /// As a part of a statistics file, or a piece of one (join_parts joins them); names begin with
  /// `prefix`. Without windows the part is empty.
  void write(const std::filesystem::path& path, const std::string& prefix) const;
};

}  // namespace winnow::compress
