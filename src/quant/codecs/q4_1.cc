// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q4_1: blocks of 32 weights, w = d * q + m, q in 0..15; see nibble_block.h.
#include "quant/nibble_block.h"

namespace winnow::quant {
namespace {

using Layout = NibbleBlock<4, /*WithBase=*/true>;

using Encoder = BlockEncoder<Layout, search_affine_block<Layout::Levels>>;

}  // namespace

extern const Codec kQ4_1{.name = "Q4_1",
                         .ggml_type = 3,
                         .file_type = 3,
                         .block_size = Layout::kBlock,
                         .block_bytes = Layout::kBytes,
                         .fallback = "F16",
                         .decode = decode_blocks<Layout>,
                         .encode = Encoder::encode,
                         .unpack = unpack_blocks<Layout>,
                         .has_offsets = Layout::kHasOffsets,
                         .grid = &Encoder::kGrid};

}  // namespace winnow::quant
