// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/stock_encoders.h"

#include "quant/stock/curved_blocks.h"
#include "quant/stock/minimum_blocks.h"
#include "quant/stock/signed_blocks.h"
#include "quant/stock/small_blocks.h"

namespace winnow::quant {

#define CODEC(name) extern const Codec name;
#include "quant/codecs/registry.def"
#undef CODEC

namespace {

/// `EncodeRow` of a block type and the codec that lays it out.
template <class Block, const Codec& codec>
void encode_row(const float* weights, std::size_t num_blocks, const float* importance,
                std::byte* out) noexcept {
  const float row = stock::mean_square(weights, num_blocks * Block::kBlock);
  for (std::size_t b = 0; b < num_blocks; ++b) {
    const std::size_t at = b * Block::kBlock;
    BlockParameters block;
    Block::encode(weights + at, importance == nullptr ? nullptr : importance + at, row, block);
    codec.grid->pack(block, out + b * codec.block_bytes);
  }
}

struct Entry {
  const Codec* codec;
  EncodeRow encode;
};

template <class Block, const Codec& codec>
constexpr Entry entry() {
  return {&codec, encode_row<Block, codec>};
}

constexpr Entry kEntries[] = {
    entry<stock::Q8Block, kQ8_0>(),
    entry<stock::Q6Block, kQ6K>(),
    entry<stock::BaseBlock<5>, kQ5_1>(),
    entry<stock::SignedBlock<16>, kQ5_0>(),
    entry<stock::MinimumBlock<stock::MinShape<5>>, kQ5K>(),
    entry<stock::BaseBlock<4>, kQ4_1>(),
    entry<stock::SignedBlock<8>, kQ4_0>(),
    entry<stock::MinimumBlock<stock::MinShape<4>>, kQ4K>(),
    entry<stock::Iq4NlBlock, kIq4Nl>(),
    entry<stock::Iq4XsBlock, kIq4Xs>(),
    entry<stock::Q3Block, kQ3K>(),
    entry<stock::MinimumBlock<stock::Q2Shape>, kQ2K>(),
};

}  // namespace

EncodeRow find_stock_encoder(const Codec& codec) {
  if (codec.is_float()) return codec.encode;
  for (const Entry& entry : kEntries) {
    if (entry.codec == &codec) return entry.encode;
  }
  return nullptr;
}

}  // namespace winnow::quant
