// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The int8 form of activations, written with the words of the ISA whose namespace includes it.
// Every operation is exact or rounded once, as in the scalar reference, so that the bits agree.

/// As the reference: 0 when no normal number, NaN when the block holds an infinity or a NaN.
/// `largest_bits` are the bits of the largest magnitude, above infinity's when there is a NaN.
inline float activation_scale(std::int32_t largest_bits) {
  if (largest_bits >= 0x7f800000) return std::numeric_limits<float>::quiet_NaN();
  const float scale = std::bit_cast<float>(largest_bits) / 127.0F;
  return scale >= std::numeric_limits<float>::min() ? scale : 0.0F;
}

void quantize_activations(const float* x, std::size_t n, std::int8_t* codes, float* scales,
                          std::int32_t* sums) noexcept {
  static_assert(kActivationBlock % kLanes == 0 && kActivationSumGroup % kLanes == 0);
  for (std::size_t block = 0; block < n; block += kActivationBlock) {
    Ints largest = zero_ints();
    for (std::size_t j = 0; j < kActivationBlock; j += kLanes) {
      largest = max(largest, magnitude_bits(load(x + block + j)));
    }
    const float scale = activation_scale(reduce_max(largest));
    scales[block / kActivationBlock] = scale;
    for (std::size_t g = block; g < block + kActivationBlock; g += kActivationSumGroup) {
      Ints sum = zero_ints();
      for (std::size_t j = g; j < g + kActivationSumGroup; j += kLanes) {
        const Ints code = scale > 0 ? round(div(load(x + j), broadcast(scale))) : zero_ints();
        store_codes(codes + j, code);
        sum = add(sum, code);
      }
      sums[g / kActivationSumGroup] = reduce_add(sum);
    }
  }
}
