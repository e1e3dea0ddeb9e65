// What attention offers to the run loop: softmax-weighted sums over the positions of one input, one head and a tile of
// queries at a time, forward and backward. SPDX-License-Identifier: BSD-3-Clause
//
// Arrays of one head lie in two ways: *by units*, unit i, position t of n at [(i / 16 * n + t) * 16 + i % 16] as blocks
// do, and *turned*, the same with units and positions exchanged. Every sum goes over units, keys or queries in order in
// one accumulator per output, or in 16 lane partials and a fixed tree, so that bits depend neither on tiles nor on the
// instruction set.
#pragma once
#include <stdint.h>

#include "pykernel/block.hpp"

namespace pykernel {

// A score is power * (factor k^T q); plain: softmax without taking the largest score out first.
template <class T> struct MixHead {
  int64_t units, positions;  // of a head, of an input
  bool causal, plain;
  T factor, power;
  T gap;  // 0, or how far below a query's largest score another comes at best, over all queries: see `backward`
  const T *keys, *keys_turned, *values, *values_turned;  // whole heads
};

// A tile of queries: `count` from `first` on, in arrays of `count` positions.
template <class T> struct MixTile {
  int64_t first, count;
  const T *queries, *queries_turned;  // the latter in backward only, as what follows
  const T* gradient;
  T* gradient_turned;  // backward divides it by each query's sum of shares
  T *scores, *flow;    // room for padded(positions) * count each
};

// Over queries: the sum of their entropies in nats; number, mean and summed squared deviation of scores / power.
struct MixSums {
  double entropy = 0, count = 0, mean = 0, square = 0;
  void add(const MixSums& other);
};

template <class T> struct Mixing {
  // `units` units from `first_unit` on of columns first .. first + count - 1 of a block of C columns, times factor, by
  // units, padding zero; and back (adding nothing, writing no padding).
  void (*gather)(const T* block, int64_t C, int64_t first_unit, int64_t units, int64_t first, int64_t count, T factor,
                 T* out);
  void (*scatter)(const T* in, int64_t C, int64_t first_unit, int64_t units, int64_t first, int64_t count, T factor,
                  T* block);
  // m times n to n times m: from [(i / 16 * n + j) * 16 + i % 16], i < m, to [(j / 16 * m + i) * 16 + j % 16].
  void (*turn)(const T* in, int64_t m, int64_t n, T* out);
  // z (+)= factor w u, w (rows, n) in panels `stride` apart, u of n units and `columns` columns; first: =
  void (*product)(const T* w, int64_t stride, int64_t rows, int64_t n, const T* u, int64_t columns, T* z, bool first,
                  T factor);
  // out = V A by units; `sums` (or null) is added to.
  void (*forward)(const MixHead<T>& head, const MixTile<T>& tile, T* out, MixSums* sums);
  // dq by units; dk and dv, turned, are added to. dS = A (dA - sum A dA), with dA seen from the largest weight's, so
  // that one-hot weights leave no difference of rounding errors. Returns 0, or, where each query's largest weight
  // leaves next to nothing to the others, how far below the largest score another comes at best (-inf where there is
  // no other): called again with that as head.gap, dq and dk are times e^(-power gap), which plain numbers could not
  // hold.
  T (*backward)(const MixHead<T>& head, const MixTile<T>& tile, T* dq, T* dk, T* dv);
};

// Queries of a tile: few where there are many keys, so that their scores stay in L2.
constexpr int64_t most_queries = 96;
constexpr int64_t mix_tile(int64_t positions, bool causal) {
  const int64_t fit = (1 << 16) / padded(positions) / 16 * 16, most = causal ? 32 : most_queries;
  const int64_t bound = fit < 16 ? 16 : fit > most ? most : fit, tiles = (positions + bound - 1) / bound;
  return padded((positions + tiles - 1) / tiles);
}

#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
const Mixing<float>& mixing(float);
const Mixing<double>& mixing(double);
}  // namespace PYKERNEL_ISA_NAMESPACE
#endif

}  // namespace pykernel
