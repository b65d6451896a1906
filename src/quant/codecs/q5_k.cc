// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q5_K: super-blocks of 256 weights, w = d * s * q - dmin * m, q in 0..31; see min_super_block.h.
#include "quant/min_super_block.h"

namespace winnow::quant {
namespace {

using Layout = MinSuperBlock<5>;

using Encoder = BlockEncoder<Layout, search_affine_super_block<Layout>>;

}  // namespace

extern const Codec kQ5K{.name = "Q5_K",
                        .ggml_type = 13,
                        .file_type = 17,
                        .block_size = Layout::kBlock,
                        .block_bytes = Layout::kBytes,
                        .fallback = "Q5_1",
                        .decode = decode_blocks<Layout>,
                        .encode = Encoder::encode,
                        .unpack = unpack_blocks<Layout>,
                        .has_offsets = Layout::kHasOffsets,
                        .grid = &Encoder::kGrid};

}  // namespace winnow::quant
