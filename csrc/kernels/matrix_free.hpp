// What the matrix-free layer does over units: draws, inner products of columns, and small linear combinations of them.
// One table per instruction set. SPDX-License-Identifier: BSD-3-Clause
//
// Blocks: unit i, input b at [(i / 16 * B + b) * 16 + i % 16], padding zero. `careful`: added up in double precision
// whatever T; factors of nearly dependent columns are made from such sums.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/weights.hpp"

namespace pykernel {

// Columns of standard normals down the units: column j is line columns[j] of the tall array (pykernel/stream.py).
struct Draws {
  uint64_t seed;
  uint32_t purpose_layer, replica;  // layer | purpose << 24
  const int32_t* columns;
  int64_t count;
};

// Columns side by side: 16 units of panel p and column j at data + j * column + p * panel.
template <class T> struct Columns {
  const T* data;
  int64_t column, panel;
};

template <class T> struct MatrixFree {
  // The draws of one group, zero from unit n on; 16 units of column j and panel p at out + j * column + p * panel.
  void (*draw)(const Draws& g, int64_t group, int64_t n, T* out, int64_t column, int64_t panel);
  // out[j * stride + b] (+)= sum of a_j y_b over `panels` panels, for j < J and b0 <= b < b1; of a triangle b >= j
  // alone. Lane partials, 16 in T or 8 in double, then a fixed tree: no shape of tile changes a bit.
  void (*inner)(const Columns<T>& a, int64_t J, const Columns<T>& y, int64_t b0, int64_t b1, int panels, bool careful,
                bool triangle, bool add, double* out, int64_t stride);
  // `panels` panels of B columns, `stride` numbers from one to the next, as `multiply` reads its right side: zero from
  // the B-th to whole panels of columns. `careful`, here and below: to double.
  void (*turn)(const T* from, int64_t B, int64_t stride, int panels, bool careful, void* out);
  void (*widen)(const T* from, int64_t count, double* out);
  // As `inner`, of many columns: y turned; a's panels a_panel numbers apart, or of a triangle y itself. One accumulator
  // an entry, in the order of units.
  void (*multiply)(const void* a, int64_t a_panel, int64_t J, const void* y, int64_t b0, int64_t b1, int panels,
                   bool careful, bool triangle, bool add, double* out, int64_t stride);
  // F (rows, B), row by row, as `combine` reads it: factor_bytes of memory.
  void (*pack)(const double* F, int64_t stride, int64_t rows, int64_t B, bool careful, void* out);
  // z (+)= x F over `panels` panels, `room` columns from one to the next; one accumulator an entry, in the order of the
  // rows of F.
  void (*combine)(const Columns<T>& x, int64_t rows, const void* F, int64_t B, int panels, bool careful, bool add, T* z,
                  int64_t room);
};

constexpr int64_t factor_bytes(int64_t B, int64_t rows) { return (B + 7) / 8 * 64 + rows * (B + 24) * 8; }
// Units whose inner products are added up in lane partials: few enough for a dozen columns to stay in L1.
template <class T> constexpr int64_t summed_units = sizeof(T) == 4 ? 512 : 256;
// The same of many columns, in the precision that they are added up in: 512 columns of them stay in half of L2.
template <class S> constexpr int64_t wide_units = 1024 / sizeof(S);
#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
const MatrixFree<float>& matrix_free(float);
const MatrixFree<double>& matrix_free(double);
}  // namespace PYKERNEL_ISA_NAMESPACE
#endif

}  // namespace pykernel
