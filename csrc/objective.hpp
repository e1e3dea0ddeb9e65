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
  // that are read included; returns J. W is linear: logits are read where the signal would be.
  double differentiate(const Block<T>& y, const Tall& address, Team& team, Block<T>& g);

 private:
  double logit(const Block<T>& y, int64_t o, int64_t b) const;
  void spread(T* g, int64_t o, int64_t b, double d) const;
  double plain(const Block<T>& y, const double* targets, T* g);
  double read_out(const Block<T>& y, const double* t);
  double mean_square_error(const Block<T>& y, const double* t);
  double binary(const Block<T>& y, const double* t);
  double cross_entropy(const double* t, Team& team);
  void cross_entropies(const double* t, size_t first, size_t inputs, double* losses);
  void write(Block<T>& g, Team& team);

  const HeadSpec& head_;
  const int64_t columns_, read_, positions_;  // of the logits' block, those that are read, columns for each of these
  const bool exponent_;
  Vector<double> y_;          // (outputs, columns that are read): logits, then log2 |dJ/dlogit|
  Vector<signed char> sign_;  // of it
};

}  // namespace pykernel
