// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Operations on vectors of f32, written with the words of the ISA whose namespace includes it.
// The last n % kLanes elements go through the same operations on a partly filled vector.

#include "kernels/detail/exponential.inl"

/// Four sums, because one addition waits for the one before it.
float dot(const float* a, const float* b, std::size_t n) noexcept {
  Floats sums[4] = {broadcast(0.0F), broadcast(0.0F), broadcast(0.0F), broadcast(0.0F)};
  std::size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (std::size_t k = 0; k < 4; ++k) {
      sums[k] = fma(load(a + i + k * kLanes), load(b + i + k * kLanes), sums[k]);
    }
  }
  for (; i + kLanes <= n; i += kLanes) sums[0] = fma(load(a + i), load(b + i), sums[0]);
  if (i < n) sums[1] = fma(load_first(a + i, n - i), load_first(b + i, n - i), sums[1]);
  return reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

void axpy(float alpha, const float* x, float* y, std::size_t n) noexcept {
  const Floats factor = broadcast(alpha);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, fma(factor, load(x + i), load(y + i)));
  if (i < n) {
    store_first(y + i, fma(factor, load_first(x + i, n - i), load_first(y + i, n - i)), n - i);
  }
}

void rms_norm(const float* x, const float* weight, float epsilon, float* out,
              std::size_t n) noexcept {
  const float mean = dot(x, x, n) / static_cast<float>(n);
  const Floats inverse = div(broadcast(1.0F), sqrt(broadcast(mean + epsilon)));
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(out + i, mul(mul(load(x + i), inverse), load(weight + i)));
  }
  if (i < n) {
    const Floats scaled = mul(load_first(x + i, n - i), inverse);
    store_first(out + i, mul(scaled, load_first(weight + i, n - i)), n - i);
  }
}

WINNOW_INLINE Floats silu_times(Floats gate, Floats up) {
  const Floats decay = exp(sub(broadcast(0.0F), gate));
  return mul(div(gate, add(broadcast(1.0F), decay)), up);
}

void silu_mul(float* gate, const float* up, std::size_t n) noexcept {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(gate + i, silu_times(load(gate + i), load(up + i)));
  if (i < n) {
    const Floats last = silu_times(load_first(gate + i, n - i), load_first(up + i, n - i));
    store_first(gate + i, last, n - i);
  }
}

WINNOW_INLINE float largest_of(const float* x, std::size_t n) {
  Floats largest = broadcast(x[0]);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = max(largest, load(x + i));
  if (i < n) largest = max(largest, load_first_or(x + i, n - i, largest));
  return reduce_max(largest);
}

void softmax(float* x, std::size_t n) noexcept {
  const Floats largest = broadcast(largest_of(x, n));
  Floats sums = broadcast(0.0F);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats power = exp(sub(load(x + i), largest));
    store(x + i, power);
    sums = add(sums, power);
  }
  if (i < n) {
    store_first(x + i, exp(sub(load_first(x + i, n - i), largest)), n - i);
    sums = add(sums, load_first(x + i, n - i));  // read back: the unused lanes must add nothing
  }
  const Floats sum = broadcast(reduce_add(sums));
  for (i = 0; i + kLanes <= n; i += kLanes) store(x + i, div(load(x + i), sum));
  if (i < n) store_first(x + i, div(load_first(x + i, n - i), sum), n - i);
}
