// Products of a drawn (or kept, or given) weight matrix with a block: Z = W U and dU = W^T delta.
// SPDX-License-Identifier: BSD-3-Clause
//
// Weights are drawn in tiles that stay in L1 and used there at once, for all inputs. Register blocks are sized to the
// 16 (AVX-512: 32) names: 12 (24) vectors of accumulators, 8 at least, for two fused multiply-adds of 4 cycles at a
// time. Using each draw in the register where it is made saves a store and a load in L1 and nothing measurable, and
// costs 96 copies of the draws.
#pragma once
#include "kernels/draws-inl.hpp"
#include "kernels/round-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

#if defined(PK_AVX512)
constexpr int accumulators = 24;
#else
constexpr int accumulators = 12;
#endif
constexpr int tile_panels = 4, tile_columns = 64;                     // forward: 16 KiB of float draws, in L1
constexpr int deep_panels = 128, deep_columns = 16, near_panels = 8;  // backward: 128 KiB in L2, used 8 KiB at a time
template <class T>
constexpr int block_inputs = sizeof(T) == 4                        ? 6
                             : accumulators / panel_vectors<T> < 6 ? accumulators / panel_vectors<T>
                                                                   : 6;
constexpr int reduced_inputs = 6;
constexpr bool one_in_order = accumulators > panel_lanes;  // sums of 16 units stay in registers

// How far apart panels lie, and their blocks of 16 columns: those of one panel side by side, unless told otherwise.
struct Steps {
  int64_t panel = 0, block = panel_lanes * panel_lanes;
};

// `count` panels from p and n columns from k (a multiple of 16) of one matrix
using DrawTile = void (*)(const void* draws, int64_t p, int count, int64_t k, int n, float* tile, Steps steps);

// -- forward

