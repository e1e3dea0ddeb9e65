// Products of a drawn (or kept, or given) weight matrix with a block: Z = W U and dU = W^T delta.
// SPDX-License-Identifier: BSD-3-Clause
//
// Weights are drawn in tiles that stay in L1 and used there at once, for all inputs. Register blocks are sized to the 16 (AVX-512: 32)
// names: 12 (24) vectors of accumulators, 8 at least, for two fused multiply-adds of 4 cycles at a time. Using each draw in the register
// where it is made saves a store and a load in L1 and nothing measurable, and costs 96 copies of the draws.
#pragma once
#include "kernels/draws-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

#if defined(PK_AVX512)
constexpr int accumulators = 24;
#else
constexpr int accumulators = 12;
#endif
constexpr int tile_panels = 4, tile_columns = 64;  // forward: 16 KiB of float draws
constexpr int deep_panels = 16, deep_columns = 16;  // backward: as many
template <class T> constexpr int block_inputs = sizeof(T) == 4 ? 6 : accumulators / panel_vectors<T> < 6 ? accumulators / panel_vectors<T> : 6;

// -- forward

// z[panel, b] += w u over n columns for `inputs` inputs and `count` panels; w at [k * 16 + lane] with a stride between panels.
template <class T, class W, int count, int inputs>
PK_INLINE void multiply(const W* w, int64_t w_stride, int n, const T* u, int64_t B, T* z, bool first, T scale, bool last) {
  constexpr int vectors = panel_vectors<T>, width = lanes<T>;
  Vec<T> acc[count][inputs][vectors];
#pragma GCC unroll 8
  for (int p = 0; p < count; p++)
#pragma GCC unroll 8
    for (int b = 0; b < inputs; b++)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) acc[p][b][v] = first ? Vec<T>{} : load(z + (p * B + b) * panel_lanes + v * width);
  for (int k = 0; k < n; k += panel_lanes, u += B * panel_lanes) {
    const int end = n - k < panel_lanes ? n - k : panel_lanes;
    for (int j = 0; j < end; j++, w += panel_lanes)
#pragma GCC unroll 8
      for (int p = 0; p < count; p++) {
        Vec<T> row[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) row[v] = load_as<T>(w + p * w_stride + v * width);
#pragma GCC unroll 8
        for (int b = 0; b < inputs; b++)
#pragma GCC unroll 8
          for (int v = 0; v < vectors; v++) acc[p][b][v] = fma(row[v], broadcast(u[b * panel_lanes + j]), acc[p][b][v]);
      }
  }
#pragma GCC unroll 8
  for (int p = 0; p < count; p++)
#pragma GCC unroll 8
    for (int b = 0; b < inputs; b++)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) store(z + (p * B + b) * panel_lanes + v * width, last ? acc[p][b][v] * scale : acc[p][b][v]);
}
template <class T, class W, int inputs>
static void multiply_panels(const W* w, int64_t w_stride, int panels, int n, const T* u, int64_t B, T* z, bool first, T scale, bool last) {
  constexpr int fit = accumulators / (panel_vectors<T> * inputs), count = fit < 1 ? 1 : fit > 4 ? 4 : fit == 3 ? 2 : fit;
  int p = 0;
  for (; p + count <= panels; p += count) multiply<T, W, count, inputs>(w + p * w_stride, w_stride, n, u, B, z + p * B * panel_lanes, first, scale, last);
  for (; p < panels; p++) multiply<T, W, 1, inputs>(w + p * w_stride, w_stride, n, u, B, z + p * B * panel_lanes, first, scale, last);
}
template <class T, class W, int inputs = block_inputs<T>>
PK_INLINE void multiply_inputs(int count, const W* w, int64_t w_stride, int panels, int n, const T* u, int64_t B, T* z, bool first, T scale, bool last) {
  if (count == inputs) return multiply_panels<T, W, inputs>(w, w_stride, panels, n, u, B, z, first, scale, last);
  if constexpr (inputs > 1) multiply_inputs<T, W, inputs - 1>(count, w, w_stride, panels, n, u, B, z, first, scale, last);
}

template <class T> PK_INLINE void clear_padding(T* last_panel, int64_t units, int64_t B) {
  if (units % panel_lanes)
    for (int64_t b = 0; b < B; b++)
      for (int64_t lane = units % panel_lanes; lane < panel_lanes; lane++) last_panel[b * panel_lanes + lane] = 0;
}

// source(p, count, k, n, stride): where the entries of `count` panels from p and n columns from k lie, and the stride between panels
template <class T, class W, class Source>
PK_INLINE void forward_tiles(const Weights<T>& w, int64_t p0, int64_t p1, int64_t B, const T* u, T* z, Source source) {
  const int64_t N = w.columns, groups = (B + block_inputs<T> - 1) / block_inputs<T>;
  for (int64_t p = p0; p < p1; p += tile_panels) {
    const int panels = (int)(p1 - p < tile_panels ? p1 - p : tile_panels);
    for (int64_t k = 0; k < N; k += tile_columns) {
      const int n = (int)(N - k < tile_columns ? N - k : tile_columns);
      int64_t stride;
      const W* tile = source(p, panels, k, n, stride);
      for (int64_t g = 0, b = 0; g < groups; g++) {
        const int count = (int)((B - b + groups - g - 1) / (groups - g));
        multiply_inputs<T, W>(count, tile, stride, panels, n, u + (k * B + b * panel_lanes), B, z + (p * B + b) * panel_lanes, k == 0, w.scale, k + n == N);
        b += count;
      }
    }
  }
}

