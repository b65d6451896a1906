// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which experts the tokens of some texts chose: what cache policies are compared on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/units.h"

namespace winnow::experts {

/// Texts one after the other, each token's choices in every layer that has experts.
struct RouteTrace {
  /// Fills up the row of a token that uses fewer than top_k different experts.
  static constexpr std::uint16_t kNone = std::numeric_limits<std::uint16_t>::max();

  std::uint32_t num_layers = 0;   ///< all of the model's, those without experts too
  std::uint32_t num_experts = 0;  ///< the most that a layer has; below kNone
  std::uint32_t top_k = 0;
  std::uint64_t stored_experts = 0;      ///< of all layers, with bytes of their own
  std::vector<LayerId> layers;           ///< those with experts, rising
  std::vector<std::uint64_t> sequences;  ///< number of the first token of each text, rising from 0
  std::vector<std::uint16_t> experts;    ///< [tokens, layers, top_k]; different ones, kNone last

  std::size_t tokens() const {
    const std::size_t row = layers.size() * top_k;
    return row == 0 ? 0 : experts.size() / row;
  }
  /// The choices of a token in layers[i], without kNone. `out` is overwritten.
  void choices(std::size_t token, std::size_t i, std::vector<ExpertId>& out) const;
};

}  // namespace winnow::experts
