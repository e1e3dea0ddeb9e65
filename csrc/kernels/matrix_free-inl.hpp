// The kernels of the matrix-free layer.
// SPDX-License-Identifier: BSD-3-Clause
//
// Inner products: 8 lane partials in double precision over the panels of a chunk, the lower half of a panel before the
// upper, then a fixed tree (plain ones: 16 lane partials in T, then the tree in double precision); no shape of tile
// changes a bit. Room: two groups of columns as doubles, or the draws of a stretch in T; lane partials; the factors in
// the precision of the sum; the draws of a group.
#pragma once
#include "kernels/matrix_free.hpp"
#include "kernels/tall-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr int64_t chunk_groups = 16, stretch_groups = 4;
constexpr int half_lanes = 8, half_vectors = half_lanes / lanes<double> < 1 ? 1 : half_lanes / lanes<double>;

PK_INLINE int64_t even(int64_t B) { return (B + 1) & ~(int64_t)1; }
PK_INLINE int64_t eights(int64_t B) { return (B + 7) & ~(int64_t)7; }

struct Room {
  double *x, *y, *partial, *F, *G;
  float* g;
};
int64_t room_doubles(int64_t B) {
  return stretch_groups * even(B) * group_units + even(B) * even(B) * half_lanes * 2 + 2 * B * eights(B) +
         even(B) * group_units;
}
int64_t room(int64_t B) { return room_doubles(B) * 8 + 64; }
PK_INLINE Room open_room(void* memory, int64_t B) {
  double* p = (double*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
  Room r;
  r.x = p, p += even(B) * group_units;
  r.y = p, p += (stretch_groups - 1) * even(B) * group_units;
  r.partial = p, p += even(B) * even(B) * half_lanes * 2;
  r.F = p, p += B * eights(B);
  r.G = p, p += B * eights(B);
  r.g = (float*)p;
  return r;
}

// partial[(b * C + c) * 8 + lane] += x_b y_c over `count` panels; columns of x and y: [(panel * their even number +
// column) * 16]. Where x is y only c <= b is wanted.
PK_INLINE void accumulate(const double* x, int64_t X, const double* y, int64_t Y, int count, double* partial) {
  for (int64_t b = 0; b < X; b += 2)
    for (int64_t c = 0; c < (x == y ? b + 2 : Y); c += 2) {
      F64 sum[2][2][half_vectors];
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
          for (int v = 0; v < half_vectors; v++)
            sum[i][j][v] = load(partial + ((b + i) * Y + c + j) * half_lanes + v * lanes<double>);
      for (int p = 0; p < 2 * count; p++) {
        const double *xp = x + (p / 2 * X + b) * 16 + p % 2 * 8, *yp = y + (p / 2 * Y + c) * 16 + p % 2 * 8;
#pragma GCC unroll 4
        for (int v = 0; v < half_vectors; v++) {
          const int o = v * lanes<double>;
          F64 x0 = load(xp + o), x1 = load(xp + 16 + o), y0 = load(yp + o), y1 = load(yp + 16 + o);
          hold(x0), hold(x1), hold(y0), hold(y1);
          sum[0][0][v] = fma(x0, y0, sum[0][0][v]), sum[0][1][v] = fma(x0, y1, sum[0][1][v]);
          sum[1][0][v] = fma(x1, y0, sum[1][0][v]), sum[1][1][v] = fma(x1, y1, sum[1][1][v]);
        }
      }
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
          for (int v = 0; v < half_vectors; v++)
            store(partial + ((b + i) * Y + c + j) * half_lanes + v * lanes<double>, sum[i][j][v]);
    }
}

PK_INLINE double tree(const double* p) { return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7])); }

// out[b * B + c] for b < rows, c < columns
PK_INLINE void reduce_partials(const double* partial, int64_t Y, int64_t rows, int64_t columns, bool symmetric,
                               double* out, int64_t B) {
  for (int64_t b = 0; b < rows; b++)
    for (int64_t c = 0; c < (symmetric ? b + 1 : columns); c++) {
      out[b * B + c] = tree(partial + (b * Y + c) * half_lanes);
      if (symmetric) out[c * B + b] = out[b * B + c];
    }
}
PK_INLINE void clear(double* p, int64_t n) {  // n a multiple of 8
  for (int64_t i = 0; i < n; i += lanes<double>) store(p + i, F64{});
}

