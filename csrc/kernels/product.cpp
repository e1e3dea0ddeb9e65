// The table of the dense products for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/product.hpp"

#include "kernels/product-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class T, class Use> PK_INLINE void visit(const Weights<T>& w, Use use) {
  switch (w.distribution) {
    case Distribution::normal: return use(Normal{});
    case Distribution::uniform: return use(Uniform{});
    case Distribution::truncated: return use(Truncated{});
    case Distribution::sparse: return use(Sparse{});
    case Distribution::student: return use(Student{});
    case Distribution::stable: return use(Stable{});
  }
}

// `count` panels from p and n columns from k of one matrix into a tile with a stride between panels
template <class D> __attribute__((noinline)) static void draw_tile(const MatrixDraws<D>& draws, int64_t p, int count, int64_t k, int n, float* tile, int64_t stride) {
  for (int i = 0; i < count; i++)
    for (int j = 0; j < n; j += draw_columns<D>) {
      const int part_n = n - j < draw_columns<D> ? n - j : draw_columns<D>;
      float* to = tile + i * stride + j * panel_lanes;
      draw(draws, p + i, k + j, part_n, [&](int column, int part, F32 v) __attribute__((always_inline)) { store(to + column * panel_lanes + part, v); });
    }
}

template <class T> void draw_panels(const Weights<T>& w, int64_t p0, int64_t p1, float* panels) {
  visit(w, [&](auto distribution) {
    MatrixDraws<decltype(distribution)> draws;
    open(draws, w);
    for (int64_t p = p0; p < p1; p++)
      for (int64_t k = 0; k < w.columns; k += tile_columns) {
        const int n = (int)(w.columns - k < tile_columns ? w.columns - k : tile_columns);
        draw_tile(draws, p, 1, k, n, panels + (p * w.columns + k) * panel_lanes, 0);
      }
  });
}

template <class T> void forward(const Weights<T>& w, int64_t p0, int64_t p1, int64_t B, const T* u, T* z, float* keep) {
  const int64_t N = w.columns, row = N * panel_lanes;
  if (w.given) {
    forward_tiles<T, T>(w, p0, p1, B, u, z, [&](int64_t p, int, int64_t k, int, int64_t& stride) {
      stride = row;
      return w.given + p * row + k * panel_lanes;
    });
  } else if (w.kept) {
    forward_tiles<T, float>(w, p0, p1, B, u, z, [&](int64_t p, int, int64_t k, int, int64_t& stride) {
      stride = row;
      return w.kept + p * row + k * panel_lanes;
    });
  } else {
    visit(w, [&](auto distribution) {
      using D = decltype(distribution);
      MatrixDraws<D> draws;
      open(draws, w);
      alignas(64) float tile[tile_panels * tile_columns * panel_lanes];
      forward_tiles<T, float>(w, p0, p1, B, u, z, [&](int64_t p, int count, int64_t k, int n, int64_t& stride) {
        float* to = keep ? keep + p * row + k * panel_lanes : tile;
        stride = keep ? row : tile_columns * panel_lanes;
        draw_tile(draws, p, count, k, n, to, stride);
        return (const float*)to;
      });
    });
  }
  if (p1 == panels_of(w.rows)) clear_padding(z + (p1 - 1) * B * panel_lanes, w.rows, B);
}

template <class T> void backward(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, void* scratch) {
  const int64_t row = w.columns * panel_lanes;
  T* sums = (T*)scratch;
  if (w.given) {
    backward_tiles<T, T>(w, k0, k1, B, delta, du, sums, [&](int64_t p, int, int64_t k, int, int64_t& stride) {
      stride = row;
      return w.given + p * row + k * panel_lanes;
    });
  } else if (w.kept) {
    backward_tiles<T, float>(w, k0, k1, B, delta, du, sums, [&](int64_t p, int, int64_t k, int, int64_t& stride) {
      stride = row;
      return w.kept + p * row + k * panel_lanes;
    });
  } else {
    visit(w, [&](auto distribution) {
      using D = decltype(distribution);
      MatrixDraws<D> draws;
      open(draws, w);
      alignas(64) float tile[deep_panels * deep_columns * panel_lanes];
      backward_tiles<T, float>(w, k0, k1, B, delta, du, sums, [&](int64_t p, int count, int64_t k, int n, int64_t& stride) {
        stride = deep_columns * panel_lanes;
        draw_tile(draws, p, count, k, n, tile, stride);
        return (const float*)tile;
      });
    });
  }
}