// z[panel, b] += w u over n columns for `inputs` inputs and `count` panels.
template <class T, class W, int count, int inputs>
PK_INLINE void multiply(const W* block, Steps steps, int n, const T* u, int64_t B, T* z, bool first, T scale,
                        bool last) {
  constexpr int vectors = panel_vectors<T>, width = lanes<T>;
  Vec<T> acc[count][inputs][vectors];
#pragma GCC unroll 8
  for (int p = 0; p < count; p++)
#pragma GCC unroll 8
    for (int b = 0; b < inputs; b++)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++)
        acc[p][b][v] = first ? Vec<T>{} : load(z + (p * B + b) * panel_lanes + v * width);
  for (int k = 0; k < n; k += panel_lanes, u += B * panel_lanes, block += steps.block) {
    const int end = n - k < panel_lanes ? n - k : panel_lanes;
    const W* w = block;
    for (int j = 0; j < end; j++, w += panel_lanes)
#pragma GCC unroll 8
      for (int p = 0; p < count; p++) {
        Vec<T> row[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) row[v] = load_as<T>(w + p * steps.panel + v * width);
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
      for (int v = 0; v < vectors; v++)
        store(z + (p * B + b) * panel_lanes + v * width, last ? acc[p][b][v] * scale : acc[p][b][v]);
}
template <class T, class W, int inputs>
static void multiply_panels(const W* w, Steps steps, int panels, int n, const T* u, int64_t B, T* z, bool first,
                            T scale, bool last) {
  constexpr int fit = accumulators / (panel_vectors<T> * inputs), count = fit < 1    ? 1
                                                                          : fit > 4  ? 4
                                                                          : fit == 3 ? 2
                                                                                     : fit;
  int p = 0;
  for (; p + count <= panels; p += count)
    multiply<T, W, count, inputs>(w + p * steps.panel, steps, n, u, B, z + p * B * panel_lanes, first, scale, last);
  for (; p < panels; p++)
    multiply<T, W, 1, inputs>(w + p * steps.panel, steps, n, u, B, z + p * B * panel_lanes, first, scale, last);
}
template <class T, class W, int inputs = block_inputs<T>>
PK_INLINE void multiply_inputs(int count, const W* w, Steps steps, int panels, int n, const T* u, int64_t B, T* z,
                               bool first, T scale, bool last) {
  if (count == inputs) return multiply_panels<T, W, inputs>(w, steps, panels, n, u, B, z, first, scale, last);
  if constexpr (inputs > 1) multiply_inputs<T, W, inputs - 1>(count, w, steps, panels, n, u, B, z, first, scale, last);
}

template <class T> PK_INLINE void clear_padding(T* last_panel, int64_t units, int64_t B) {
  if (units % panel_lanes)
    for (int64_t b = 0; b < B; b++)
      for (int64_t lane = units % panel_lanes; lane < panel_lanes; lane++) last_panel[b * panel_lanes + lane] = 0;
}

// Where a weight's entries lie, if they do.
template <class W> struct Lying {
  const W* data;
  Steps steps;
  bool by_blocks() const { return data && steps.block > steps.panel; }
  const W* at(int64_t p, int64_t k) const { return data + p * steps.panel + k * steps.block / panel_lanes; }
};
template <class T> PK_INLINE Lying<T> given(const Weights<T>& w) { return {w.given, {w.columns * panel_lanes}}; }
template <class T> PK_INLINE Lying<float> kept(const Weights<T>& w, const float* draws) {
  constexpr int64_t tile = panel_lanes * panel_lanes;
  if (!w.by_blocks) return {draws, {w.columns * panel_lanes}};
  return {draws, {tile, panels_of(w.rows) * tile}};
}

// Entries lie in `whole` (draws stored there first, where draw is not null), or are drawn into `tile` where it has no
// data. Tiles come in the order in which entries lie.
template <class T, class W>
static void forward_tiles(const Weights<T>& w, int64_t p0, int64_t p1, int64_t B, const T* u, T* z, Lying<W> whole,
                          DrawTile draw, const void* draws) {
  alignas(64) float tile[tile_panels * tile_columns * panel_lanes];
  alignas(64) T rounded[tile_panels * tile_columns * panel_lanes];
  const bool rounds = w.format.fraction;
  const int64_t N = w.columns, groups = (B + block_inputs<T> - 1) / block_inputs<T>;
  const Steps steps = whole.data ? whole.steps : Steps{tile_columns * panel_lanes};
  const auto multiply_tile = [&](int64_t p, int64_t k) {
    const int count = (int)(p1 - p < tile_panels ? p1 - p : tile_panels);
    const int n = (int)(N - k < tile_columns ? N - k : tile_columns);
    const W* from = whole.data ? whole.at(p, k) : (const W*)tile;
    if (draw) draw(draws, p, count, k, n, (float*)from, steps);
    if (rounds)
      round_tile(w.format, w.scale, from, steps.panel, steps.block, count, n, rounded, tile_columns * panel_lanes);
    for (int64_t g = 0, b = 0; g < groups; g++) {
      const int inputs = (int)((B - b + groups - g - 1) / (groups - g));
      const T* x = u + (k * B + b * panel_lanes);
      T* to = z + (p * B + b) * panel_lanes;
      if (rounds)
        multiply_inputs<T, T>(inputs, rounded, {tile_columns * panel_lanes}, count, n, x, B, to, k == 0, 1, k + n == N);
      else
        multiply_inputs<T, W>(inputs, from, steps, count, n, x, B, to, k == 0, w.scale, k + n == N);
      b += inputs;
    }
  };
  if (whole.by_blocks()) {
    for (int64_t k = 0; k < N; k += tile_columns)
      for (int64_t p = p0; p < p1; p += tile_panels) multiply_tile(p, k);
  } else {
    for (int64_t p = p0; p < p1; p += tile_panels)
      for (int64_t k = 0; k < N; k += tile_columns) multiply_tile(p, k);
  }
}

// -- backward

// A weight of so few bytes, used again and again, comes as fast as L2 gives it: to fetch it ahead takes longer.
constexpr int64_t near_bytes = 1 << 20;

// What is fetched from far while the tile before it is in use: a share with every pass, since a burst waits for the
// lines in flight.
template <class W> struct Ahead {
  const W* tile;
  int64_t stride;
  int panels;  // of the tile, or 0
  template <int columns> __attribute__((always_inline)) void fetch(int p, int k) const {
    if (p >= panels) return;
    const char* from = (const char*)(tile + p * stride + k * panel_lanes);
#pragma GCC unroll 16
    for (int line = 0; line < columns * panel_lanes * (int)sizeof(W); line += 64) __builtin_prefetch(from + line, 0, 2);
  }
};

// For few inputs (and Gram matrices): lanes over the rows.
//
// sums[(k * inputs + b) * 16 + lane] += w delta over `panels` panels, for k < columns, b < inputs. The smaller side
// stays in registers.
template <class T, class W, int columns, int inputs>
PK_INLINE void reduce(const W* w, int64_t w_stride, int panels, const T* delta, int64_t delta_stride, T* sums,
                      bool first, const Ahead<W>& ahead, int k0) {
#pragma GCC unroll 1
  for (int o = 0; o < panel_lanes; o += lanes<T>) {
    Vec<T> acc[columns][inputs];
#pragma GCC unroll 8
    for (int k = 0; k < columns; k++)
#pragma GCC unroll 8
      for (int b = 0; b < inputs; b++) acc[k][b] = first ? Vec<T>{} : load(sums + (k * inputs + b) * panel_lanes + o);
    const W* row = w + o;
    const T* d = delta + o;
    for (int p = 0; p < panels; p++, row += w_stride, d += delta_stride) {
      if (p % panel_vectors<T> == o / lanes<T>) ahead.template fetch<columns>(p, k0);
      if constexpr (columns < inputs) {
        Vec<T> weight[columns];
#pragma GCC unroll 8
        for (int k = 0; k < columns; k++) weight[k] = load_as<T>(row + k * panel_lanes);
#pragma GCC unroll 8
        for (int b = 0; b < inputs; b++) {
          Vec<T> x = load(d + b * panel_lanes);
          hold(x);
#pragma GCC unroll 8
          for (int k = 0; k < columns; k++) acc[k][b] = fma(weight[k], x, acc[k][b]);
        }
      } else {
        Vec<T> x[inputs];
#pragma GCC unroll 8
        for (int b = 0; b < inputs; b++) x[b] = load(d + b * panel_lanes);
#pragma GCC unroll 8
        for (int k = 0; k < columns; k++) {
          Vec<T> weight = load_as<T>(row + k * panel_lanes);
          hold(weight);
#pragma GCC unroll 8
          for (int b = 0; b < inputs; b++) acc[k][b] = fma(weight, x[b], acc[k][b]);
        }
      }
    }
#pragma GCC unroll 8
    for (int k = 0; k < columns; k++)
#pragma GCC unroll 8
      for (int b = 0; b < inputs; b++) store(sums + (k * inputs + b) * panel_lanes + o, acc[k][b]);
  }
}
// The same for n <= 16 columns and any number of panels, near_panels at a time. `ahead` follows what is read here.
template <class T, class W, int inputs>
static void reduce_columns(const W* w, int64_t w_stride, int panels, int n, const T* delta, int64_t delta_stride,
                           T* sums, bool first, const Ahead<W>& behind) {
  constexpr int fit = accumulators / inputs, columns = fit >= 8 ? 8 : fit >= 4 ? 4 : 2;
  for (int p = 0; p < panels; p += near_panels) {
    const int count = panels - p < near_panels ? panels - p : near_panels;
    const bool last = p + count == panels;
    w += p ? near_panels * w_stride : 0;
    const Ahead<W> ahead =
        last || !behind.panels ? behind : Ahead<W>{w + near_panels * w_stride, w_stride, panels - p - count};
    int k = 0;
    for (; k + columns <= n; k += columns)
      reduce<T, W, columns, inputs>(w + k * panel_lanes, w_stride, count, delta, delta_stride,
                                    sums + k * inputs * panel_lanes, first, ahead, k);
    for (; k < n; k++)
      reduce<T, W, 1, inputs>(w + k * panel_lanes, w_stride, count, delta, delta_stride,
                              sums + k * inputs * panel_lanes, first, ahead, k);
    delta += near_panels * delta_stride, first = false;
  }
}
template <class T, class W, int inputs = reduced_inputs>
PK_INLINE void reduce_inputs(int count, const W* w, int64_t w_stride, int panels, int n, const T* delta,
                             int64_t delta_stride, T* sums, bool first, const Ahead<W>& ahead) {
  if (count == inputs)
    return reduce_columns<T, W, inputs>(w, w_stride, panels, n, delta, delta_stride, sums, first, ahead);
  if constexpr (inputs > 1)
    reduce_inputs<T, W, inputs - 1>(count, w, w_stride, panels, n, delta, delta_stride, sums, first, ahead);
}

// 16 units of `inputs` columns of du from the lane sums of its n units; padding zero.
template <class T> PK_INLINE void finish_sums(T* sums, int inputs, int n, T scale, T* du) {
  for (int i = n * inputs * panel_lanes; i < panel_lanes * inputs * panel_lanes; i++) sums[i] = 0;
  for (int b = 0; b < inputs; b++)
    for (int k = 0; k < panel_lanes; k += lanes<T>)
      store(du + b * panel_lanes + k,
            sum_lanes_of(sums + (k * inputs + b) * panel_lanes, inputs * panel_lanes) * scale);
}

// The same of one input at once, where there are registers for the sums of 16 units: they are never stored.
template <class T, class W>
static void reduce_input(const W* w, int64_t w_stride, int panels, const T* delta, T scale, T* du,
                         const Ahead<W>& ahead) {
  constexpr int columns = lanes<T>, vectors = panel_vectors<T>;
  for (int k0 = 0; k0 < panel_lanes; k0 += columns) {
    Vec<T> acc[columns * vectors] = {};
    for (int p = 0; p < panels; p++) {
      ahead.template fetch<columns>(p, k0);
      const W* row = w + p * w_stride + k0 * panel_lanes;
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) {
        const Vec<T> x = load(delta + p * panel_lanes + v * lanes<T>);
#pragma GCC unroll 16
        for (int k = 0; k < columns; k++)
          acc[v * columns + k] = fma(load_as<T>(row + k * panel_lanes + v * lanes<T>), x, acc[v * columns + k]);
      }
    }
    if constexpr (vectors == 2)
#pragma GCC unroll 16
      for (int k = 0; k < columns; k++) acc[k] += acc[columns + k];
    fold_lanes<T, columns / 2>(acc);
    store(du + k0, acc[0] * scale);
  }
}