PK_INLINE F32 load_wide(const float* p, float) { return load(p); }
PK_INLINE F64 load_wide(const float* p, double) { return load_as<double>(p); }
PK_INLINE F64 load_wide(const double* p, double) { return load(p); }
template <class T> PK_INLINE void narrow(F64 v, T* p) {
  typedef T Out __attribute__((vector_size(sizeof(T) * lanes<double>)));
  const Out out = __builtin_convertvector(v, Out);
  __builtin_memcpy(p, &out, sizeof out);
}
template <class To, class From>
PK_INLINE void copy_lanes(const From* from, To* to) {  // 16 of them, into the same or a wider type
  for (int o = 0; o < panel_lanes; o += lanes<To>) store(to + o, load_wide(from + o, To()));
}

// `count` panels of a block as doubles, an odd number of columns filled up with zeros
template <class T> PK_INLINE void widen(const T* block, int count, int64_t B, double* out) {
  for (int p = 0; p < count; p++) {
    for (int64_t b = 0; b < B; b++) copy_lanes(block + (p * B + b) * 16, out + (p * even(B) + b) * 16);
    if (B % 2) clear(out + (p * even(B) + B) * 16, 16);
  }
}

PK_INLINE int panels_left(int64_t group, int64_t n) {
  const int64_t left = (n + 15) / 16 - group * group_panels;
  return (int)(left < 0 ? 0 : left < group_panels ? left : group_panels);
}

template <class T> void inner(const T* x, const T* y, int64_t chunk, int64_t n, int64_t B, double* out, void* memory) {
  const Room r = open_room(memory, B);
  const int64_t E = even(B);
  clear(r.partial, E * E * half_lanes);
  for (int64_t group = chunk * chunk_groups; group < (chunk + 1) * chunk_groups; group++) {
    const int count = panels_left(group, n);
    if (count == 0) break;
    widen(x + group * group_units * B, count, B, r.x);
    if (y != x) widen(y + group * group_units * B, count, B, r.y);
    accumulate(r.x, E, y == x ? r.x : r.y, E, count, r.partial);
  }
  reduce_partials(r.partial, E, B, B, x == y, out, B);
}

// The group's draws, column j at out[j * 64]: zero from unit `full` on.
PK_INLINE void draw_group(const Keys& keys, const Draws& g, int64_t group, int64_t full, float* out) {
  constexpr int batch = 8;
  alignas(64) uint32_t words[batch * group_units];
  for (int64_t j = 0; j < g.count; j += batch) {
    const int count = (int)(g.count - j < batch ? g.count - j : batch);
    for (int i = 0; i < count; i++)
      tall_words(keys, g.purpose_layer, g.replica, group, (uint32_t)g.columns[j + i], words + i * group_units);
    normals_of_words(words, count, out + j * group_units);
  }
  const int64_t left = full - group * group_units;
  if (left < group_units)
    for (int64_t j = 0; j < g.count; j++)
      for (int64_t u = left < 0 ? 0 : left; u < group_units; u++) out[j * group_units + u] = 0;
}

// partial[(j * B + b) * 16 + lane] += g_j y_b over `count` panels; columns of g: [(panel * J + j) * 16].
template <int rows, int columns, class T>
PK_INLINE void accumulate_tile(const T* g, int64_t J, const T* y, int64_t B, int count, T* partial) {
  constexpr int parts = panel_vectors<T>;
  Vec<T> sum[rows][columns][parts];
  for (int i = 0; i < rows; i++)
    for (int c = 0; c < columns; c++)
      for (int v = 0; v < parts; v++) sum[i][c][v] = load(partial + (i * B + c) * 16 + v * lanes<T>);
  for (int p = 0; p < count; p++)
#pragma GCC unroll 8
    for (int v = 0; v < parts; v++) {
      Vec<T> x[rows];
      for (int i = 0; i < rows; i++) x[i] = load(g + (p * J + i) * 16 + v * lanes<T>), hold(x[i]);
#pragma GCC unroll 4
      for (int c = 0; c < columns; c++) {
        Vec<T> yc = load(y + (p * B + c) * 16 + v * lanes<T>);
        hold(yc);
        for (int i = 0; i < rows; i++) sum[i][c][v] = fma(x[i], yc, sum[i][c][v]);
      }
    }
  for (int i = 0; i < rows; i++)
    for (int c = 0; c < columns; c++)
      for (int v = 0; v < parts; v++) store(partial + (i * B + c) * 16 + v * lanes<T>, sum[i][c][v]);
}
template <class T>
PK_INLINE void accumulate_plain(const T* g, int64_t J, const T* y, int64_t B, int count, T* partial) {
  constexpr int wide = panel_vectors<T> <= 2 ? 3 : 1;  // as many sums as there are registers for
  for (int64_t j = 0; j < J; j += 2)
    for (int64_t b = 0; b < B;) {
      const T *gj = g + j * 16, *yb = y + b * 16;
      T* to = partial + (j * B + b) * 16;
      if (j + 1 < J && b + wide <= B)
        accumulate_tile<2, wide>(gj, J, yb, B, count, to), b += wide;
      else if (j + 1 < J)
        accumulate_tile<2, 1>(gj, J, yb, B, count, to), b++;
      else
        accumulate_tile<1, 1>(gj, J, yb, B, count, to), b++;
    }
}

