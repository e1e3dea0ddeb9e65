// The table of small products, for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/algebra.hpp"

#include "kernels/simd-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

#if defined(PK_AVX512)
constexpr int tile_rows = 6, tile_vectors = 4;
#else
constexpr int tile_rows = 4, tile_vectors = 3;
#endif

template <int rows, int vectors>
PK_INLINE void tile(int64_t depth, const double* a, int64_t a_row, int64_t a_term, const double* b, int64_t b_row,
                    double* c, int64_t c_row) {
  constexpr int n = lanes<double>;
  F64 acc[rows][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) acc[i][v] = load(c + i * c_row + v * n);
  for (int64_t k = 0; k < depth; k++, a += a_term, b += b_row) {
    F64 x[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) x[v] = load(b + v * n);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
      const F64 factor = broadcast(a[i * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) acc[i][v] = fnma(factor, x[v], acc[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) store(c + i * c_row + v * n, acc[i][v]);
}

template <int vectors>
static void strip(int64_t m, int64_t depth, const double* a, int64_t a_row, int64_t a_term, const double* b,
                  int64_t b_row, double* c, int64_t c_row) {
  int64_t i = 0;
  for (; i + tile_rows <= m; i += tile_rows)
    tile<tile_rows, vectors>(depth, a + i * a_row, a_row, a_term, b, b_row, c + i * c_row, c_row);
  for (; i < m; i++) tile<1, vectors>(depth, a + i * a_row, a_row, a_term, b, b_row, c + i * c_row, c_row);
}

void subtract(int64_t m, int64_t n, int64_t depth, const double* a, int64_t a_row, int64_t a_term, const double* b,
              int64_t b_row, double* c, int64_t c_row) {
  constexpr int wide = tile_vectors * lanes<double>;
  int64_t j = 0;
  for (; j + wide <= n; j += wide) strip<tile_vectors>(m, depth, a, a_row, a_term, b + j, b_row, c + j, c_row);
  for (; j < n; j += lanes<double>) strip<1>(m, depth, a, a_row, a_term, b + j, b_row, c + j, c_row);
}

constexpr Algebra table = {subtract};

}  // namespace

const Algebra& algebra() { return table; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
