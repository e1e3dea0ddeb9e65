// dU = W^T delta as the forward product of turned tiles: for so many inputs that turning a tile costs little.
// SPDX-License-Identifier: BSD-3-Clause
//
// The sum goes over the rows in order in one accumulator an output, so that the bits are those of `backward_rows`,
// which lays inputs side by side instead, and has as much to do for few rows as for many.
#pragma once
#include "kernels/product-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr int turned_rows = tile_panels * panel_lanes;  // of W, that is as many as there are columns of a tile

// Columns 0 .. n - 1 of `panels` panels become rows of panels with `turned_rows` columns, zero beyond the n-th.
template <class W> static void turn_tile(const W* from, Steps steps, int panels, int n, W* out) {
  constexpr int width = lanes<W>;
  for (int p = 0; p < panels; p++)
    for (int k = 0; k < n; k += width)
      for (int part = 0; part < panel_lanes; part += width) {
        Vec<W> v[width];
#pragma GCC unroll 16
        for (int i = 0; i < width; i++)
          v[i] = k + i < n ? load(from + p * steps.panel + k / panel_lanes * steps.block +
                                  (k % panel_lanes + i) * panel_lanes + part)
                           : Vec<W>{};
        transpose<W>(v);
        W* to = out + (k / panel_lanes * turned_rows + p * panel_lanes + part) * panel_lanes + k % panel_lanes;
#pragma GCC unroll 16
        for (int i = 0; i < width; i++) store(to + i * panel_lanes, v[i]);
      }
  for (int k = (n + width - 1) / width * width; k % panel_lanes; k += width)
    for (int i = 0; i < panels * panel_lanes; i++)
      store(out + (k / panel_lanes * turned_rows + i) * panel_lanes + k % panel_lanes, Vec<W>{});
}

// Entries lie in `whole`, or are drawn where it has no data.
template <class T, class W>
static void backward_turned(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du,
                            Lying<W> whole, DrawTile draw, const void* draws) {
  alignas(64) W tile[tile_panels * tile_columns * panel_lanes], turned[turned_rows * tile_columns];
  const int64_t P = panels_of(w.rows), groups = (B + block_inputs<T> - 1) / block_inputs<T>;
  for (int64_t k = k0; k < k1; k += tile_columns) {
    const int n = (int)(k1 - k < tile_columns ? k1 - k : tile_columns);
    for (int64_t p = 0; p < P; p += tile_panels) {
      const int count = (int)(P - p < tile_panels ? P - p : tile_panels);
      const int64_t rest = w.rows - p * panel_lanes, rows = rest < turned_rows ? rest : turned_rows;
      const Steps steps = whole.data ? whole.steps : Steps{tile_columns * panel_lanes};
      if (draw) draw(draws, p, count, k, n, (float*)tile, steps);
      turn_tile(whole.data ? whole.at(p, k) : (const W*)tile, steps, count, n, turned);
      for (int64_t g = 0, b = 0; g < groups; g++) {
        const int inputs = (int)((B - b + groups - g - 1) / (groups - g));
        multiply_inputs<T, W>(inputs, turned, {turned_rows * panel_lanes}, (int)panels_of(n), (int)rows,
                              delta + (p * B + b) * panel_lanes, B, du + k * B + b * panel_lanes, p == 0, w.scale,
                              p + count == P);
        b += inputs;
      }
    }
    if (n % panel_lanes) clear_padding(du + n / panel_lanes * panel_lanes * B + k * B, n, B);
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
