// Losses: dJ/dy and J of a block of logits, in double; by stable formulas with exponents, or by the plain ones of T.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "linear.hpp"
#include "memory.hpp"
#include "pykernel/plan.hpp"

namespace pykernel {

template <class T> class Head {
 public:
  explicit Head(const Plan& plan);
  // targets are (outputs, B) row-major. Sets g's data and exponent (g.n as y's), mean over the batch included; returns J.
  double differentiate(const Block<T>& y, const double* targets, Block<T>& g);

 private:
  double plain(const Block<T>& y, const double* targets, T* g);
  double read_out(const Block<T>& y, const double* t);
  double mean_square_error(const Block<T>& y, const double* t);
  double binary(const Block<T>& y, const double* t);
  double cross_entropy(const Block<T>& y, const double* t);
  void write(Block<T>& g);

  const Plan& plan_;
  Vector<double> y_, sign_, log2_;  // (outputs, B); g = sign 2^log2
};

}  // namespace pykernel
