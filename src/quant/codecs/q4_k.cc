// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q4_K: super-blocks of 256 weights, w = d * s * q - dmin * m, q in 0..15; see min_super_block.h.
#include "quant/min_super_block.h"

namespace winnow::quant {
namespace {

using Layout = MinSuperBlock<4>;

using Encoder = BlockEncoder<Layout, search_affine_super_block<Layout>>;

}  // namespace

extern const Codec kQ4K{.name = "Q4_K",
                        .ggml_type = 12,
                        .file_type = 15,
                        .block_size = Layout::kBlock,
                        .block_bytes = Layout::kBytes,
                        .fallback = "Q5_0",
                        .decode = decode_blocks<Layout>,
                        .encode = Encoder::encode,
                        .unpack = unpack_blocks<Layout>,
                        .has_offsets = Layout::kHasOffsets,
                        .grid = &Encoder::kGrid};

}  // namespace winnow::quant
