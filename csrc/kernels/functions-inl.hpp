// Loops over a block in which a function of numbers is evaluated: one over vectors, or the user's own, which is called
// back. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/elementwise.hpp"
#include "kernels/maths-inl.hpp"
#include "pykernel/callback.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

PK_INLINE int64_t panels(int64_t units) { return (units + 15) / 16; }

// Sums over a block of what `element(offset)` gives; lanes beyond the last unit are made zero first.
template <class T, class F> PK_INLINE Sums reduce(int64_t units, int64_t B, F element) {
  Vec<T> sum[panel_vectors<T>] = {}, square[panel_vectors<T>] = {}, largest[panel_vectors<T>] = {};
  const int64_t full = units / 16 * B * 16;
  for (int64_t o = 0; o < full; o += 16)
    for (int j = 0; j < panel_vectors<T>; j++) {
      const Vec<T> x = element(o + j * lanes<T>, Bits<T>{} == 0);
      sum[j] += x, square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]);
    }
  if (const int valid = (int)(units % 16))
    for (int64_t o = full; o < full + 16 * B; o += 16)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const Vec<T> x = element(o + j * lanes<T>, lane_numbers<T>(j) < (T)valid);
        sum[j] += x, square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]);
      }
  return {(double)sum_lanes<T>(sum), (double)sum_lanes<T>(square), (double)max_lanes<T>(largest)};
}

template <class T, class Phi>
Sums value_kernel(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters) {
  const Phi phi(parameters);
  return reduce<T>(units, B, [&](int64_t o, Bits<T> live) {
    const Vec<T> x = live ? phi.value(load(z + o) * in) * out : Vec<T>{};
    store(v + o, x);
    return x;
  });
}

// out = g slope(offset), and what is counted of slopes
template <class T, class F>
PK_INLINE SlopeSums slopes_of(const T* g, T* out, int64_t units, int64_t B, T threshold, F slope) {
  Vec<T> square[panel_vectors<T>] = {}, largest[panel_vectors<T>] = {};
  Bits<T> saturated[panel_vectors<T>] = {}, dead[panel_vectors<T>] = {};
  for (int64_t o = 0, left = units; left > 0; o += 16 * B, left -= 16) {
    Bits<T> flat[panel_vectors<T>];
    for (int j = 0; j < panel_vectors<T>; j++) flat[j] = lane_numbers<T>(j) < (T)(left < 16 ? left : 16);
    Bits<T> live[panel_vectors<T>];
    for (int j = 0; j < panel_vectors<T>; j++) live[j] = flat[j];
    for (int64_t b = 0; b < B; b++)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const int64_t i = o + b * 16 + j * lanes<T>;
        const Vec<T> s = slope(i), x = live[j] ? load(g + i) * s : Vec<T>{};
        store(out + i, x);
        saturated[j] += (abs(s) < threshold) & live[j];
        flat[j] &= s == 0;
        square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]);
      }
    for (int j = 0; j < panel_vectors<T>; j++) dead[j] += flat[j];
  }
  SlopeSums sums = {(double)sum_lanes<T>(square), (double)max_lanes<T>(largest), 0, 0};
  for (int j = 0; j < panel_vectors<T>; j++)
    for (int i = 0; i < lanes<T>; i++) sums.saturated -= saturated[j][i], sums.dead -= dead[j][i];
  return sums;
}

template <class T, class Phi>
SlopeSums slope_kernel(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold,
                       const double* parameters) {
  const Phi phi(parameters);
  return slopes_of<T>(g, out, units, B, threshold,
                      [&](int64_t i) __attribute__((always_inline)) { return phi.slope(load(z + i) * in); });
}

// The user's own function, compiled elsewhere: parameters point to a Callback. Pieces of it at z * in, which need not
// be in place.
constexpr int64_t callback_piece = 1024;

PK_INLINE bool has_own(const Callback& f, float) { return f.value_f32 && f.slope_f32; }
PK_INLINE bool has_own(const Callback&, double) { return true; }
PK_INLINE void call_own(const Callback& f, bool slope, const float* z, float* out, int64_t n) {
  (slope ? f.slope_f32 : f.value_f32)(z, out, n, f.user);
}
PK_INLINE void call_own(const Callback& f, bool slope, const double* z, double* out, int64_t n) {
  (slope ? f.slope_f64 : f.value_f64)(z, out, n, f.user);
}
template <class T>
static void call_back(const double* parameters, bool slope, const T* source, T* out, int64_t n, T in) {
  const Callback& f = *(const Callback*)parameters;
  alignas(64) double wide_z[callback_piece], wide_out[callback_piece];
  alignas(64) T z[callback_piece];
  if (has_own(f, T(0))) {
    if (in == 1) return call_own(f, slope, source, out, n);
    for (int64_t i = 0; i < n; i += lanes<T>) store(z + i, load(source + i) * in);
    return call_own(f, slope, z, out, n);
  }
  int64_t i = 0;
  do wide_z[i] = (double)(source[i] * in);
  while (++i < n);  // n is at least 1, which this form tells the compiler
  call_own(f, slope, wide_z, wide_out, n);
  for (i = 0; i < n; i++) out[i] = (T)wide_out[i];
}

template <class T>
Sums value_callback(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters) {
  const int64_t n = panels(units) * 16 * B;
  for (int64_t o = 0; o < n; o += callback_piece)
    call_back(parameters, false, z + o, v + o, n - o < callback_piece ? n - o : callback_piece, in);
  return reduce<T>(units, B, [&](int64_t o, Bits<T> live) {
    const Vec<T> x = live ? load(v + o) * out : Vec<T>{};
    store(v + o, x);
    return x;
  });
}

// Slopes are asked for a piece at a time and then handed out panel by panel, as a function over vectors would give
// them.
template <class T>
SlopeSums slope_callback(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold,
                         const double* parameters) {
  alignas(64) T slopes[callback_piece];
  const int64_t n = panels(units) * 16 * B;
  int64_t from = 0, to = 0;
  return slopes_of<T>(g, out, units, B, threshold, [&](int64_t i) {
    if (i >= to) {
      from = i, to = n - i < callback_piece ? n : i + callback_piece;
      call_back(parameters, true, z + from, slopes, to - from, in);
    }
    return load(slopes + i - from);
  });
}

constexpr ActivationRow of_callback = {"callback", nullptr, 1, 1, 1, 1, 0, 1, true};

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
