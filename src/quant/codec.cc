// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/codec.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

#include "base/checked.h"
#include "base/error.h"

namespace winnow::quant {

#define CODEC(name) extern const Codec name;
#include "quant/codecs/registry.def"
#undef CODEC

namespace {

constexpr std::array kCodecs = {
#define CODEC(name) &name,
#include "quant/codecs/registry.def"
#undef CODEC
};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::toupper(x) == std::toupper(y);
  });
}

}  // namespace

std::span<const Codec* const> all_codecs() { return kCodecs; }

const Codec* find_codec(std::string_view name) {
  const auto found = std::find_if(kCodecs.begin(), kCodecs.end(), [&](const Codec* codec) {
    return equal_ignoring_case(codec->name, name);
  });
  return found == kCodecs.end() ? nullptr : *found;
}

const Codec* find_codec_by_ggml_type(std::uint32_t ggml_type) {
  const auto found = std::find_if(kCodecs.begin(), kCodecs.end(), [&](const Codec* codec) {
    return codec->ggml_type == ggml_type;
  });
  return found == kCodecs.end() ? nullptr : *found;
}

std::string codec_names() {
  std::string names;
  for (const Codec* codec : kCodecs) {
    if (!names.empty()) names += ' ';
    names += codec->name;
  }
  return names;
}

const Codec& codec_for_row(const Codec& wanted, std::uint64_t row_length) {
  const Codec* codec = &wanted;
  while (row_length % codec->block_size != 0) {
    codec = find_codec(codec->fallback);
    WINNOW_CHECK(codec != nullptr);
  }
  return *codec;
}

std::optional<Bytes> packed_size(const Codec& codec, const tensor::Shape& shape) {
  if (shape.row_length() % codec.block_size != 0) return std::nullopt;
  const auto elements = shape.checked_elements();
  if (!elements) return std::nullopt;
  const auto bytes = checked_mul(*elements / codec.block_size, codec.block_bytes);
  if (!bytes) return std::nullopt;
  return Bytes{*bytes};
}

}  // namespace winnow::quant
