// What the dense products offer to the run loop: one table per instruction set and arithmetic.
// SPDX-License-Identifier: BSD-3-Clause
//
// Blocks: unit i, input b at [(i / 16 * B + b) * 16 + i % 16]; padding of what is read is zero (u and delta), of what
// is written too. A call computes a range of outputs: one network can be split among threads, and the bits do not
// depend on the split.
#pragma once
#include "kernels/weights.hpp"

namespace pykernel {

template <class T> struct Products {
  const ParameterRange* parameters;  // in the order of Distribution
  bool one_in_order;                 // the backward product of one input reads a weight in blocks' order
  // Draws of panels p0 .. p1 - 1 and columns k0 (a multiple of 4) .. k1 - 1 to panels[((p - p0) * (k1 - k0) + k - k0) *
  // 16 + lane].
  void (*draw)(const Weights<T>& w, int64_t p0, int64_t p1, int64_t k0, int64_t k1, float* panels);
  // z = scale W u, panels p0 .. p1 - 1 of z; where keep is not null the draws are stored there, for w.kept.
  // The sum over k goes in order in one accumulator per output.
  void (*forward)(const Weights<T>& w, int64_t p0, int64_t p1, int64_t B, const T* u, T* z, float* keep);
  // du = scale W^T delta, units k0 .. k1 - 1 of du; k0 a multiple of 16, k1 too or the last. With B >= many_inputs the
  // sum goes over the rows in order in one accumulator per output, with fewer over panels in order in 16 lane partials,
  // then a fixed tree. scratch: backward_scratch<T>(rows, B) bytes, 64-byte aligned, each thread's own.
  void (*backward)(const Weights<T>& w, int64_t k0, int64_t k1, int64_t B, const T* delta, T* du, void* scratch);
  // out (B, B) = x^T x over `units` units (one chunk of at most 64 panels), lane partials in T and a fixed tree.
  // scratch: backward_scratch<T>(0, B).
  void (*gram)(const T* x, int64_t units, int64_t B, double* out, void* scratch);
  // Rows p * 16 .. of a row-major matrix into panels p0 .. p1 - 1, rows beyond the last as zeros.
  void (*pack)(const T* matrix, int64_t rows, int64_t columns, int64_t p0, int64_t p1, T* panels);
  // Unit draws of a tall array, columns b0 .. b0 + B - 1, in block layout with zero padding: panels p0 .. p1 - 1, p0 a
  // multiple of 4 and first in out.
  void (*tall)(const Tall& a, int64_t units, int64_t b0, int64_t B, int64_t p0, int64_t p1, T* out);
  // Panels p0 .. p1 - 1 of a whole weight's, times its scale, as its format holds them by chance.
  void (*round_panels)(const Weights<T>& w, int64_t p0, int64_t p1, T* panels);
};
constexpr int64_t many_inputs = 7;
// Draws that the forward product keeps for the backward one lie as that reads them: memory gives them a third faster.
template <class T> bool lie_by_blocks(const Products<T>& table, int64_t B) {
  return B >= many_inputs || (B == 1 && table.one_in_order);
}
// Few inputs: lane sums of 16 units for all, a tile of 128 panels and 16 columns. Many: sums of 16 units and all of
// delta, inputs padded to whole vectors, a tile of 8 panels and 16 columns.
template <class T> constexpr size_t backward_scratch(int64_t rows, int64_t B) {
  const int64_t few = (6 + (B < many_inputs ? 128 : 0)) * 256;
  const int64_t many = B < many_inputs ? 0 : (B + 15) / 16 * 16 * 16 * (panels_of(rows) + 1) + 8 * 256;
  return (size_t)(few > many ? few : many) * sizeof(T);
}

#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
const Products<float>& products(float);
const Products<double>& products(double);
}  // namespace PYKERNEL_ISA_NAMESPACE
#endif

}  // namespace pykernel
