// What the matrix-free layer does over units: draws, their inner products with blocks, and small linear combinations.
// One table per instruction set. SPDX-License-Identifier: BSD-3-Clause
//
// Blocks: unit i, input b at [(i / 16 * B + b) * 16 + i % 16], padding zero. A kernel works on one chunk of 64 panels,
// number `chunk`; x, y, z, ... point to the whole block. Inner products of a block with itself are taken in double
// precision whatever T: factors of nearly dependent columns are made from them.
#pragma once
#include <stdint.h>

namespace pykernel {

// Columns of standard normals down the units: column j is line columns[j] of the tall array (pykernel/stream.py).
struct Draws {
  uint64_t seed;
  uint32_t purpose_layer, replica;  // layer | purpose << 24
  const int32_t* columns;
  int64_t count;
};

// out = source F: F (count, B) row by row, its row j multiplies the column columns[j] of the source.
struct Factor {
  const double* entries;
  const int32_t* columns;
  int64_t count;
};

template <class T> struct MatrixFree {
  // bytes of room that one call needs
  int64_t (*room)(int64_t B);
  // out[b * B + c] = sum of x_b y_c over the chunk's units of n
  void (*inner)(const T* x, const T* y, int64_t chunk, int64_t n, int64_t B, double* out, void* room);
  // With g the draws for units 0 .. full - 1: out[j * B + b] = sum of g_j y_b over units below n (not where y is null),
  // own[j * B + k] = sum of g_j g_k over all units (not where own is null); keep (may be null) receives g's units below
  // n in the columns 0 .. count - 1. `careful`: in double precision; else sums of a chunk in T, where y is given, own
  // is not and full is n.
  void (*drawn)(const Draws& g, int64_t chunk, int64_t n, int64_t full, const T* y, T* keep, int64_t B, double* out,
                double* own, bool careful, void* room);
  // z = g F
  void (*expand)(const Draws& g, const Factor& F, int64_t chunk, int64_t n, T* z, int64_t B, void* room);
  // z = a X + z E, in place; `careful`: added up in double precision
  void (*combine)(const T* a, const Factor& X, const Factor& E, int64_t chunk, int64_t n, T* z, int64_t B, bool careful,
                  void* room);
};

#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
const MatrixFree<float>& matrix_free(float);
const MatrixFree<double>& matrix_free(double);
}  // namespace PYKERNEL_ISA_NAMESPACE
#endif

}  // namespace pykernel
