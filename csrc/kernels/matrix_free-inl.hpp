// The kernels of the matrix-free layer.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/matrix_free.hpp"
#include "kernels/tall-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

#if defined(PK_AVX512)
constexpr int sums_in_registers = 24, tile_rows = 4, tile_columns = 6;
#else
constexpr int sums_in_registers = 12, tile_rows = 3, tile_columns = 4;
#endif
template <class S> constexpr int partials = sizeof(S) == 4 ? 16 : 8;  // lanes of an inner product

// -- columns

template <class T> void draw(const Draws& g, int64_t group, int64_t n, T* out, int64_t column, int64_t panel) {
  Keys keys;
  expand(keys, g.seed);
  const auto line_of = [&](int64_t j) { return (uint32_t)g.columns[j]; };
  normals_of_group(keys, g.purpose_layer, g.replica, group, n, g.count, line_of, group_panels, out, column, panel);
}

// -- inner products

// found[i * columns + k] = sum of x[i] y[k] over `panels` panels
template <int rows, int columns, class S, class T>
PK_INLINE void inner_tile(const T* const (&x)[rows], const T* const (&y)[columns], int64_t x_panel, int64_t y_panel,
                          int panels, S* found) {
  constexpr int width = partials<S>, n = lanes<S>, all = (rows * columns + n - 1) / n * n;
  alignas(64) S sums[all * width];
  for (int i = rows * columns * width; i < all * width; i += n) store(sums + i, Vec<S>{});
  for (int o = 0; o < width; o += n) {
    Vec<S> acc[rows][columns] = {};
    for (int64_t p = 0; p < panels; p++)
#pragma GCC unroll 2
      for (int half = 0; half < panel_lanes; half += width) {
        Vec<S> xs[rows];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) xs[i] = load_as<S>(x[i] + p * x_panel + half + o), hold(xs[i]);
#pragma GCC unroll 8
        for (int k = 0; k < columns; k++) {
          Vec<S> yk = load_as<S>(y[k] + p * y_panel + half + o);
          hold(yk);
#pragma GCC unroll 8
          for (int i = 0; i < rows; i++) acc[i][k] = fma(xs[i], yk, acc[i][k]);
        }
      }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
      for (int k = 0; k < columns; k++) store(sums + (i * columns + k) * width + o, acc[i][k]);
  }
  for (int i = 0; i < all; i += n) store(found + i, sum_lanes_of<S, width>(sums + i * width, width));
}

// One strip of columns from b with all rows; what lies beyond the last row or column is taken twice and dropped.
template <int columns, class S, class T>
static void inner_strip(const Columns<T>& a, int64_t J, const Columns<T>& y, int64_t b, int64_t b1, int panels,
                        bool triangle, bool add, double* out, int64_t stride) {
  const T *x[tile_rows], *ys[columns];
  for (int k = 0; k < columns; k++) ys[k] = y.data + (b + k < b1 ? b + k : b1 - 1) * y.column;
  const int64_t last = b1 - b < columns ? b1 - b : columns;
  for (int64_t j = 0; j < (triangle && b + last < J ? b + last : J); j += tile_rows) {
    S found[tile_rows * columns + lanes<S>];
    for (int i = 0; i < tile_rows; i++) x[i] = a.data + (j + i < J ? j + i : J - 1) * a.column;
    inner_tile<tile_rows, columns, S>(x, ys, a.panel, y.panel, panels, found);
    for (int64_t i = 0; i < tile_rows && j + i < J; i++)
      for (int64_t k = 0; k < last; k++) {
        double& to = out[(j + i) * stride + b + k];
        to = add ? to + (double)found[i * columns + k] : (double)found[i * columns + k];
      }
  }
}
template <int columns, class S, class T>
PK_INLINE void inner_strips(int64_t wanted, const Columns<T>& a, int64_t J, const Columns<T>& y, int64_t b, int64_t b1,
                            int panels, bool triangle, bool add, double* out, int64_t stride) {
  if constexpr (columns > 2)
    if (wanted <= columns - 2)
      return inner_strips<columns - 2, S>(wanted, a, J, y, b, b1, panels, triangle, add, out, stride);
  inner_strip<columns, S>(a, J, y, b, b1, panels, triangle, add, out, stride);
}
template <class T>
void inner(const Columns<T>& a, int64_t J, const Columns<T>& y, int64_t b0, int64_t b1, int panels, bool careful,
           bool triangle, bool add, double* out, int64_t stride) {
  for (int64_t b = b0; b < b1; b += tile_columns)
    if (careful)
      inner_strips<tile_columns, double>(b1 - b, a, J, y, b, b1, panels, triangle, add, out, stride);
    else
      inner_strips<tile_columns, T>(b1 - b, a, J, y, b, b1, panels, triangle, add, out, stride);
}

