// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Rotation of queries and keys and the stored form of keys and values, written with the words of
// the ISA whose namespace includes it. Every operation is rounded as in the scalar reference, so
// that the bits agree. Limited by the scattered stores of a transposed key, head_dim to a token:
// nothing beside the projections that made it.

WINNOW_INLINE void rotate_pair(float* x, const float* cosines, const float* sines, std::size_t half,
                               std::size_t n) {
  const Floats a = load_first(x, n);
  const Floats b = load_first(x + half, n);
  const Floats c = load_first(cosines, n);
  const Floats s = load_first(sines, n);
  store_first(x, sub(mul(a, c), mul(b, s)), n);
  store_first(x + half, add(mul(b, c), mul(a, s)), n);
}

void rotate_halves(float* x, const float* cosines, const float* sines, std::size_t half) noexcept {
  for (std::size_t i = 0; i < half; i += kLanes) {
    const std::size_t n = half - i < kLanes ? half - i : kLanes;
    rotate_pair(x + i, cosines + i, sines + i, half, n);
  }
}

/// Codes of n <= KvLayout::kBlock elements, zeros up to the next multiple of kLanes; returns the
/// bits of their f16 scale.
WINNOW_INLINE std::uint16_t quantize_block(const float* x, std::size_t n, std::int8_t* codes) {
  Ints largest = zero_ints();
  for (std::size_t j = 0; j < n; j += kLanes) {
    const std::size_t count = n - j < kLanes ? n - j : kLanes;
    largest = max(largest, magnitude_bits(load_first(x + j, count)));
  }
  const std::int32_t bits = reduce_max(largest);
  const float wanted = bits >= 0x7f800000 ? std::numeric_limits<float>::quiet_NaN()
                                          : std::bit_cast<float>(bits) / 127.0F;
  const std::uint16_t stored = tensor::float_to_half(wanted);
  const float scale = tensor::half_to_float(stored);
  for (std::size_t j = 0; j < n; j += kLanes) {
    const std::size_t count = n - j < kLanes ? n - j : kLanes;
    Ints code = zero_ints();
    if (scale > 0) {
      const Floats quotient = div(load_first(x + j, count), broadcast(scale));
      code = round(min(broadcast(127.0F), max(broadcast(-127.0F), quotient)));
    }
    store_codes(codes + j, code);
  }
  return stored;
}

/// [n] elements to every kStrip-th place.
template <typename T>
WINNOW_INLINE void transpose_one(const T* from, std::size_t n, T* to) {
  for (std::size_t d = 0; d < n; ++d) to[d * KvLayout::kStrip] = from[d];
}

WINNOW_INLINE void store_codes_of(const KvLayout& layout, const float* key, const float* value,
                                  std::size_t lane, std::byte* key_strip, std::byte* value_strip) {
  auto* key_codes = reinterpret_cast<std::int8_t*>(key_strip);
  auto* value_codes = reinterpret_cast<std::int8_t*>(value_strip);
  auto* key_scales = reinterpret_cast<std::uint16_t*>(key_strip + layout.scales_offset());
  auto* value_scales = reinterpret_cast<std::uint16_t*>(value_strip + layout.scales_offset());
  for (std::size_t d = 0; d < layout.head_dim; d += KvLayout::kBlock) {
    const std::size_t rest = layout.head_dim - d;
    const std::size_t n = rest < KvLayout::kBlock ? rest : KvLayout::kBlock;
    std::int8_t codes[KvLayout::kBlock];
    key_scales[KvLayout::key_scale_index(lane, d)] = quantize_block(key + d, n, codes);
    transpose_one(codes, n, key_codes + KvLayout::key_index(lane, d));
    value_scales[layout.value_scale_index(lane, d)] =
        quantize_block(value + d, n, value_codes + layout.value_index(lane, d));
  }
}

/// Vectors that overlap the padding of a value's row put zeros there.
WINNOW_INLINE void store_halves(const KvLayout& layout, const float* key, const float* value,
                                std::size_t lane, std::byte* key_strip, std::byte* value_strip) {
  auto* halves = reinterpret_cast<std::uint16_t*>(key_strip);
  for (std::size_t d = 0; d < layout.head_dim; d += kLanes) {
    const std::size_t n = layout.head_dim - d < kLanes ? layout.head_dim - d : kLanes;
    std::uint16_t some[kLanes];
    store_f16(reinterpret_cast<std::byte*>(some), load_first(key + d, n));
    transpose_one(some, n, halves + KvLayout::key_index(lane, d));
    store_f16(value_strip + 2 * layout.value_index(lane, d), load_first(value + d, n));
  }
}

void store_key_value(const KvLayout& layout, const float* key, const float* value,
                     std::size_t position, std::byte* keys, std::byte* values) noexcept {
  const std::size_t lane = position % KvLayout::kStrip;
  const std::size_t strip = position / KvLayout::kStrip * layout.strip_bytes();
  switch (layout.type) {
    case KvType::kF32: {
      auto* key_floats = reinterpret_cast<float*>(keys + strip);
      auto* value_floats = reinterpret_cast<float*>(values + strip);
      transpose_one(key, layout.head_dim, key_floats + KvLayout::key_index(lane, 0));
      std::memcpy(value_floats + layout.value_index(lane, 0), value,
                  layout.head_dim * sizeof(float));
      break;
    }
    case KvType::kF16:
      store_halves(layout, key, value, lane, keys + strip, values + strip);
      break;
    case KvType::kQ8_0:
      store_codes_of(layout, key, value, lane, keys + strip, values + strip);
      break;
  }
}
