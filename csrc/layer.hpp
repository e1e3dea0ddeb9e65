// What a layer does around its product, on whole blocks with exponents: activation, norm, bias, sums, and what is measured of them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "buffer.hpp"
#include "kernels/elementwise.hpp"
#include "linear.hpp"
#include "memory.hpp"
#include "pykernel/layer.hpp"
#include "pykernel/plan.hpp"
#include "tails.hpp"

namespace pykernel {

template <class T> class Layer {
 public:
  Layer(const Plan& plan, const Elementwise<T>& kernels, Team& team, int64_t largest_width);

  // Brings a block with the given sums (taken at its mantissas) into the range of T; what it measures.
  Measure settle(Block<T>& x, Sums sums);
  Measure settle(Block<T>& x) { return settle(x, observe(x)); }
  Sums observe(const Block<T>& x);

  // out = x + factor y; out may be x or y
  Measure add(const Block<T>& x, const Block<T>& y, double factor, Block<T>& out);
  // out = factor x; out may be x
  Measure scale(const Block<T>& x, double factor, Block<T>& out);
  // z += factor b, b of one input
  Measure add_bias(Block<T>& z, const T* b, double largest, double factor);
  // norm of the sum over the batch
  double log2_bias_norm(const Block<T>& delta);

  // v = phi(h); may rescale h
  Measure activate(Block<T>& h, Block<T>& v);
  // out = g phi'(h); out may be g
  Measure differentiate(Block<T>& h, const Block<T>& g, Block<T>& out, SlopeCount& count);
  // h = Norm(z)
  void normalise(const Block<T>& z, Block<T>& h);
  // dz from dh and z with h = Norm(z); dz may be dh
  Measure normalise_backward(const Block<T>& z, const Block<T>& h, const Block<T>& g, Block<T>& dz);

  // The block itself, or a copy in `scratch` whose squares stay in range (plain arithmetic has no exponent of its own).
  Block<T> presentable(const Block<T>& x);

 private:
  template <class F> auto chunks(int64_t n, F f);  // f(first unit, units, offset) over the chunks, sums added in order
  void rescale(Block<T>& x, int64_t exponent);
  Measure activate_tail(const Block<T>& h, Block<T>& v);
  Measure differentiate_tail(const Block<T>& h, const Block<T>& g, Block<T>& out);
  void column_statistics(const Block<T>& z);
  Measure normalise_far(const Block<T>& z, const Block<T>* g, Block<T>& out);

  const Plan& plan_;
  const Elementwise<T>& kernels_;
  Team& team_;
  const int64_t B_;
  const Activation<T>*phi_, *two_slopes_;
  const Tails* tails_;
  Vector<Sums> sums_;
  Vector<SlopeSums> slope_sums_;
  Vector<double> column_;                     // partial sums over chunks, then columns
  Vector<T> mean_, factor_, first_, second_;  // (B)
  Buffer<T> scratch_;
};

}  // namespace pykernel
