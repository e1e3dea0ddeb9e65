// Inner products of many columns: a product of panels that are read number by number with panels that are turned, so
// that vectors lie over columns and no sum over lanes is left. SPDX-License-Identifier: BSD-3-Clause
//
// Turned: unit u of column b at [(b / 16 * wide_units + u) * 16 + b % 16]. One accumulator an entry, units in order.
#pragma once
#include "kernels/matrix_free.hpp"
#include "kernels/simd-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

// Rows of a tile: up to three times `some`, which divides a panel; two vectors of columns.
#if defined(PK_AVX512)
constexpr int some = 4;
#else
constexpr int some = 2;
#endif

// `panels` panels of a block of B columns, from `stride` numbers to the next; S is T or double.
template <class S, class T> static void turn_as(const T* from, int64_t B, int64_t stride, int panels, S* out) {
  constexpr int n = lanes<T>;
  for (int64_t b = 0; b < B; b += n) {
    const int64_t last = B - b < n ? B - b : n;
    for (int p = 0; p < panels; p++)
      for (int part = 0; part < panel_lanes; part += n) {
        Vec<T> v[n];
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) v[i] = i < last ? load(from + p * stride + (b + i) * panel_lanes + part) : Vec<T>{};
        transpose<T>(v);
        S* to = out + (b / panel_lanes * wide_units<S> + p * panel_lanes + part) * panel_lanes + b % panel_lanes;
#pragma GCC unroll 16
        for (int i = 0; i < n; i++)
          if constexpr (sizeof(S) == sizeof(T)) {
            store(to + i * panel_lanes, v[i]);
          } else {
            store(to + i * panel_lanes, part_of<S>(v[i], 0));
            store(to + i * panel_lanes + lanes<S>, part_of<S>(v[i], lanes<S>));
          }
      }
  }
  for (int64_t b = (B + n - 1) / n * n; b % panel_lanes; b += n)
    for (int u = 0; u < panels * panel_lanes; u++) {
      S* to = out + (b / panel_lanes * wide_units<S> + u) * panel_lanes + b % panel_lanes;
      for (int o = 0; o < n; o += lanes<S>) store(to + o, Vec<S>{});
    }
}
template <class T> void turn(const T* from, int64_t B, int64_t stride, int panels, bool careful, void* out) {
  if (careful)
    turn_as<double>(from, B, stride, panels, (double*)out);
  else
    turn_as<T>(from, B, stride, panels, (T*)out);
}

template <class T> void widen_numbers(const T* from, int64_t count, double* out) {
  for (int64_t i = 0; i < count; i += lanes<double>) store(out + i, load_as<double>(from + i));
}

// found[row * width + column] over `panels` panels. x: of each group of rows, its numbers one after the other where
// `turned`, else 16 apart.
template <bool turned, int groups, int size, int vectors, class S>
static void wide_tile(const S* const (&rows)[3], const S* const (&columns)[2], int64_t panel, int panels, S* found) {
  const S *x[groups], *y[vectors];
  for (int g = 0; g < groups; g++) x[g] = rows[g];
  for (int v = 0; v < vectors; v++) y[v] = columns[v];
  Vec<S> acc[groups * size][vectors] = {};
  for (int p = 0; p < panels; p++) {
    if (!turned && p + 1 < panels)  // a stride that the processor does not foresee
      for (int i = 0; i < groups * size; i++) __builtin_prefetch(x[0] + panel + i * panel_lanes);
#pragma GCC unroll 2
    for (int u = 0; u < panel_lanes; u++) {
      Vec<S> ys[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) ys[v] = load(y[v]), hold(ys[v]), y[v] += panel_lanes;
#pragma GCC unroll 12
      for (int i = 0; i < groups * size; i++) {
        const Vec<S> xi = broadcast(x[i / size][i % size * (turned ? 1 : panel_lanes)]);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) acc[i][v] = fma(ys[v], xi, acc[i][v]);
      }
#pragma GCC unroll 3
      for (int g = 0; g < groups; g++) x[g] += turned ? panel_lanes : 1;
    }
    if (!turned)
      for (int g = 0; g < groups; g++) x[g] += panel - panel_lanes;
  }
#pragma GCC unroll 12
  for (int i = 0; i < groups * size; i++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) store(found + (i * 2 + v) * lanes<S>, acc[i][v]);
}

