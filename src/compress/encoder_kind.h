// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which encoders pack matrices where no Hessian is asked, and which importances they get.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/moments.h"
#include "quant/encode_row.h"

namespace winnow::compress {

enum class EncoderKind : std::uint8_t {
  kOwn,    ///< the codecs' own, importances of experts with few tokens drawn towards their layer
  kStock,  ///< those with llama.cpp's bytes (quant/stock_encoders.h), importances as it takes them
};

/// Null for a codec that has no encoder of this kind.
quant::EncodeRow find_encoder(const quant::Codec& codec, EncoderKind kind);

/// Names of the codecs without one, separated by commas.
std::string codecs_without_encoder(EncoderKind kind);

/// What the encoder is told of a matrix's columns; empty: nothing. `moments` may be null.
std::vector<float> importance_for(EncoderKind kind, const InputMoments* moments, model::Role role,
                                  LayerId layer, ExpertId expert);

}  // namespace winnow::compress
