// What the kernels around the products offer to the run loop: activations, norms and sums over blocks, one table per
// instruction set. SPDX-License-Identifier: BSD-3-Clause
//
// Blocks: unit i, input b at [(i / 16 * B + b) * 16 + i % 16]. A kernel works on one chunk: `units` consecutive units
// that start at a panel (at most chunk_units, so that sums have a fixed shape), all B inputs. Padding lanes of what it
// writes are zero.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "pykernel/formats.hpp"
#include "pykernel/plan.hpp"

namespace pykernel {

constexpr int64_t chunk_panels = 64, chunk_units = 16 * chunk_panels;

// Sums over the chunk in 16 lane partials and a fixed tree; largest is max |x|.
struct Sums {
  double sum, square, largest;
};

struct SlopeSums {
  double square, largest;
  int64_t saturated, dead;
};

// Of a run's block, times a factor, and what it is without formats; and what rounding does to the block: how many of
// its numbers, neither zero nor inf nor nan, it makes zero, and how many inf or the largest. Magnitudes are of such
// numbers.
struct Comparison {
  double error, square, plain_square, product;
  double smallest, largest;
  int64_t flushed, overflowed;
};

// One activation function. `parameters` are those of its row; for "callback" they point to a Callback.
template <class T>
using Value = Sums (*)(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters);
template <class T>
using Slope = SlopeSums (*)(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold,
                            const double* parameters);
template <class T> struct Activation {
  const ActivationRow* facts;
  Value<T> value;  // v = out * phi(in * z); in and out are powers of two
  Slope<T>
      slope;  // out = g * phi'(in * z); a slope below `threshold` counts as saturated, units without any slope as dead
  // the same by the textbook formulas, which lose their tails
  Value<T> plain_value;
  Slope<T> plain_slope;
};

template <class T> struct Elementwise {
  const Activation<T>* activations;
  int activation_count;
  Sums (*observe)(const T* x, int64_t units, int64_t B, T factor);  // of factor x
  // out = fx x + fy y; y may be null
  Sums (*combine)(const T* x, const T* y, T* out, int64_t units, int64_t B, T fx, T fy);
  // out = f x y entry by entry
  Sums (*multiply)(const T* x, const T* y, T* out, int64_t units, int64_t B, T f);
  // out = f x y, y of one input
  Sums (*multiply_units)(const T* x, const T* y, T* out, int64_t units, int64_t B, T f);
  // z = fz z + fb b, b of one input
  Sums (*add_bias)(T* z, const T* b, int64_t units, int64_t B, T fz, T fb);
  // x as its format holds it; words: of every number, in its place, where it is rounded by chance, else null
  Sums (*round)(T* x, int64_t units, int64_t B, const Format& format, const uint32_t* words);
  // sums in double, of 16 lane partials
  Comparison (*compare)(const T* x, const T* plain, int64_t units, int64_t B, double factor, double plain_factor,
                        const Format& format, const uint32_t* words);
  // sum over units of (sum over inputs of delta)^2
  double (*bias_square)(const T* delta, int64_t units, int64_t B);
  // Sixteen lanes of `count` columns are added to columns `stride` apart.
  void (*add_columns)(T* to, int64_t stride, const T* from, int64_t count);
  // 1 / norm of columns b .. b + count - 1, in double; 0 of one that is zero.
  void (*inverse_norms)(const T* x, int64_t panels, int64_t B, int64_t b, int64_t count, double* out);
  // The square of the norm of the sum of a panel's columns, each times a factor.
  double (*directed_square)(const T* panel, int64_t B, const double* factors);
  // per unit over the batch: h = (z - mean) / sqrt(variance + eps)
  void (*batch_norm)(const T* z, T* h, int64_t units, int64_t B, T eps);
  // dz from z and dh; g may be dz
  SlopeSums (*batch_norm_backward)(const T* z, const T* g, T* dz, int64_t units, int64_t B, T eps);
  // sums[b] of x, products[b] of x y (y null: of x x)
  void (*column_sums)(const T* x, const T* y, int64_t units, int64_t B, double* sums, double* products);
  // squares[b] of x - mean[b]
  void (*column_squares)(const T* x, int64_t units, int64_t B, const T* mean, double* squares);
  // h = (z - mean[b]) factor[b]
  void (*column_norm)(const T* z, T* h, int64_t units, int64_t B, const T* mean, const T* factor);
  // dz = factor[b] (g - mean[b] - h slope[b])
  SlopeSums (*column_norm_backward)(const T* h, const T* g, T* dz, int64_t units, int64_t B, const T* mean,
                                    const T* slope, const T* factor);
};

#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
const Elementwise<float>& elementwise(float);
const Elementwise<double>& elementwise(double);
}  // namespace PYKERNEL_ISA_NAMESPACE
#endif

}  // namespace pykernel
