// The table of the dense products for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/product.hpp"

#include "kernels/tall-inl.hpp"
#include "kernels/turned-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class D>
static void draw_tile(const void* draws, int64_t p, int count, int64_t k, int n, float* tile, Steps steps) {
  draw(*(const MatrixDraws<D>*)draws, p, count, k, n,
       [&](int i, int j, int next, int part, F32 v) __attribute__((always_inline)) {
         float* const to = tile + i * steps.panel + j / panel_lanes * steps.block + j % panel_lanes * panel_lanes;
         store(to + next * panel_lanes + part, v);
       });
}
template <class T, class D, class Use> PK_INLINE void with(const Weights<T>& w, Use use) {
  MatrixDraws<D> draws;
  open(draws, w);
  use(draw_tile<D>, (const void*)&draws);
}
template <class T, class Use> PK_INLINE void with_draws(const Weights<T>& w, Use use) {
  with_distribution(w.distribution, [&]<class D>() __attribute__((always_inline)) { with<T, D>(w, use); });
}

template <class T>
void draw_panels(const Weights<T>& w, int64_t p0, int64_t p1, int64_t k0, int64_t k1, float* panels) {
  with_draws(w, [&](DrawTile draw, const void* draws) {
    for (int64_t p = p0; p < p1; p++)
      for (int64_t k = k0; k < k1; k += tile_columns) {
        const int n = (int)(k1 - k < tile_columns ? k1 - k : tile_columns);
        draw(draws, p, 1, k, n, panels + ((p - p0) * (k1 - k0) + k - k0) * panel_lanes, {});
      }
  });
}

template <class T> void forward(const Weights<T>& w, int64_t p0, int64_t p1, int64_t B, const T* u, T* z, float* keep) {
  if (w.given)
    forward_tiles<T, T>(w, p0, p1, B, u, z, given(w), nullptr, nullptr);
  else if (w.kept)
    forward_tiles<T, float>(w, p0, p1, B, u, z, kept(w, w.kept), nullptr, nullptr);
  else
    with_draws(w, [&](DrawTile draw, const void* draws) {
      forward_tiles<T, float>(w, p0, p1, B, u, z, kept(w, keep), draw, draws);
    });
  if (p1 == panels_of(w.rows)) clear_padding(z + (p1 - 1) * B * panel_lanes, w.rows, B);
}

// From so many inputs on tiles are turned instead of blocks: a tile is turned once for all of them. Of few rows little
// is summed for what is laid out.
constexpr int64_t turned_inputs = 256, few_rows = 64, turned_inputs_of_few_rows = 64;
template <class T> PK_INLINE bool is_turned(const Weights<T>& w, int64_t B) {
  return B >= (w.rows <= few_rows ? turned_inputs_of_few_rows : turned_inputs) && !w.format.fraction;
}

template <class T, class W>
static void backward_from(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, void* scratch,
                          Lying<W> whole, DrawTile draw, const void* draws) {
  if (is_turned(w, B))
    backward_turned<T, W>(w, k0, k1, B, delta, du, whole, draw, draws);
  else
    backward_tiles<T, W>(w, k0, k1, B, delta, du, scratch, whole, draw, draws);
}

template <class T>
void backward(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, void* scratch) {
  if (w.given)
    backward_from<T, T>(w, k0, k1, B, delta, du, scratch, given(w), nullptr, nullptr);
  else if (w.kept)
    backward_from<T, float>(w, k0, k1, B, delta, du, scratch, kept(w, w.kept), nullptr, nullptr);
  else
    with_draws(w, [&](DrawTile draw, const void* draws) {
      backward_from<T, float>(w, k0, k1, B, delta, du, scratch, kept(w, nullptr), draw, draws);
    });
}

template <class T> void gram(const T* x, int64_t units, int64_t B, double* out, void* scratch) {
  const int panels = (int)panels_of(units);
  for (int64_t i = 0; i < B; i += panel_lanes) {  // rows i .. i + rows - 1, columns i .. B - 1
    const int64_t rows = B - i < panel_lanes ? B - i : panel_lanes;
    for (int64_t j = i; j < B; j += reduced_inputs) {
      const int inputs = (int)(B - j < reduced_inputs ? B - j : reduced_inputs);
      const int64_t wanted = (j - i + inputs + 3) / 4 * 4;  // rows up to the diagonal, whole tiles of them
      const int n = (int)(rows < wanted ? rows : wanted);
      T* sums = (T*)scratch;
      T column[panel_lanes];
      reduce_inputs<T, T>(inputs, x + i * panel_lanes, B * panel_lanes, panels, n, x + j * panel_lanes, B * panel_lanes,
                          sums, true, Ahead<T>{});
      for (int b = 0; b < inputs; b++)
        for (int k = 0; k < n; k += lanes<T>) {
          store(column, sum_lanes_of(sums + (k * inputs + b) * panel_lanes, inputs * panel_lanes));
          for (int64_t r = i + k; r < i + n && r < i + k + lanes<T> && r <= j + b; r++)
            out[r * B + j + b] = out[(j + b) * B + r] = column[r - i - k];
        }
    }
  }
}

