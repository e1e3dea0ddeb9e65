// What ops do with whole blocks and their exponents, but for products, activation functions and norms: sums, biases,
// and what is measured of them. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "buffer.hpp"
#include "kernels/elementwise.hpp"
#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/layer.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

// max |x| of a block of one column
template <class T> double largest_of(const Block<T>& x) {
  double largest = 0;
  for (int64_t i = 0; i < x.n; i++) largest = std::max(largest, std::fabs((double)x.data[i]));
  return largest;
}

constexpr int64_t chunks_of(int64_t units) { return (units + chunk_units - 1) / chunk_units; }

inline void operator+=(Sums& a, const Sums& b) {
  a.sum += b.sum, a.square += b.square, a.largest = b.largest > a.largest ? b.largest : a.largest;
}
inline void operator+=(SlopeSums& a, const SlopeSums& b) {
  a.square += b.square, a.largest = b.largest > a.largest ? b.largest : a.largest;
  a.saturated += b.saturated, a.dead += b.dead;
}

template <class T> class Layer {
 public:
  // largest_block: entries.
  Layer(bool exponent, int64_t columns, int64_t largest_width, int64_t largest_block, Team& team);
  static int64_t bytes(bool exponent, int64_t largest_width, int64_t largest_block);

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
  Measure centre(const Block<T>& x, int64_t count, Block<T>& out);

  // The block itself, or a copy in scratch whose squares stay in range (plain arithmetic has no exponent of its own).
  Block<T> presentable(const Block<T>& x);

  // x at another exponent
  void rescale(Block<T>& x, int64_t to);
  // f(first unit, units, offset) over the chunks of n units, by the team; sums added in order
  template <class F> auto chunks(int64_t n, F f);

  const bool exponent;  // magnitudes may leave the range of T, and blocks take exponents
  int64_t columns;      // of the blocks at work
  const Elementwise<T>& kernels;

 private:
  Measure add_overflowed(const Block<T>& x, double fx, const Block<T>& y, double fy, Block<T>& out);
  Measure multiply_far(const Block<T>& x, const Block<T>& y, double most, Block<T>& out);
  int64_t common_exponent(const Block<T>& x, double fx, const Block<T>& y, double fy) const;
  template <class F> Measure product(const Block<T>& x, const Block<T>& y, Block<T>& out, F kernel);

  Team& team_;
  Vector<Sums> sums_;
  Vector<SlopeSums> slope_sums_;
  Buffer<T> scratch_;
};

template <class T> template <class F> auto Layer<T>::chunks(int64_t n, F f) {
  using Result = decltype(f(int64_t{}, int64_t{}, int64_t{}));
  const int64_t count = chunks_of(n);
  if (count <= 1) return f(int64_t{0}, n, int64_t{0});
  const auto chunk = [&](int64_t c) {
    return f(c * chunk_units, std::min(chunk_units, n - c * chunk_units), c * chunk_units * columns);
  };
  if constexpr (std::is_void_v<Result>) {
    team_.each(count, chunk);
  } else {
    Result* results;
    if constexpr (std::is_same_v<Result, Sums>)
      results = sums_.data();
    else
      results = slope_sums_.data();
    team_.each(count, [&](int64_t c) { results[c] = chunk(c); });
    for (int64_t c = 1; c < count; c++) results[0] += results[c];
    return results[0];
  }
}

}  // namespace pykernel
