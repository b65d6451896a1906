// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests: traces that a rule makes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/rng.h"
#include "experts/route_trace.h"

namespace winnow::experts::testing {

/// No tokens yet; all layers have experts.
inline RouteTrace empty_trace(std::uint32_t layers, std::uint32_t experts, std::uint32_t top_k) {
  RouteTrace trace{layers, experts, top_k, std::uint64_t{layers} * experts, {}, {0}, {}};
  for (std::uint32_t l = 0; l < layers; ++l) trace.layers.push_back(LayerId{l});
  return trace;
}

/// Token t uses the experts t * top_k, t * top_k + 1, ... modulo their number in every layer.
inline RouteTrace cyclic_trace(std::uint32_t layers, std::uint32_t experts, std::uint32_t top_k,
                               std::size_t tokens) {
  RouteTrace trace = empty_trace(layers, experts, top_k);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 0; i < std::size_t{layers} * top_k; ++i) {
      trace.experts.push_back(static_cast<std::uint16_t>((t * top_k + i % top_k) % experts));
    }
  }
  return trace;
}

/// Some experts are likelier than others, in each layer and text different ones, and some tokens
/// use fewer than top_k. A text has 16 tokens.
inline RouteTrace random_trace(std::uint32_t layers, std::uint32_t experts, std::uint32_t top_k,
                               std::size_t tokens, std::uint64_t seed) {
  RouteTrace trace = empty_trace(layers, experts, top_k);
  trace.sequences.clear();
  Rng rng(seed);
  for (std::size_t t = 0; t < tokens; ++t) {
    if (t % 16 == 0) trace.sequences.push_back(t);
    for (std::uint32_t l = 0; l < layers; ++l) {
      const std::size_t row = trace.experts.size();
      const std::size_t used = rng.below(8) == 0 ? rng.below(top_k + 1) : top_k;
      while (trace.experts.size() < row + used) {
        const std::uint64_t drawn = rng.below(1 + rng.below(experts));  // low ones are likely
        const auto expert = static_cast<std::uint16_t>((drawn + l + t / 16) % experts);
        bool is_new = true;
        for (std::size_t i = row; i < trace.experts.size(); ++i) {
          is_new = is_new && trace.experts[i] != expert;
        }
        if (is_new) trace.experts.push_back(expert);
      }
      trace.experts.resize(row + top_k, RouteTrace::kNone);
    }
  }
  return trace;
}

}  // namespace winnow::experts::testing
