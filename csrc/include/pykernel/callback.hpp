// An activation function of the caller's own: C functions over arrays, called from the thread that computes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

namespace pykernel {

// out[i] = f(z[i]) for i < n. Any n; z and out do not overlap. Called from several threads at once where a run has
// several.
template <class T> using Function = void (*)(const T* z, T* out, int64_t n, void* user);

// The functions for one arithmetic may be null: float runs then convert to double and back, double runs need the double
// ones.
struct Callback {
  Function<float> value_f32, slope_f32;
  Function<double> value_f64, slope_f64;
  void* user;
};

}  // namespace pykernel