// -- backward

// sums[(k * B + b) * 16 + lane] += w delta over `panels` panels, for k < columns, b < inputs.
template <class T, class W, int columns, int inputs>
PK_INLINE void reduce(const W* w, int64_t w_stride, int panels, const T* delta, int64_t delta_stride, T* sums, int64_t B, bool first) {
  constexpr int vectors = panel_vectors<T>;
#pragma GCC unroll 1
  for (int v = 0; v < vectors; v++) {
    const int o = v * lanes<T>;
    Vec<T> acc[columns][inputs];
#pragma GCC unroll 8
    for (int k = 0; k < columns; k++)
#pragma GCC unroll 8
      for (int b = 0; b < inputs; b++) acc[k][b] = first ? Vec<T>{} : load(sums + (k * B + b) * panel_lanes + o);
    const W* row = w + o;
    const T* d = delta + o;
    for (int p = 0; p < panels; p++, row += w_stride, d += delta_stride) {
      Vec<T> x[inputs];
#pragma GCC unroll 8
      for (int b = 0; b < inputs; b++) x[b] = load(d + b * panel_lanes);
#pragma GCC unroll 8
      for (int k = 0; k < columns; k++) {
        const Vec<T> weight = load_as<T>(row + k * panel_lanes);
#pragma GCC unroll 8
        for (int b = 0; b < inputs; b++) acc[k][b] = fma(weight, x[b], acc[k][b]);
      }
    }
#pragma GCC unroll 8
    for (int k = 0; k < columns; k++)
#pragma GCC unroll 8
      for (int b = 0; b < inputs; b++) store(sums + (k * B + b) * panel_lanes + o, acc[k][b]);
  }
}
template <class T, class W, int inputs>
static void reduce_columns(const W* w, int64_t w_stride, int panels, int n, const T* delta, int64_t delta_stride, T* sums, int64_t B, bool first) {
  constexpr int fit = accumulators / inputs, columns = fit >= 8 ? 8 : fit >= 4 ? 4 : 2;
  int k = 0;
  for (; k + columns <= n; k += columns) reduce<T, W, columns, inputs>(w + k * panel_lanes, w_stride, panels, delta, delta_stride, sums + k * B * panel_lanes, B, first);
  for (; k < n; k++) reduce<T, W, 1, inputs>(w + k * panel_lanes, w_stride, panels, delta, delta_stride, sums + k * B * panel_lanes, B, first);
}
template <class T, class W, int inputs = 6>
PK_INLINE void reduce_inputs(int count, const W* w, int64_t w_stride, int panels, int n, const T* delta, int64_t delta_stride, T* sums, int64_t B, bool first) {
  if (count == inputs) return reduce_columns<T, W, inputs>(w, w_stride, panels, n, delta, delta_stride, sums, B, first);
  if constexpr (inputs > 1) reduce_inputs<T, W, inputs - 1>(count, w, w_stride, panels, n, delta, delta_stride, sums, B, first);
}

// One panel of du from the lane sums of its n columns, sums[(k * B + b) * 16 + lane]; padding zero.
template <class T> PK_INLINE void finish_sums(T* sums, int64_t B, int n, T scale, T* du) {
  for (int64_t i = n * B * panel_lanes; i < panel_lanes * B * panel_lanes; i++) sums[i] = 0;
  for (int64_t b = 0; b < B; b++)
    for (int k = 0; k < panel_lanes; k += lanes<T>)
      store(du + b * panel_lanes + k, sum_lanes_of(sums + (k * B + b) * panel_lanes, B * panel_lanes) * scale);
}

template <class T, class W, class Source>
PK_INLINE void backward_tiles(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, T* sums, Source source) {
  const int64_t panels = panels_of(w.rows), groups = (B + 5) / 6;
  for (int64_t k = k0; k < k1; k += deep_columns) {
    const int n = (int)(k1 - k < deep_columns ? k1 - k : deep_columns);
    for (int64_t p = 0; p < panels; p += deep_panels) {
      const int count = (int)(panels - p < deep_panels ? panels - p : deep_panels);
      int64_t stride;
      const W* tile = source(p, count, k, n, stride);
      for (int64_t g = 0, b = 0; g < groups; g++) {
        const int inputs = (int)((B - b + groups - g - 1) / (groups - g));
        reduce_inputs<T, W>(inputs, tile, stride, count, n, delta + (p * B + b) * panel_lanes, B * panel_lanes, sums + b * panel_lanes, B, p == 0);
        b += inputs;
      }
    }
    finish_sums(sums, B, n, w.scale, du + k * B);
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
