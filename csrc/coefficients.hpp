// Small matrices of coefficients, in double, on their way to products with blocks of any precision.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace pykernel {

inline double largest(const double* x, int64_t n) {
  double m[8] = {};
  for (int64_t i = 0; i < n; i += 8)
    for (int j = 0; j < 8; j++) m[j] = m[j] > fabs(x[i + j]) ? m[j] : fabs(x[i + j]);
  return *std::max_element(m, m + 8);
}

// Whether float would lose some coefficient, or what it multiplies.
inline bool uneven(const double* x, int64_t n) {
  return std::any_of(x, x + n, [](double c) { return c != 0 && !(fabs(c) > 0x1p-80 && fabs(c) < 0x1p60); });
}

// Multiplies matrices of so many numbers by scale / 2^e and returns e, chosen so that numbers of size `top` times the
// factor stay in range of float.
inline int64_t fold(double scale, double top, std::initializer_list<std::pair<double*, int64_t>> matrices) {
  int e = 0;
  const double mantissa = frexp(scale, &e);
  const int h = top > 0 ? ilogb(top) : 0, shift = h < -40 || h > 40 ? h : 0;
  if (abs(e) <= 20) e = 0;
  const double factor = ldexp(e ? mantissa : scale, -shift);
  for (const auto& [x, count] : matrices)
    for (int64_t i = 0; i < count; i++) x[i] *= factor;
  return e + shift;
}

}  // namespace pykernel
