// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q4_0: blocks of 32 weights, w = d * (q - 8), q in 0..15; see nibble_block.h.
#include "quant/nibble_block.h"

namespace winnow::quant {
namespace {

using Layout = NibbleBlock<4, /*WithBase=*/false>;

using Encoder = BlockEncoder<Layout, search_symmetric_block<Layout::Levels>>;

}  // namespace

extern const Codec kQ4_0{.name = "Q4_0",
                         .ggml_type = 2,
                         .file_type = 2,
                         .block_size = Layout::kBlock,
                         .block_bytes = Layout::kBytes,
                         .fallback = "F16",
                         .decode = decode_blocks<Layout>,
                         .encode = Encoder::encode,
                         .unpack = unpack_blocks<Layout>,
                         .has_offsets = Layout::kHasOffsets,
                         .grid = &Encoder::kGrid};

}  // namespace winnow::quant