// In place: entries times the scale, rounded with a word of ROUND_WEIGHT each.
template <class T> void round_panels(const Weights<T>& w, int64_t p0, int64_t p1, T* panels) {
  MatrixStream stream;
  open(stream, w.seed, w.layer, w.replica, (uint32_t)Purpose::round_weight);
  const Rounder<T> rounder(w.format);
  alignas(64) uint32_t words[4 * buffer_blocks * panel_lanes];
  for (int64_t p = p0; p < p1; p++)
    for (int64_t k = 0; k < w.columns; k += 4 * buffer_blocks) {
      const int n = (int)(w.columns - k < 4 * buffer_blocks ? w.columns - k : 4 * buffer_blocks);
      BlockWords blocks[buffer_blocks];
      for (int j = 0; j < (n + 3) / 4; j++) blocks[j] = of_block(stream, (uint32_t)(k / 4 + j));
      panel_words(stream, p, blocks, (n + 3) / 4, words);
      T* to = panels + (p * w.columns + k) * panel_lanes;
      for (int o = 0; o < n * panel_lanes; o += lanes<T>)
        store(to + o, rounder.by_chance(load(to + o) * w.scale, load_words<T>(words + o)));
    }
}

template <class T> void pack(const T* matrix, int64_t rows, int64_t columns, int64_t p0, int64_t p1, T* panels) {
  for (int64_t p = p0; p < p1; p++)
    for (int lane = 0; lane < panel_lanes; lane++) {
      const int64_t i = p * panel_lanes + lane;
      for (int64_t k = 0; k < columns; k++)
        panels[(p * columns + k) * panel_lanes + lane] = i < rows ? matrix[i * columns + k] : T(0);
    }
}

template <class T> void tall(const Tall& a, int64_t units, int64_t b0, int64_t B, int64_t p0, int64_t p1, T* out) {
  Keys keys;
  expand(keys, a.seed);
  constexpr int width = lanes<float>;
  const uint32_t purpose_layer = a.layer | a.purpose << 24;
  for (int64_t group = p0 / group_panels; group * group_panels < p1; group++) {
    const int64_t p = group * group_panels;
    T* to = out + (p - p0) * B * panel_lanes;
    const int panels = (int)(p1 - p < group_panels ? p1 - p : group_panels);
    if (a.draw == TallDraw::normal) {
      const auto line_of = [&](int64_t b) { return (uint32_t)(b0 + b); };
      normals_of_group(keys, purpose_layer, a.replica, group, units, B, line_of, panels, to, panel_lanes,
                       panel_lanes * B);
      continue;
    }
    for (int64_t b = 0; b < B; b++) {
      alignas(64) uint32_t words[group_units];
      float draws[group_units];
      tall_words(keys, purpose_layer, a.replica, group, (uint32_t)(b0 + b), words);
      for (int i = 0; i < group_units; i += width) {
        const Bundle<U32, 1> word = {{load(words + i)}};
        const F32 drawn = a.draw == TallDraw::kept   ? to_float((I32)(word.v[0] >= broadcast(a.bound)) & 1)
                          : a.draw == TallDraw::bit  ? to_float((I32)(word.v[0] >> 31))
                          : a.draw == TallDraw::word ? (F32)word.v[0]
                                                     : uniforms(word).v[0];
        store(draws + i, drawn);
      }
      for (int i = 0; i < panels * panel_lanes; i++)
        to[(i / panel_lanes * B + b) * panel_lanes + i % panel_lanes] =
            group * group_units + i < units ? (T)draws[i] : T(0);
    }
  }
}

template <class T>
constexpr Products<T> table = {parameter_ranges, one_in_order, draw_panels<T>, forward<T>,     backward<T>,
                               gram<T>,          pack<T>,      tall<T>,        round_panels<T>};

}  // namespace

const Products<float>& products(float) { return table<float>; }
const Products<double>& products(double) { return table<double>; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
