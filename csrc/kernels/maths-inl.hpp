// Elementary functions for the activations: straight-line single precision over vectors; libm, lane by lane, in double
// precision. SPDX-License-Identifier: BSD-3-Clause
//
// Polynomials are Chebyshev interpolants of relative error below 5e-8, found with 40 digits. Errors stated are the
// largest seen over dense samples, in units in the last place of the result.
#pragma once
#include <math.h>

#include "kernels/simd-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

PK_INLINE F32 power_of_two(I32 k) { return from_bits((k + 127) << 23); }  // -126 <= k <= 127

PK_INLINE F32 horner(F32, F32 c) { return c; }
template <class... C> PK_INLINE F32 horner(F32 x, F32 accumulated, float next, C... rest) {
  return horner(x, fma(accumulated, x, broadcast(next)), rest...);
}
// coefficients from the highest power down
template <class... C> PK_INLINE F32 polynomial(F32 x, float first, C... rest) {
  return horner(x, broadcast(first), rest...);
}

// (e^r - 1 - r) / r^2, |r| <= log(2) / 2
PK_INLINE F32 exp_remainder(F32 r) {
  return polynomial(r, 0.0001989098087f, 0.001393364103f, 0.008333310934f, 0.04166646501f, 0.1666666668f, 0.5f);
}

// x = k log 2 + r
PK_INLINE F32 exp_reduce(F32 x, I32& k) {
  const F32 rounded = round_even(x * 1.44269504f);
  k = round_to_int(rounded);
  return fma(rounded, broadcast(2.12194440e-4f), fma(rounded, broadcast(-0.693359375f), x));
}

// e^x; max error 1.5 ULP where the result is normal, correct to the last subnormal below
PK_INLINE F32 exp(F32 x) {
  x = min(broadcast(89.f), max(broadcast(-104.f), x));
  I32 k;
  const F32 r = exp_reduce(x, k);
  const F32 p = fma(r * r, exp_remainder(r), r) + 1.f;
  const I32 half = k >> 1;
  return p * power_of_two(half) * power_of_two(k - half);
}

// e^-y for y = hi + lo with |lo| << hi
PK_INLINE F32 exp_minus(F32 hi, F32 lo) {
  const F32 e = exp(-hi);
  return fma(e, -lo, e);
}

// e^x - 1 for x <= 0; max error 2 ULP
PK_INLINE F32 expm1_negative(F32 x) {
  x = max(broadcast(-30.f), x);
  I32 k;
  const F32 r = exp_reduce(x, k);
  const F32 p = fma(r * r, exp_remainder(r), r);
  const F32 two_k = power_of_two(k);
  return fma(p, two_k, two_k - 1.f);
}

// log(1 + y) for 0 <= y <= 1; max error 2 ULP
PK_INLINE F32 log1p_unit(F32 y) {
  const F32 s = y / (y + 2.f), t = s * s;
  const F32 p = polynomial(t, 0.1161216461f, 0.108532879f, 0.14296179f, 0.1999985317f, 0.3333333366f);
  const F32 twice = s + s;
  return fma(twice * t, p, twice);
}

// density * Mills ratio = upper tail of the standard normal at y >= 0; the ratio is a polynomial in (y - 3) / (y + 3),
// over y + 1.25
PK_INLINE F32 mills(F32 y) {
  const F32 q = (y - 3.f) / (y + 3.f);
  const F32 p =
      polynomial(q, 0.0001492274581f, 0.000113901814f, -0.001124700529f, -0.001116415485f, 0.006882091598f,
                 0.004732544442f, -0.0531240951f, 0.08424899433f, 0.03603006958f, -0.3713003558f, 1.29450877f);
  return p / (y + 1.25f);
}
// standard normal density, full relative precision in the tails
PK_INLINE F32 density(F32 y) {
  y = min(broadcast(20.f), abs(y));
  const F32 hi = y * y, lo = fma(y, y, -hi);
  return exp_minus(hi * .5f, lo * .5f) * 0.39894228f;
}

