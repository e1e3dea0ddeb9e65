// Gram matrices x^T x of blocks (units x columns), from which norms of weight gradients follow.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "layer.hpp"
#include "linear.hpp"

namespace pykernel {

template <class T> class Grams {
 public:
  // entries: the most of a matrix.
  Grams(int64_t entries, int64_t largest_width, Linear<T>& linear, Layer<T>& layer, Team& team);
  static int64_t bytes(int64_t entries, int64_t largest_width);

  // Of the mantissas, with their exponent; plain arithmetic, without exponents, has them scaled. `measure` is the
  // block's.
  void make(const Block<T>& block, const Measure& measure, double* out, int64_t* exponent);

 private:
  void make_uneven(const Block<T>& x, double* out) const;

  Linear<T>& linear_;
  Layer<T>& layer_;
  Team& team_;
  Vector<double> parts_;  // of the chunks
};

}  // namespace pykernel