// -- small linear combinations

// Columns of a factor come in strips of up to three thirds, as many sums as there are registers for with two vectors at
// a time: parts of a panel, or two panels.
template <class S> constexpr int third = sums_in_registers / 2 / 3;
template <class S> PK_INLINE int strip_width(int64_t left) {
  return left > 2 * third<S> ? 3 * third<S> : left > third<S> ? 2 * third<S> : third<S>;
}

// For each strip how many rows reach it (the factor is nearly triangular), then its rows one after the other.
template <class S> PK_INLINE void pack_as(const double* F, int64_t stride, int64_t rows, int64_t B, void* out) {
  int64_t* depth = (int64_t*)out;
  S* to = (S*)(depth + (B + 7) / 8 * 8);
  for (int64_t b = 0; b < B;) {
    const int width = strip_width<S>(B - b);
    *depth = 0;
    for (int64_t k = 0; k < rows; k++, to += width)
      for (int64_t t = 0; t < width; t++) {
        to[t] = b + t < B ? (S)F[k * stride + b + t] : S(0);
        if (to[t] != 0) *depth = k + 1;
      }
    depth++, b += width;
  }
}
template <class T> void pack(const double* F, int64_t stride, int64_t rows, int64_t B, bool careful, void* out) {
  if (careful)
    pack_as<double>(F, stride, rows, B, out);
  else
    pack_as<T>(F, stride, rows, B, out);
}

template <int width, int vectors, class S, class T>
PK_INLINE void combine_part(const T* const (&x)[vectors], int64_t column, int64_t depth, const S* F, int64_t count,
                            bool add, T* const (&z)[vectors]) {
  Vec<S> acc[width][vectors] = {};
  if (add)
    for (int t = 0; t < count; t++)
      for (int v = 0; v < vectors; v++) acc[t][v] = load_as<S>(z[v] + t * panel_lanes);
  const T* source[vectors];
  for (int v = 0; v < vectors; v++) source[v] = x[v];
  for (int64_t k = 0; k < depth; k++, F += width) {
    Vec<S> xs[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) xs[v] = load_as<S>(source[v]), hold(xs[v]), source[v] += column;
#pragma GCC unroll 24
    for (int t = 0; t < width; t++)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) acc[t][v] = fma(xs[v], broadcast(F[t]), acc[t][v]);
  }
#pragma GCC unroll 24
  for (int t = 0; t < width; t++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++)
      if (t < count) {
        if constexpr (sizeof(S) == sizeof(T))
          store(z[v] + t * panel_lanes, acc[t][v]);
        else
          store(z[v] + t * panel_lanes, narrow(acc[t][v]));
      }
}

template <int width, class S, class T>
static void combine_strip(const Columns<T>& x, int64_t depth, const S* F, int64_t count, int64_t room, int panels,
                          bool add, T* z) {
  constexpr int n = lanes<S>, per_panel = panel_lanes / n;
  const int64_t all = panels * per_panel;
  for (int64_t part = 0; part < all; part += 2) {
    const int64_t p = part / per_panel, o = part % per_panel * n, q = (part + 1) / per_panel,
                  r = (part + 1) % per_panel * n;
    const T* from = x.data + p * x.panel + o;
    T* to = z + p * room * panel_lanes + o;
    if (part + 1 < all)
      combine_part<width, 2, S, T>({from, x.data + q * x.panel + r}, x.column, depth, F, count, add,
                                   {to, z + q * room * panel_lanes + r});
    else
      combine_part<width, 1, S, T>({from}, x.column, depth, F, count, add, {to});
  }
}
template <class S, class T>
PK_INLINE void combine_as(const Columns<T>& x, int64_t rows, const void* factor, int64_t B, int panels, bool add, T* z,
                          int64_t room) {
  const int64_t* depth = (const int64_t*)factor;
  const S* F = (const S*)(depth + (B + 7) / 8 * 8);
  for (int64_t b = 0; b < B;) {
    const int width = strip_width<S>(B - b);
    const int64_t count = B - b < width ? B - b : width;
    if (width == 3 * third<S>)
      combine_strip<3 * third<S>>(x, *depth, F, count, room, panels, add, z + b * 16);
    else if (width == 2 * third<S>)
      combine_strip<2 * third<S>>(x, *depth, F, count, room, panels, add, z + b * 16);
    else
      combine_strip<third<S>>(x, *depth, F, count, room, panels, add, z + b * 16);
    depth++, F += rows * width, b += width;
  }
}
template <class T>
void combine(const Columns<T>& x, int64_t rows, const void* F, int64_t B, int panels, bool careful, bool add, T* z,
             int64_t room) {
  if (careful)
    combine_as<double>(x, rows, F, B, panels, add, z, room);
  else
    combine_as<T>(x, rows, F, B, panels, add, z, room);
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
