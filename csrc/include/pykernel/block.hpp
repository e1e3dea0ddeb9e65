// A signal or a gradient at one place of a chain, in the layout that kernels work on, with an exponent so that no
// magnitude is lost. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

namespace pykernel {

// n units times B inputs, mantissas times 2^exponent; unit i, input b at [entry_at(i, b, B)], padding zero.
// `data` holds block_entries(n, B) numbers, at best aligned to 64 bytes. For B = 1 it is the plain vector.
template <class T> struct Block {
  T* data;
  int64_t n;
  int64_t exponent;
  double largest;  // max |mantissa|
};

constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
constexpr int64_t block_entries(int64_t n, int64_t B) { return padded(n) * B; }
// Where unit i of input b lies in a block of B inputs; panels of a matrix hold row i, column b so, with B the number of
// columns.
constexpr int64_t entry_at(int64_t i, int64_t b, int64_t B) { return (i / 16 * B + b) * 16 + i % 16; }

// What is summed over a block as it is made: sum and square are of mantissas at `exponent`.
struct Measure {
  double sum, square;
  int64_t exponent;
  double log2_norm() const;
};

// x (n, B) row by row, of float or double, into block.data, of which the rest is set too. Numbers far from one give
// their power of two to the exponent. And back, times 2^exponent, zero or inf where T ends.
template <class T, class From> void pack(const From* x, int64_t n, int64_t B, Block<T>& block, bool exponent = true);
template <class T> void unpack(const Block<T>& block, int64_t B, T* x);

}  // namespace pykernel
