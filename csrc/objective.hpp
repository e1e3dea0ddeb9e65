// Losses: dJ/dy and J of a block of logits, in double; by stable formulas with exponents, or by the plain ones of T.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/weights.hpp"
#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

// Which columns of a block are read: all, or of every input's the first, the last or their mean.
struct Reading {
  int over;
  int64_t columns, positions;  // of the block, and for each that is read

  template <class T> double of(const T* x, int64_t i, int64_t b) const;
  // A derivative into the columns that it was read of; the others are zero.
  template <class T> void spread(T* g, int64_t i, int64_t b, double d) const;
};

template <class T> class Objective {
 public:
  explicit Objective(const Program& program);
  static int64_t bytes(const Program& program);
  // Targets are the program's, or drawn at `address`. Sets g's data and exponent (g.n as y's), mean over the columns
  // that are read included; returns J. W is linear: logits are read where the signal would be, but in a run with
  // formats, which rounds logits of what is read: then y and g have these columns only.
  double differentiate(const Block<T>& y, const Tall& address, Team& team, Block<T>& g);
  bool reads_first() const { return reads_first_; }
  void read(const Block<T>& signal, Block<T>& out) const;
  void spread(const Block<T>& gradient, Block<T>& out) const;

 private:
  double logit(const Block<T>& y, int64_t o, int64_t b) const { return of_logits_.of(y.data, o, b); }
  double plain(const Block<T>& y, const double* targets, T* g);
  double read_out(const Block<T>& y, const double* t);
  double mean_square_error(const Block<T>& y, const double* t);
  double binary(const Block<T>& y, const double* t);
  double cross_entropy(const double* t, Team& team);
  void cross_entropies(const double* t, size_t first, size_t inputs, double* losses);
  void write(Block<T>& g, Team& team);

  const HeadSpec& head_;
  const int64_t read_;  // columns
  const bool exponent_, reads_first_;
  const Reading of_signal_, of_logits_;
  Vector<double> y_;          // (outputs, columns that are read): logits, then log2 |dJ/dlogit|
  Vector<signed char> sign_;  // of it
};

}  // namespace pykernel
