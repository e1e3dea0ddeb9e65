// Losses: dJ/dy and J of a block of logits, in double; by stable formulas with exponents, or by the plain ones of T.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/weights.hpp"
#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

template <class T> class Objective {
 public:
  explicit Objective(const Program& program);
  static int64_t bytes(const Program& program);
  // Targets are the program's, or drawn at `address`. Sets g's data and exponent (g.n as y's), mean over the columns
  // included; returns J.
  double differentiate(const Block<T>& y, const Tall& address, Team& team, Block<T>& g);

 private:
  double plain(const Block<T>& y, const double* targets, T* g);
  double read_out(const Block<T>& y, const double* t);
  double mean_square_error(const Block<T>& y, const double* t);
  double binary(const Block<T>& y, const double* t);
  double cross_entropy(const Block<T>& y, const double* t);
  void write(Block<T>& g);

  const HeadSpec& head_;
  const int64_t columns_;
  const bool exponent_;
  Vector<double> y_, sign_, log2_;  // (outputs, B); g = sign 2^log2
};

}  // namespace pykernel
