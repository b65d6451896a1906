// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// e^v, written with the words of the ISA whose namespace includes it: the only function that both
// the vector operations and attention need.
#pragma once

/// e^v by Cody and Waite's reduction v = n ln 2 + r, |r| <= ln(2) / 2, and e^r = 1 + r + r^2 p(r),
/// p of degree 4 fitted for the least largest relative error (4e-9 with these rounded
/// coefficients). At most 1.02 ulp from e^v where that is a normal number, 0.75 of the smallest
/// subnormal below (measured against f64 at every seventh float); 0 under -104, infinity where e^v
/// exceeds the largest float, NaN for NaN.
WINNOW_INLINE Floats exp(Floats v) {
  v = min(broadcast(89.0F), max(broadcast(-104.0F), v));  // this order of arguments keeps NaN
  const Ints n = round(mul(v, broadcast(0x1.715476p+0F)));
  const Floats whole = to_floats(n);
  Floats r = fnma(whole, broadcast(0x1.62e430p-1F), v);
  r = fnma(whole, broadcast(-0x1.05c610p-29F), r);
  Floats p = broadcast(0x1.6a2440p-10F);
  p = fma(p, r, broadcast(0x1.1239e8p-7F));
  p = fma(p, r, broadcast(0x1.5558f2p-5F));
  p = fma(p, r, broadcast(0x1.555492p-3F));
  p = fma(p, r, broadcast(0x1.fffffcp-2F));
  p = fma(mul(p, r), r, r);
  return scale_by_power(add(p, broadcast(1.0F)), n);
}