// The group's draws into a block.
template <class T>
PK_INLINE void keep_group(const float* g, int64_t group, int64_t count, int64_t n, T* keep, int64_t B) {
  for (int p = 0; p < panels_left(group, n); p++) {
    const int64_t left = n - (group * group_panels + p) * 16;
    T* panel = keep + (group * group_panels + p) * 16 * B;
    for (int64_t j = 0; j < count; j++) {
      copy_lanes(g + j * group_units + p * 16, panel + j * 16);
      for (int64_t o = left; o < 16; o++) panel[j * 16 + o] = 0;
    }
  }
}

template <class T>
void drawn_plain(const Draws& g, int64_t chunk, int64_t n, const T* y, T* keep, int64_t B, double* out, void* memory) {
  const Room r = open_room(memory, B);
  T *draws = (T*)r.x, *partial = (T*)r.partial;
  const int64_t J = g.count;
  for (int64_t i = 0; i < J * B * 16; i += lanes<T>) store(partial + i, Vec<T>{});
  Keys keys;
  expand(keys, g.seed);
  for (int64_t first = chunk * chunk_groups; first < (chunk + 1) * chunk_groups; first += stretch_groups) {
    int count = 0;
    for (int64_t group = first; group < first + stretch_groups; group++) {
      const int all = panels_left(group, n);
      if (all == 0) break;
      draw_group(keys, g, group, n, r.g);
      for (int p = 0; p < all; p++, count++)
        for (int64_t j = 0; j < J; j++) copy_lanes(r.g + j * group_units + p * 16, draws + (count * J + j) * 16);
      if (keep) keep_group(r.g, group, J, n, keep, B);
    }
    if (count == 0) break;
    accumulate_plain(draws, J, y + first * group_units * B, B, count, partial);
  }
  for (int64_t i = 0; i < J * B; i++) {
    F64 v[panel_vectors<double>];
    for (int k = 0; k < panel_vectors<double>; k++) v[k] = load_as<double>(partial + i * 16 + k * lanes<double>);
    out[i] = sum_lanes<double>(v);
  }
}

template <class T>
void drawn(const Draws& g, int64_t chunk, int64_t n, int64_t full, const T* y, T* keep, int64_t B, double* out,
           double* own, bool careful, void* memory) {
  if (!careful) return drawn_plain(g, chunk, n, y, keep, B, out, memory);
  const Room r = open_room(memory, B);
  const int64_t E = even(g.count), Y = even(B);
  double *with_y = r.partial, *with_g = r.partial + even(B) * even(B) * half_lanes;
  clear(with_y, E * Y * half_lanes), clear(with_g, E * E * half_lanes);
  Keys keys;
  expand(keys, g.seed);
  for (int64_t group = chunk * chunk_groups; group < (chunk + 1) * chunk_groups; group++) {
    const int all = panels_left(group, full), count = panels_left(group, n);
    if (all == 0) break;
    draw_group(keys, g, group, full, r.g);
    for (int p = 0; p < all; p++) {
      for (int64_t j = 0; j < g.count; j++) copy_lanes(r.g + j * group_units + p * 16, r.x + (p * E + j) * 16);
      if (E != g.count) clear(r.x + (p * E + g.count) * 16, 16);
    }
    if (keep) keep_group(r.g, group, g.count, n, keep, B);
    if (y && count) {
      widen(y + group * group_units * B, count, B, r.y);
      accumulate(r.x, E, r.y, Y, count, with_y);
    }
    if (own) accumulate(r.x, E, r.x, E, all, with_g);
  }
  if (y) reduce_partials(with_y, Y, g.count, B, false, out, B);
  if (own) reduce_partials(with_g, E, g.count, g.count, true, own, B);
}

// -- small linear combinations

template <class A> constexpr int tile = panel_vectors<A> >= 8 ? 1 : 8 / panel_vectors<A>;

