// Batch, layer and RMS norm of a block, and their backward steps through the statistics.
// SPDX-License-Identifier: BSD-3-Clause
//
// With h = (z - mean) r, r = 1 / sqrt(variance + eps): dz = r (g - mean(g) - h mean(g h)), means over what was
// normalised over (Ioffe, Szegedy 2015; Ba, Kiros, Hinton 2016); RMS norm (Zhang, Sennrich 2019) has neither mean.
#pragma once
#include "kernels/observe-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class T> PK_INLINE void batch_statistics(const T* z, int64_t B, T eps, Vec<T>& mean, Vec<T>& factor) {
  Vec<T> sum = {}, square = {};
  for (int64_t b = 0; b < B; b++) sum += load(z + b * 16);
  mean = sum / (T)B;
  for (int64_t b = 0; b < B; b++) {
    const Vec<T> x = load(z + b * 16) - mean;
    square = fma(x, x, square);
  }
  factor = 1 / sqrt(square / (T)B + eps);
}

template <class T> void batch_norm(const T* z, T* h, int64_t units, int64_t B, T eps) {
  for (int64_t p = 0; p < panels(units); p++)
    for (int j = 0; j < panel_vectors<T>; j++) {
      const int64_t o = p * B * 16 + j * lanes<T>;
      Vec<T> mean, factor;
      batch_statistics(z + o, B, eps, mean, factor);
      for (int64_t b = 0; b < B; b++) store(h + o + b * 16, (load(z + o + b * 16) - mean) * factor);
    }
}

template <class T> struct Squares {
  Vec<T> square[panel_vectors<T>] = {}, largest[panel_vectors<T>] = {};
  void add(int j, Vec<T> x) { square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]); }
  SlopeSums sums() const { return {(double)sum_lanes<T>(square), (double)max_lanes<T>(largest), 0, 0}; }
};

template <class T> SlopeSums batch_norm_backward(const T* z, const T* g, T* dz, int64_t units, int64_t B, T eps) {
  Squares<T> squares;
  for (int64_t p = 0; p < panels(units); p++)
    for (int j = 0; j < panel_vectors<T>; j++) {
      const int64_t o = p * B * 16 + j * lanes<T>;
      Vec<T> mean, factor, m1 = {}, m2 = {};
      batch_statistics(z + o, B, eps, mean, factor);
      for (int64_t b = 0; b < B; b++) {
        const Vec<T> gb = load(g + o + b * 16);
        m1 += gb, m2 = fma(gb, (load(z + o + b * 16) - mean) * factor, m2);
      }
      m1 /= (T)B, m2 /= (T)B;
      for (int64_t b = 0; b < B; b++) {
        const Vec<T> h = (load(z + o + b * 16) - mean) * factor;
        const Vec<T> x = factor * fma(-h, m2, load(g + o + b * 16) - m1);
        store(dz + o + b * 16, x);
        squares.add(j, x);
      }
    }
  return squares.sums();
}

template <class T> void column_sums(const T* x, const T* y, int64_t units, int64_t B, double* sums, double* products) {
  if (!y) y = x;
  for (int64_t b = 0; b < B; b++) {
    Vec<T> sum[panel_vectors<T>] = {}, product[panel_vectors<T>] = {};
    for (int64_t p = 0; p < panels(units); p++)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const int64_t o = (p * B + b) * 16 + j * lanes<T>;
        sum[j] += load(x + o), product[j] = fma(load(x + o), load(y + o), product[j]);
      }
    sums[b] = sum_lanes<T>(sum), products[b] = sum_lanes<T>(product);
  }
}

template <class T> PK_INLINE Bits<T> live_lanes(int64_t units, int64_t p, int j) {
  const int64_t left = units - p * 16;
  return lane_numbers<T>(j) < (T)(left < 16 ? left : 16);
}

template <class T> void column_squares(const T* x, int64_t units, int64_t B, const T* mean, double* squares) {
  for (int64_t b = 0; b < B; b++) {
    Vec<T> square[panel_vectors<T>] = {};
    for (int64_t p = 0; p < panels(units); p++)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const Vec<T> d = live_lanes<T>(units, p, j) ? load(x + (p * B + b) * 16 + j * lanes<T>) - mean[b] : Vec<T>{};
        square[j] = fma(d, d, square[j]);
      }
    squares[b] = sum_lanes<T>(square);
  }
}

template <class T> void column_norm(const T* z, T* h, int64_t units, int64_t B, const T* mean, const T* factor) {
  for (int64_t p = 0; p < panels(units); p++)
    for (int64_t b = 0; b < B; b++)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const int64_t o = (p * B + b) * 16 + j * lanes<T>;
        store(h + o, live_lanes<T>(units, p, j) ? (load(z + o) - mean[b]) * factor[b] : Vec<T>{});
      }
}

template <class T>
SlopeSums column_norm_backward(const T* h, const T* g, T* dz, int64_t units, int64_t B, const T* mean, const T* slope,
                               const T* factor) {
  Squares<T> squares;
  for (int64_t p = 0; p < panels(units); p++)
    for (int64_t b = 0; b < B; b++)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const int64_t o = (p * B + b) * 16 + j * lanes<T>;
        const Vec<T> inner = fma(-load(h + o), broadcast(slope[b]), load(g + o) - mean[b]);
        const Vec<T> x = live_lanes<T>(units, p, j) ? inner * factor[b] : Vec<T>{};
        store(dz + o, x);
        squares.add(j, x);
      }
  return squares.sums();
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
