// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Encoders that give the bytes of llama.cpp's own quantisers, for comparisons on equal terms and
// for files that are to be those of another tool. The codecs' own encoders (codec.h) lose less.
#pragma once

#include "quant/encode_row.h"

namespace winnow::quant {

/// Encodes whole rows as `Codec::encode` does, but `importance` is used as it is: what scales it
/// may change bits of the result, and ones are not the same as null, with which the other program
/// makes a shorter search. A scale too large for an f16 becomes infinite. Null for codecs without
/// such an encoder; float codecs have their own, which rounds alike.
///
/// The bytes are those of llama.cpp's release 0.5.0 (2026) for x86-64 without fused multiply-adds,
/// for any finite weights and any importance (tests/peer/test_stock_encoders.py).
EncodeRow find_stock_encoder(const Codec& codec);

}  // namespace winnow::quant