// Entries rounded to the precision A of the sum, rows padded to a multiple of 8; depth[t]: rows that reach the t-th 8
// columns.
template <class A> PK_INLINE void round_factor(const Factor& F, int64_t B, A* out) {
  for (int64_t k = 0; k < F.count; k++)
    for (int64_t b = 0; b < eights(B); b++) out[k * eights(B) + b] = b < B ? (A)F.entries[k * B + b] : A(0);
}

// acc += source F over one panel, columns first .. first + tile of F; column k of the source lies at source + at(k)
template <class A, class T, class At>
PK_INLINE void multiply(Vec<A> (&acc)[tile<A>][panel_vectors<A>], const T* source, At at, int64_t count, const A* F,
                        int64_t stride) {
  for (int64_t k = 0; k < count; k++) {
    const T* column = source + at(k);
    Vec<A> x[panel_vectors<A>];
    for (int v = 0; v < panel_vectors<A>; v++) x[v] = load_wide(column + v * lanes<A>, A());
    for (int t = 0; t < tile<A>; t++)
      for (int v = 0; v < panel_vectors<A>; v++) acc[t][v] = fma(x[v], broadcast(F[k * stride + t]), acc[t][v]);
  }
}
template <class A, class T>
PK_INLINE void put(const Vec<A> (&acc)[tile<A>][panel_vectors<A>], int64_t first, int64_t B, T* panel) {
  for (int t = 0; t < tile<A> && first + t < B; t++)
    for (int v = 0; v < panel_vectors<A>; v++) {
      T* to = panel + (first + t) * 16 + v * lanes<A>;
      if constexpr (sizeof(A) == sizeof(T))
        store(to, acc[t][v]);
      else
        narrow(acc[t][v], to);
    }
}

template <class T>
void expand(const Draws& g, const Factor& F, int64_t chunk, int64_t n, T* z, int64_t B, void* memory) {
  const Room r = open_room(memory, B);
  T* entries = (T*)r.F;
  round_factor(F, B, entries);
  Keys keys;
  expand(keys, g.seed);
  for (int64_t group = chunk * chunk_groups; group < (chunk + 1) * chunk_groups; group++) {
    const int count = panels_left(group, n);
    if (count == 0) break;
    draw_group(keys, g, group, n, r.g);
    for (int64_t first = 0; first < B; first += tile<T>) {
      int64_t deep = 0;  // the factor is nearly triangular
      for (int64_t k = 0; k < F.count; k++)
        for (int64_t b = first; b < first + tile<T>; b++)
          if (entries[k * eights(B) + b] != 0) deep = k + 1;
      for (int p = 0; p < count; p++) {
        Vec<T> acc[tile<T>][panel_vectors<T>] = {};
        multiply<T>(acc, r.g + p * 16, [](int64_t k) { return k * group_units; }, deep, entries + first, eights(B));
        put<T>(acc, first, B, z + (group * group_panels + p) * 16 * B);
      }
    }
  }
}

template <class A, class T>
PK_INLINE void combine_as(const T* a, const Factor& X, const Factor& E, int64_t chunk, int64_t n, T* z, int64_t B,
                          const Room& r) {
  A *x = (A*)r.F, *e = (A*)r.G;
  round_factor(X, B, x), round_factor(E, B, e);
  const int64_t end = (chunk + 1) * chunk_groups * group_panels, panels = (n + 15) / 16;
  for (int64_t p = chunk * chunk_groups * group_panels; p < end && p < panels; p++) {
    T* row = (T*)r.x;
    for (int64_t first = 0; first < B; first += tile<A>) {
      Vec<A> acc[tile<A>][panel_vectors<A>] = {};
      multiply<A>(acc, a + p * 16 * B, [&](int64_t k) { return X.columns[k] * 16; }, X.count, x + first, eights(B));
      multiply<A>(acc, z + p * 16 * B, [&](int64_t k) { return E.columns[k] * 16; }, E.count, e + first, eights(B));
      put<A>(acc, first, B, row);
    }
    for (int64_t i = 0; i < 16 * B; i += lanes<T>) store(z + p * 16 * B + i, load(row + i));
  }
}
template <class T>
void combine(const T* a, const Factor& X, const Factor& E, int64_t chunk, int64_t n, T* z, int64_t B, bool careful,
             void* memory) {
  const Room r = open_room(memory, B);
  if (careful)
    combine_as<double>(a, X, E, chunk, n, z, B, r);
  else
    combine_as<T>(a, X, E, chunk, n, z, B, r);
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