// -- backward for many inputs: lanes over the batch, one accumulator an output, rows in order

// sums[k * width + lane] += w x over the rows of `panels` panels, x at [row * width + lane].
template <class T, class W, int columns, int vectors>
PK_INLINE void reduce_rows(const W* w, int64_t w_stride, int panels, const T* x, int64_t width, T* sums, bool first,
                           const Ahead<W>& ahead, int k0, int turn, int turns) {
  Vec<T> acc[columns][vectors];
#pragma GCC unroll 8
  for (int k = 0; k < columns; k++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) acc[k][v] = first ? Vec<T>{} : load(sums + k * width + v * lanes<T>);
  for (int p = 0; p < panels; p++, w += w_stride) {
    if (p % turns == turn) ahead.template fetch<columns>(p, k0);
#pragma GCC unroll 2
    for (int lane = 0; lane < panel_lanes; lane++, x += width) {
      Vec<T> d[vectors];
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) d[v] = load(x + v * lanes<T>);
#pragma GCC unroll 8
      for (int k = 0; k < columns; k++) {
        const Vec<T> weight = broadcast((T)w[k * panel_lanes + lane]);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) acc[k][v] = fma(weight, d[v], acc[k][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < columns; k++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) store(sums + k * width + v * lanes<T>, acc[k][v]);
}
// The same for the 16 columns of a tile.
template <class T, class W, int vectors>
static void reduce_tile(const W* w, int64_t w_stride, int panels, const T* x, int64_t width, T* sums, bool first,
                        const Ahead<W>& ahead, int turn, int turns) {
  constexpr int columns = accumulators / vectors < 8 ? accumulators / vectors : 8, rest = deep_columns % columns;
  int k = 0;
  for (; k + columns <= deep_columns; k += columns)
    reduce_rows<T, W, columns, vectors>(w + k * panel_lanes, w_stride, panels, x, width, sums + k * width, first, ahead,
                                        k, turn, turns);
  if constexpr (rest > 0)
    reduce_rows<T, W, rest, vectors>(w + k * panel_lanes, w_stride, panels, x, width, sums + k * width, first, ahead, k,
                                     turn, turns);
}

// The same for 1 .. most_vectors vectors over the batch.
constexpr int most_vectors = 4;
template <class T, class W, int vectors = most_vectors>
PK_INLINE void reduce_vectors(int wanted, const W* w, int64_t w_stride, int panels, const T* x, int64_t width, T* sums,
                              bool first, const Ahead<W>& ahead, int turn, int turns) {
  if (wanted == vectors)
    return reduce_tile<T, W, vectors>(w, w_stride, panels, x, width, sums, first, ahead, turn, turns);
  if constexpr (vectors > 1)
    reduce_vectors<T, W, vectors - 1>(wanted, w, w_stride, panels, x, width, sums, first, ahead, turn, turns);
}

// Blocks of `panels` panels with inputs side by side: unit i at [i * width], inputs beyond the last as zeros.
template <class T> static void lay_rows(const T* block, int64_t panels, int64_t B, int64_t width, T* rows) {
  constexpr int n = lanes<T>;
  for (int64_t p = 0; p < panels; p++)
    for (int64_t b = 0; b < width; b += n)
      for (int part = 0; part < panel_lanes; part += n) {
        Vec<T> v[n];
#pragma GCC unroll 16
        for (int j = 0; j < n; j++) v[j] = b + j < B ? load(block + (p * B + b + j) * panel_lanes + part) : Vec<T>{};
        transpose<T>(v);
#pragma GCC unroll 16
        for (int j = 0; j < n; j++) store(rows + (p * panel_lanes + part + j) * width + b, v[j]);
      }
}
// And back: 16 units from sums[unit * width + input].
template <class T> static void lay_panel(const T* sums, int64_t B, int64_t width, T scale, T* panel) {
  constexpr int n = lanes<T>;
  for (int64_t b = 0; b < width; b += n)
    for (int part = 0; part < panel_lanes; part += n) {
      Vec<T> v[n];
#pragma GCC unroll 16
      for (int j = 0; j < n; j++) v[j] = load(sums + (part + j) * width + b);
      transpose<T>(v);
#pragma GCC unroll 16
      for (int j = 0; j < n; j++)
        if (b + j < B) store(panel + (b + j) * panel_lanes + part, v[j] * scale);
    }
}

template <class T, class W>
static void backward_rows(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, void* scratch,
                          Lying<W> whole, DrawTile draw, const void* draws) {
  const int64_t P = panels_of(w.rows), vectors = (B + lanes<T> - 1) / lanes<T>, width = vectors * lanes<T>;
  constexpr int64_t tile_stride = deep_columns * panel_lanes;
  const int turns = (int)((vectors + most_vectors - 1) / most_vectors);
  const bool rounds = w.format.fraction;
  alignas(64) T rounded[near_panels * tile_stride];
  T* sums = (T*)scratch;
  T* rows = sums + panel_lanes * width;
  W* tile = (W*)(rows + P * panel_lanes * width);
  lay_rows(delta, P, B, width, rows);
  for (int64_t k = k0; k < k1; k += deep_columns) {
    const int n = (int)(k1 - k < deep_columns ? k1 - k : deep_columns);
    if (n < deep_columns) {
      __builtin_memset((void*)tile, 0, near_panels * tile_stride * sizeof(W));
      __builtin_memset((void*)rounded, 0, sizeof rounded);
    }
    for (int64_t p = 0; p < P; p += near_panels) {
      const int count = (int)(P - p < near_panels ? P - p : near_panels);
      const W* from = tile;
      int64_t stride = tile_stride;
      Ahead<W> ahead = {nullptr, whole.steps.panel, 0};
      if (draw) {
        draw(draws, p, count, k, n, (float*)tile, {stride});
      } else {
        const W* here = whole.at(p, k);
        if (p + count < P && n == deep_columns)
          ahead.tile = whole.at(p + count, k), ahead.panels = (int)(P - p - count);
        else if (k + 2 * deep_columns <= k1)
          ahead.tile = whole.at(0, k + deep_columns), ahead.panels = (int)P;
        if (n == deep_columns && turns == 1)
          from = here, stride = whole.steps.panel;
        else
          for (int i = 0; i < count; i++)
            __builtin_memcpy(tile + i * stride, here + i * whole.steps.panel, n * panel_lanes * sizeof(W));
      }
      const T* x = rows + p * panel_lanes * width;
      if (rounds) round_tile(w.format, w.scale, from, stride, 0, count, n, rounded, tile_stride);
      int64_t first = 0;
      for (int turn = 0; turn < turns; turn++) {
        const int64_t part = (vectors - first + turns - turn - 1) / (turns - turn), b = first * lanes<T>;
        if (rounds)
          reduce_vectors<T, T>((int)part, rounded, tile_stride, count, x + b, width, sums + b, p == 0, {}, 0, 1);
        else
          reduce_vectors<T, W>((int)part, from, stride, count, x + b, width, sums + b, p == 0, ahead, turn, turns);
        first += part;
      }
    }
    lay_panel(sums, B, width, rounds ? T(1) : w.scale, du + k * B);
    if (n < deep_columns) clear_padding(du + k * B, n, B);
  }
}

// Entries lie in `whole`, or are drawn where it has no data.
template <class T, class W>
static void backward_tiles(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, void* scratch,
                           Lying<W> whole, DrawTile draw, const void* draws) {
  static_assert(many_inputs == reduced_inputs + 1);
  if (B >= many_inputs) return backward_rows<T, W>(w, k0, k1, B, delta, du, scratch, whole, draw, draws);
  T* sums = (T*)scratch;
  W* tile = (W*)(sums + B * panel_lanes * panel_lanes);
  const bool rounds = w.format.fraction;
  const int64_t P = panels_of(w.rows), depth = rounds ? near_panels : deep_panels;
  alignas(64) T rounded[near_panels * deep_columns * panel_lanes];
  for (int64_t k = k0; k < k1; k += deep_columns) {
    const int n = (int)(k1 - k < deep_columns ? k1 - k : deep_columns);
    if constexpr (one_in_order)
      if (B == 1 && !draw && !rounds && n == deep_columns) {
        const bool fetches =
            P * w.columns * panel_lanes * (int64_t)sizeof(W) > near_bytes && k + 2 * deep_columns <= k1;
        reduce_input(whole.at(0, k), whole.steps.panel, (int)P, delta, w.scale, du + k,
                     Ahead<W>{whole.at(0, k + deep_columns), whole.steps.panel, fetches ? (int)P : 0});
        continue;
      }
    for (int64_t p = 0; p < P; p += depth) {
      const int count = (int)(P - p < depth ? P - p : depth);
      const W* from = tile;
      int64_t stride = deep_columns * panel_lanes;
      Ahead<W> ahead = {nullptr, whole.steps.panel, 0};
      if (draw) {
        draw(draws, p, count, k, n, (float*)tile, {stride});
      } else {
        from = whole.at(p, k), stride = whole.steps.panel;
        if (p + count < P)
          ahead.tile = whole.at(p + count, k), ahead.panels = (int)(P - p - count);
        else if (k + 2 * deep_columns <= k1)
          ahead.tile = whole.at(0, k + deep_columns), ahead.panels = (int)P;
      }
      const T* d = delta + p * B * panel_lanes;
      if (rounds) {
        round_tile(w.format, w.scale, from, stride, 0, count, n, rounded, deep_columns * panel_lanes);
        reduce_inputs<T, T>((int)B, rounded, deep_columns * panel_lanes, count, n, d, B * panel_lanes, sums, p == 0,
                            {});
      } else {
        reduce_inputs<T, W>((int)B, from, stride, count, n, d, B * panel_lanes, sums, p == 0, ahead);
      }
    }
    finish_sums(sums, (int)B, n, rounds ? T(1) : w.scale, du + k * B);
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
