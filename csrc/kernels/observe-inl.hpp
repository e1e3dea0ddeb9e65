// Passes over a block that only look, add or scale: sums, residual sums, biases.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/functions-inl.hpp"

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

template <class T> void add_columns(T* to, int64_t stride, const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i++, to += stride * panel_lanes, from += panel_lanes)
    for (int j = 0; j < panel_lanes; j += lanes<T>) store(to + j, load(to + j) + load(from + j));
}

template <class T>
void inverse_norms(const T* x, int64_t panel_count, int64_t B, int64_t b, int64_t count, double* out) {
  constexpr int together = lanes<double>;
  alignas(64) double squares[together * panel_lanes];
  for (int64_t first = b; first < b + count; first += together) {
    const int n = (int)(b + count - first < together ? b + count - first : together);
    for (int i = 0; i < together; i++) {
      F64 sum[panel_vectors<double>] = {};
      for (int64_t p = 0; p < panel_count && i < n; p++)
        for (int j = 0; j < panel_vectors<double>; j++) {
          const F64 v = load_as<double>(x + (p * B + first + i) * panel_lanes + j * lanes<double>);
          sum[j] = fma(v, v, sum[j]);
        }
      __builtin_memcpy(squares + i * panel_lanes, sum, sizeof sum);
    }
    const F64 square = sum_lanes_of(squares, panel_lanes);
    const F64 inverse = square > 0 ? 1 / sqrt(square) : F64{};
    for (int i = 0; i < n; i++) out[first + i] = inverse[i];
  }
}

template <class T> double directed_square(const T* panel, int64_t B, const double* factors) {
  F64 sum[panel_vectors<double>] = {};
  for (int64_t b = 0; b < B; b++)
    for (int j = 0; j < panel_vectors<double>; j++)
      sum[j] = fma(load_as<double>(panel + b * panel_lanes + j * lanes<double>), broadcast(factors[b]), sum[j]);
  for (int j = 0; j < panel_vectors<double>; j++) sum[j] *= sum[j];
  return sum_lanes<double>(sum);
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
