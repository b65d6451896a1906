// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests that run over the codec registry: parameters, their names, random packed blocks.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/block_grid.h"
#include "quant/codec.h"

namespace winnow::quant {

/// How gtest shows a codec in messages.
inline void PrintTo(const Codec* codec, std::ostream* out) { *out << codec->name; }

inline std::string codec_test_name(const testing::TestParamInfo<const Codec*>& info) {
  return std::string(info.param->name);
}

inline std::vector<const Codec*> integer_codecs() {
  std::vector<const Codec*> codecs;
  for (const Codec* codec : all_codecs()) {
    if (!codec->is_float()) codecs.push_back(codec);
  }
  return codecs;
}

/// Whether every combination of codes exists.
inline bool is_scalar(const Codec& codec) { return codec.grid->codebook == nullptr; }

/// Integer codecs that code each weight by itself, and those that code groups as points.
inline std::vector<const Codec*> codecs_of_kind(bool scalar) {
  std::vector<const Codec*> codecs;
  for (const Codec* codec : integer_codecs()) {
    if (is_scalar(*codec) == scalar) codecs.push_back(codec);
  }
  return codecs;
}

/// Blocks of random bytes; the f16 scales among them may be anything, NaN included.
inline std::vector<std::byte> random_blocks(const Codec& codec, std::size_t num_blocks,
                                            std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::byte> packed(num_blocks * codec.block_bytes);
  for (std::byte& b : packed) b = static_cast<std::byte>(rng.below(256));
  return packed;
}

/// Owns what `Codec::unpack` writes.
struct UnpackedBlocks {
  std::vector<std::int8_t> codes;
  std::vector<float> scales;
  std::vector<float> offsets;

  /// Offsets hold `untouched` where the codec writes none.
  UnpackedBlocks(const Codec& codec, const std::vector<std::byte>& packed, float untouched = 0)
      : codes(packed.size() / codec.block_bytes * codec.block_size),
        scales(codes.size() / IntegerForm::kGroup),
        offsets(scales.size(), untouched) {
    codec.unpack(packed.data(), packed.size() / codec.block_bytes,
                 {codes.data(), scales.data(), offsets.data()});
  }
};

/// What the weights of an integer codec may be before its scales, learnt from random blocks.
struct CodecGrid {
  std::vector<int> codes;  ///< rising
  bool powers_of_two;      ///< every scale is one
};

inline CodecGrid grid_of(const Codec& codec) {
  const UnpackedBlocks form(codec, random_blocks(codec, 128, 1));
  const std::set<int> codes(form.codes.begin(), form.codes.end());
  const bool powers_of_two = std::all_of(form.scales.begin(), form.scales.end(), [](float scale) {
    int exponent = 0;
    return std::frexp(scale, &exponent) == 0.5F;
  });
  return {{codes.begin(), codes.end()}, powers_of_two};
}

}  // namespace winnow::quant