template <class T> void gram(const T* x, int64_t units, int64_t B, double* out, void* scratch) {
  T* sums = (T*)scratch;
  const int panels = (int)panels_of(units);
  for (int64_t i = 0; i < B; i += panel_lanes) {  // rows i .. i + n - 1, columns i .. B - 1
    const int n = (int)(B - i < panel_lanes ? B - i : panel_lanes);
    for (int64_t j = i; j < B; j += 6) {
      const int inputs = (int)(B - j < 6 ? B - j : 6);
      reduce_inputs<T, T>(inputs, x + i * panel_lanes, B * panel_lanes, panels, n, x + j * panel_lanes, B * panel_lanes, sums + j * panel_lanes, B, true);
    }
    for (int k = 0; k < n; k++)
      for (int64_t j = i + k; j < B; j++) {
        Vec<T> v[panel_vectors<T>];
        for (int h = 0; h < panel_vectors<T>; h++) v[h] = load(sums + (k * B + j) * panel_lanes + h * lanes<T>);
        out[(i + k) * B + j] = out[j * B + i + k] = sum_lanes<T>(v);
      }
  }
}

template <class T> void pack(const T* matrix, int64_t rows, int64_t columns, int64_t p0, int64_t p1, T* panels) {
  for (int64_t p = p0; p < p1; p++)
    for (int lane = 0; lane < panel_lanes; lane++) {
      const int64_t i = p * panel_lanes + lane;
      for (int64_t k = 0; k < columns; k++) panels[(p * columns + k) * panel_lanes + lane] = i < rows ? matrix[i * columns + k] : T(0);
    }
}

template <class T> void tall(const Tall& a, int64_t units, int64_t B, int64_t p0, int64_t p1, T* out) {
  Keys keys;
  expand(keys, a.seed);
  constexpr int parts = panel_vectors<float>, width = lanes<float>;
  for (int64_t group = p0 / 4; group * 4 < p1; group++)
    for (int64_t b = 0; b < B; b++) {
      alignas(64) uint32_t words[64];
      float draws[64];
      tall_words(keys, a.layer | a.purpose << 24, a.replica, group, (uint32_t)b, words);
      if (a.draw == TallDraw::normal) {
        U32s<2 * parts> first, second;
        F32s<2 * parts> x, y;
        for (int i = 0; i < 2 * parts; i++) {
          first.v[i] = load(words + i / parts * 32 + i % parts * width);
          second.v[i] = load(words + i / parts * 32 + 16 + i % parts * width);
        }
        normal_pair(first, second, x, y);
        for (int i = 0; i < 2 * parts; i++) {
          store(draws + i / parts * 32 + i % parts * width, x.v[i]);
          store(draws + i / parts * 32 + 16 + i % parts * width, y.v[i]);
        }
      } else {
        for (int i = 0; i < 64; i += width) {
          const Bundle<U32, 1> word = {{load(words + i)}};
          store(draws + i, a.draw == TallDraw::bit ? to_float((I32)(word.v[0] >> 31)) : uniforms(word).v[0]);
        }
      }
      for (int i = 0; i < 64 && group * 4 + i / 16 < p1; i++)
        out[((group * 4 + i / 16) * B + b) * 16 + i % 16] = group * 64 + i < units ? (T)draws[i] : T(0);
    }
}

template <class T> constexpr Products<T> table = {draw_panels<T>, forward<T>, backward<T>, gram<T>, pack<T>, tall<T>};

}  // namespace

const Products<float>& products(float) { return table<float>; }
const Products<double>& products(double) { return table<double>; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