template <bool turned, int vectors, class S>
PK_INLINE int wide_rows(int64_t left, const S* const (&x)[3], const S* const (&y)[2], int64_t panel, int panels,
                        S* found) {
  if (left >= 3 * some) return wide_tile<turned, 3, some, vectors>(x, y, panel, panels, found), 3 * some;
  if (left >= 2 * some) return wide_tile<turned, 2, some, vectors>(x, y, panel, panels, found), 2 * some;
  if (left >= some) return wide_tile<turned, 1, some, vectors>(x, y, panel, panels, found), some;
  if constexpr (some > 2) {
    if (left == 3) return wide_tile<turned, 1, 3, vectors>(x, y, panel, panels, found), 3;
    if (left == 2) return wide_tile<turned, 1, 2, vectors>(x, y, panel, panels, found), 2;
  }
  return wide_tile<turned, 1, 1, vectors>(x, y, panel, panels, found), 1;
}

template <class S> PK_INLINE void add_to(double* to, const S* found, int64_t count, bool add) {
  int64_t k = 0;
  for (; k + lanes<double> <= count; k += lanes<double>) {
    const F64 sum = load_as<double>(found + k);
    store(to + k, add ? load(to + k) + sum : sum);
  }
  for (; k < count; k++) to[k] = add ? to[k] + (double)found[k] : (double)found[k];
}

// Rows j .. end - 1 with `vectors` vectors of columns from b on.
template <bool turned, int vectors, class S>
PK_INLINE void wide_strip(const S* a, int64_t a_panel, int64_t j, int64_t end, const S* y, int64_t b, int64_t count,
                          int panels, bool add, double* out, int64_t stride) {
  const auto column = [](const S* of, int64_t at) {
    return of + at / panel_lanes * wide_units<S> * panel_lanes + at % panel_lanes;
  };
  alignas(64) S found[3 * some * 2 * lanes<S>];
  const S* ys[2] = {column(y, b), column(y, vectors > 1 ? b + lanes<S> : b)};
  while (j < end) {
    const S* x[3];
    for (int g = 0; g < 3; g++) x[g] = turned ? column(a, j + g * some) : a + (j + g * some) * panel_lanes;
    for (int64_t i = j; add && i < j + 3 * some && i < end; i++)
      for (int k = 0; k < vectors * lanes<S>; k += 64 / (int)sizeof(double))
        __builtin_prefetch(out + i * stride + b + k, 1, 2);
    const int rows = wide_rows<turned, vectors>(end - j, x, ys, a_panel, panels, found);
    for (int i = 0; i < rows; i++) add_to(out + (j + i) * stride + b, found + i * 2 * lanes<S>, count, add);
    j += rows;
  }
}

template <bool turned, class S>
static void multiply_as(const S* a, int64_t a_panel, int64_t J, const S* y, int64_t b0, int64_t b1, int panels,
                        bool triangle, bool add, double* out, int64_t stride) {
  constexpr int64_t n = lanes<S>, width = 2 * n;
  for (int64_t b = b0; b < b1; b += width) {
    const int64_t count = b1 - b < width ? b1 - b : width, end = triangle && b + count < J ? b + count : J;
    const int64_t both = count <= n ? 0 : triangle && b + n < end ? b + n : end;  // the last rows of a triangle: one
    if (both) wide_strip<turned, 2>(a, a_panel, 0, both, y, b, count, panels, add, out, stride);
    const int64_t skipped = both ? n : 0;
    wide_strip<turned, 1>(a, a_panel, both, end, y, b + skipped, count - skipped, panels, add, out, stride);
  }
}
template <class S>
PK_INLINE void multiply_any(const void* a, int64_t a_panel, int64_t J, const void* y, int64_t b0, int64_t b1,
                            int panels, bool triangle, bool add, double* out, int64_t stride) {
  if (triangle)
    multiply_as<true>((const S*)a, a_panel, J, (const S*)y, b0, b1, panels, true, add, out, stride);
  else
    multiply_as<false>((const S*)a, a_panel, J, (const S*)y, b0, b1, panels, false, add, out, stride);
}
template <class T>
void multiply(const void* a, int64_t a_panel, int64_t J, const void* y, int64_t b0, int64_t b1, int panels,
              bool careful, bool triangle, bool add, double* out, int64_t stride) {
  if (careful)
    multiply_any<double>(a, a_panel, J, y, b0, b1, panels, triangle, add, out, stride);
  else
    multiply_any<T>(a, a_panel, J, y, b0, b1, panels, triangle, add, out, stride);
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
