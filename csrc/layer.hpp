// What ops do with whole blocks and their exponents, but for products: activation, norm, bias, sums, and what is
// measured of them. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include <algorithm>
#include <cmath>

#include "buffer.hpp"
#include "kernels/elementwise.hpp"
#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/layer.hpp"
#include "pykernel/program.hpp"
#include "tails.hpp"
#include "team.hpp"

namespace pykernel {

// max |x| of a block of one column
template <class T> double largest_of(const Block<T>& x) {
  double largest = 0;
  for (int64_t i = 0; i < x.n; i++) largest = std::max(largest, std::fabs((double)x.data[i]));
  return largest;
}

// An activation function as a run calls it.
template <class T> struct Phi {
  const ActivationRow* row;
  const Activation<T>* kernel;
  const Tails* tails;  // null: none that floating point loses
};
// Throws std::invalid_argument for an unknown name, or a callback that lacks functions for T.
template <class T> Phi<T> phi_of(const ActivationRow& row);

template <class T> class Layer {
 public:
  // exponent: magnitudes may leave the range of T, and blocks take exponents.
  Layer(bool exponent, int64_t columns, int64_t largest_width, Team& team);
  static int64_t bytes(bool exponent, int64_t columns, int64_t largest_width);

  // Brings a block with the given sums (taken at its mantissas) into the range of T; what it measures.
  Measure settle(Block<T>& x, Sums sums);
  Measure settle(Block<T>& x) { return settle(x, observe(x)); }
  Sums observe(const Block<T>& x);

  // out = fx x + fy y; out may be x or y
  Measure add(const Block<T>& x, double fx, const Block<T>& y, double fy, Block<T>& out);
  // out = factor x; out may be x
  Measure scale(const Block<T>& x, double factor, Block<T>& out);
  // out = x y entry by entry; out must be neither
  Measure multiply(const Block<T>& x, const Block<T>& y, Block<T>& out);
  // the same with y of one column
  Measure multiply_units(const Block<T>& x, const Block<T>& y, Block<T>& out);
  // z += factor b, b of one column
  Measure add_bias(Block<T>& z, const T* b, double largest, double factor);
  // norm of the sum over the columns
  double log2_bias_norm(const Block<T>& delta);
  // out = x without its mean over the columns
  Measure centre(const Block<T>& x, Block<T>& out);

  // v = phi(h); may rescale h
  Measure activate(const Phi<T>& phi, Block<T>& h, Block<T>& v);
  // out = g phi'(h); out must not be g
  Measure differentiate(const Phi<T>& phi, Block<T>& h, const Block<T>& g, Block<T>& out, SlopeCount& count);
  // h = Norm(z)
  void normalise(const NormRow& norm, const Block<T>& z, Block<T>& h);
  // dz from dh and z with h = Norm(z); dz may be dh
  Measure normalise_backward(const NormRow& norm, const Block<T>& z, const Block<T>& h, const Block<T>& g,
                             Block<T>& dz);

  // The block itself, or a copy in scratch whose squares stay in range (plain arithmetic has no exponent of its own).
  Block<T> presentable(const Block<T>& x);

 private:
  template <class F> auto chunks(int64_t n, F f);  // f(first unit, units, offset) over the chunks, sums added in order
  void rescale(Block<T>& x, int64_t exponent);
  int64_t common_exponent(const Block<T>& x, double fx, const Block<T>& y, double fy) const;
  template <class F> Measure product(const Block<T>& x, const Block<T>& y, Block<T>& out, F kernel);
  Measure activate_tail(const Phi<T>& phi, const Block<T>& h, Block<T>& v);
  Measure differentiate_tail(const Phi<T>& phi, const Block<T>& h, const Block<T>& g, Block<T>& out);
  void column_statistics(const NormRow& norm, const Block<T>& z);
  void normalise_far(const NormRow& norm, const Block<T>& z, Block<T>& h);
  Measure normalise_far_backward(const NormRow& norm, const Block<T>& z, const Block<T>& g, Block<T>& dz);
  template <class F> Measure write_far(F visit, Block<T>& out);

  const Elementwise<T>& kernels_;
  const bool exponent_;
  const int64_t B_;  // columns
  Team& team_;
  const Activation<T>* two_slopes_;
  Vector<Sums> sums_;
  Vector<SlopeSums> slope_sums_;
  Vector<double> column_;                     // partial sums over chunks, then columns
  Vector<T> mean_, factor_, first_, second_;  // (B)
  Buffer<T> scratch_;
};

}  // namespace pykernel