// e^(-x^2); max error 2 ULP
PK_INLINE F32 gaussian(F32 x) {
  x = min(broadcast(12.f), abs(x));
  const F32 hi = x * x;
  return exp_minus(hi, fma(x, x, -hi));
}

// erf; max error 2 ULP
PK_INLINE F32 erf(F32 x) {
  const F32 y = abs(x), t = x * x;
  const F32 small = x * polynomial(t, 7.875875063e-5f, -0.0008016864287f, 0.005189087423f, -0.02685421201f,
                                   0.1128359472f, -0.3761262667f, 1.128379166f);
  const F32 scaled = y * 1.41421356f;
  const F32 large = 1.f - 2.f * density(scaled) * mills(scaled);
  return y < 1.f ? small : copysign(large, x);
}

// arctangent; max error 2 ULP
PK_INLINE F32 atan(F32 x) {
  const F32 y = abs(x);
  const I32 flip = y > 1.f;
  const F32 s = flip ? 1.f / y : y, t = s * s;
  const F32 p = polynomial(t, -0.002386997317f, 0.01350777143f, -0.03587153898f, 0.06250169445f, -0.0865688043f,
                           0.1103376412f, -0.1427856875f, 0.1999973933f, -0.3333333173f);
  const F32 a = fma(s * t, p, s);
  return copysign(flip ? 1.57079633f - a : a, x);
}

// sin(x + quarter pi / 2); beyond 8192 by libm, since three words of pi no longer reduce
PK_INLINE F32 sine(F32 x, int quarter) {
  const F32 k = round_even(x * 0.636619772f);
  F32 r = fma(k, broadcast(-1.57079637f), x);
  r = fma(k, broadcast(4.37113883e-8f), r);
  const I32 q = round_to_int(min(max(k, broadcast(-1e6f)), broadcast(1e6f))) + quarter;
  const F32 t = r * r;
  const F32 s = fma(r * t, polynomial(t, 2.72499258e-6f, -0.0001984008674f, 0.008333331875f, -0.1666666666f), r);
  const F32 c = fma(t * t, polynomial(t, -2.73009592e-7f, 2.480060038e-5f, -0.001388888767f, 0.04166666666f),
                    fma(t, broadcast(-.5f), broadcast(1.f)));
  const F32 magnitude = (q & 1) != 0 ? c : s;
  F32 result = (q & 2) != 0 ? -magnitude : magnitude;
  const F32 large = abs(x);
  for (int i = 0; i < lanes<float>; i++)
    if (large[i] > 8192.f) result[i] = (float)(quarter ? ::cos((double)x[i]) : ::sin((double)x[i]));
  return result;
}

// upper tail of the standard normal at y >= 0; max relative error 3e-7 down to the last normal number
PK_INLINE F32 normal_tail(F32 y) { return density(y) * mills(y); }

PK_INLINE F64 lanewise(F64 x, double (*f)(double)) {
  for (int i = 0; i < lanes<double>; i++) x[i] = f(x[i]);
  return x;
}
PK_INLINE F64 exp(F64 x) { return lanewise(x, ::exp); }
PK_INLINE F64 expm1_negative(F64 x) { return lanewise(x, ::expm1); }
PK_INLINE F64 log1p_unit(F64 y) { return lanewise(y, ::log1p); }
PK_INLINE F64 erf(F64 x) { return lanewise(x, ::erf); }
PK_INLINE F64 atan(F64 x) { return lanewise(x, ::atan); }
PK_INLINE F64 tanh(F64 x) { return lanewise(x, ::tanh); }
PK_INLINE F64 sine(F64 x, int quarter) { return quarter ? lanewise(x, ::cos) : lanewise(x, ::sin); }
PK_INLINE F64 gaussian(F64 x) { return exp(-(x * x)); }
PK_INLINE F64 density(F64 y) { return exp(y * y * -.5) * 0.39894228040143267794; }
PK_INLINE F64 normal_tail(F64 y) { return lanewise(y * 0.70710678118654752440, ::erfc) * .5; }

// tanh; max error 3 ULP
PK_INLINE F32 tanh(F32 x) {
  const F32 t = expm1_negative(abs(x) * -2.f);
  return copysign(-t / (t + 2.f), x);
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
