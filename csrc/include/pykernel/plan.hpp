// A chain of one kind of layer as plain numbers and pointers.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "callback.hpp"
#include "rows.hpp"

namespace pykernel {

// A function known by name, or the caller's own. What it does far away and near zero lets magnitudes leave the range of
// T.
struct ActivationRow {
  const char* name;
  const double* parameters;
  double left, right;              // slopes at minus and plus infinity
  double before_zero, after_zero;  // slopes on either side of zero
  double at_zero;                  // value at zero
  double max_slope;                // largest magnitude of the slope
  bool flat;                       // the slope is exactly zero somewhere
};
// The row of a function that the library knows ("relu", "leaky_relu", "tanh", ...; pykernel/activations.py lists them),
// with the default parameters where `parameters` is null. Else `parameters` must hold as many numbers as the function
// takes, and live as long as the row. Throws std::invalid_argument for an unknown name.
ActivationRow activation_row(const char* name, const double* parameters = nullptr);
// A row for the caller's own function, as if it were linear far away and near zero: the caller sets what is different.
// `callback` must live as long as the row.
inline ActivationRow activation_row(const Callback& callback) {
  return {"callback", reinterpret_cast<const double*>(&callback), 1, 1, 1, 1, 0, 1, true};
}

enum Norm { no_norm, batch_norm, layer_norm, rms_norm };
enum Order { linear_norm_activation, norm_activation_linear };
enum Loss { no_loss, mse, sigmoid, softmax, linear_loss };

// W[l] = scale[l] * unit draws: "normal", "uniform" (on (-1, 1)), "truncated" (normal at +-2), "sparse" (normal with
// density parameter), "student" (parameter degrees of freedom), "stable" (alpha = parameter), "haar"; or "identity",
// "constant", "given".

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
  const char* head_distribution;  // independent entries as above, or "given"
  double head_parameter, head_scale;
  const double* targets;                // (outputs, B), or null: drawn
  double clip_value;                    // 0 for none
  double norm_eps = 1e-5;               // what a norm adds to the variance
  const double* head_weight = nullptr;  // (outputs, n[L]) row-major, of head_distribution "given"
  const double* head_bias = nullptr;    // (outputs), or null: none
};

}  // namespace pykernel
