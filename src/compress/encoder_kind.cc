// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/encoder_kind.h"

#include "quant/stock_encoders.h"

namespace winnow::compress {

quant::EncodeRow find_encoder(const quant::Codec& codec, EncoderKind kind) {
  return kind == EncoderKind::kStock ? quant::find_stock_encoder(codec) : codec.encode;
}

std::string codecs_without_encoder(EncoderKind kind) {
  std::string names;
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (find_encoder(*codec, kind) != nullptr) continue;
    names += (names.empty() ? "" : ", ") + std::string(codec->name);
  }
  return names;
}

std::vector<float> importance_for(EncoderKind kind, const InputMoments* moments, model::Role role,
                                  LayerId layer, ExpertId expert) {
  if (moments == nullptr) return {};
  return kind == EncoderKind::kStock ? moments->mean_squares(role, layer, expert)
                                     : moments->importance(role, layer, expert);
}

}  // namespace winnow::compress
