// A chain as plain numbers and pointers, and the rows that a run fills: the C++ face of pykernel/plan.py and pykernel/observables.py.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

namespace pykernel {

// A function known by name, or "callback" with parameters[0] holding the bits of a pointer
// void (*)(const T* z, T* value, T* slope, int64_t n). What it does far away and near zero lets magnitudes leave the range of T.
struct ActivationRow {
  const char* name;
  const double* parameters;
  double left, right;              // slopes at minus and plus infinity
  double before_zero, after_zero;  // slopes on either side of zero
  double at_zero;                  // value at zero
  double max_slope;                // largest magnitude of the slope
  bool flat;                       // the slope is exactly zero somewhere
};

enum Norm { no_norm, batch_norm, layer_norm, rms_norm };
enum Order { linear_norm_activation, norm_activation_linear };
enum Loss { no_loss, mse, sigmoid, softmax, linear_loss };
constexpr double norm_eps = 1e-5;

// Layers are counted from 1; arrays over layers start at index 0 for layer 1. Pointers stay the caller's.
struct Plan {
  int64_t depth;
  const int64_t* widths;  // (depth + 1)
  int64_t batch;
  uint64_t seed;
  bool exponent;
  ActivationRow activation;
  int norm, order;
  int64_t residual_every;        // 0 for none
  const double* residual_scale;  // (depth)
  const char* distribution;
  double distribution_parameter;
  const double* scale;            // (depth)
  const char* bias_distribution;  // "zero", "normal", "uniform", "given"
  const double* bias_scale;       // (depth)
  double correlation;
  const double* x;               // (n[0], B) row-major, or null: drawn
  const double* cotangent;       // (n[L], B), or null: drawn
  const double* const* weights;  // per layer (n[l], n[l-1]) row-major, or null
  const double* const* biases;   // per layer (n[l]), or null
  int loss;
  int64_t outputs;
  const char* head_distribution;
  double head_parameter, head_scale;
  const double* targets;  // (outputs, B), or null: drawn
  double clip_value;      // 0 for none
};

// Arrays (count, depth), (count, depth + 1) for log10_grad_activation, (count) for loss.
struct Rows {
  double *log10_grad_weight, *log10_grad_bias, *log10_grad_preactivation, *log10_grad_activation, *log10_mean_square_preactivation,
      *log10_mean_square_activation, *mean_activation, *saturated, *dead, *similarity, *log10_weight_factor, *log10_derivative_factor,
      *loss;
};

}  // namespace pykernel
