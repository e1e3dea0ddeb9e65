// Passes over a block that only look, add or scale: sums, residual sums, biases.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/activations-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class T> Sums observe(const T* x, int64_t units, int64_t B, T factor) {
  return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) { return load(x + o) * factor; });  // padding is zero
}

template <class T> Sums combine(const T* x, const T* y, T* out, int64_t units, int64_t B, T fx, T fy) {
  const Vec<T> cx = broadcast(fx), cy = broadcast(fy);
  return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) {
    const Vec<T> sum = y ? fma(load(y + o), cy, load(x + o) * cx) : load(x + o) * cx;
    store(out + o, sum);
    return sum;
  });
}

template <class T> Sums multiply(const T* x, const T* y, T* out, int64_t units, int64_t B, T f) {
  const Vec<T> factor = broadcast(f);
  return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) {
    const Vec<T> product = load(x + o) * factor * load(y + o);
    store(out + o, product);
    return product;
  });
}

template <class T> Sums multiply_units(const T* x, const T* y, T* out, int64_t units, int64_t B, T f) {
  const Vec<T> factor = broadcast(f);
  return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) {
    const Vec<T> product = load(x + o) * factor * load(y + o / (16 * B) * 16 + o % 16);
    store(out + o, product);
    return product;
  });
}

template <class T> Sums add_bias(T* z, const T* b, int64_t units, int64_t B, T fz, T fb) {
  return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) {
    const Vec<T> sum = fma(load(z + o), broadcast(fz), load(b + o / (16 * B) * 16 + o % 16) * fb);
    store(z + o, sum);
    return sum;
  });
}

template <class T> double bias_square(const T* delta, int64_t units, int64_t B) {
  Vec<T> square[panel_vectors<T>] = {};
  for (int64_t p = 0; p < panels(units); p++)
    for (int j = 0; j < panel_vectors<T>; j++) {
      Vec<T> sum = {};
      for (int64_t b = 0; b < B; b++) sum += load(delta + (p * B + b) * 16 + j * lanes<T>);
      square[j] = fma(sum, sum, square[j]);
    }
  return sum_lanes<T>(square);
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
