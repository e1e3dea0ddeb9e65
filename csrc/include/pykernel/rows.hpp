// What a run measures: one table of names and extents, and the arrays that a run fills (the C++ face of
// pykernel/observables.py). SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

namespace pykernel {

// Arrays (count, extent), null where a row is not wanted. In a chain all extents are the depth, but for those that
// row_facts says.
struct Rows {
  double *log10_grad_weight, *log10_grad_bias, *log10_grad_weight_total, *log10_grad_bias_total,
      *log10_grad_preactivation, *log10_grad_activation, *log10_mean_square_preactivation,
      *log10_mean_square_activation, *mean_activation, *saturated, *dead, *similarity, *log10_weight_factor,
      *log10_derivative_factor, *attention_entropy, *score_std, *flushed_signal, *flushed_gradient, *overflowed_signal,
      *overflowed_gradient, *log10_error_signal, *log10_error_gradient, *gradient_cosine, *log10_smallest_signal,
      *log10_largest_signal, *log10_smallest_gradient, *log10_largest_gradient, *loss;
};

// What a row has one number of: each weight layer, each activation step, each attention, each node (block end), each
// node of a run with formats, each weight that layers share, the input and each node, or the replica.
enum class RowExtent { layer, activation, mix, node, rounded, weight, input, replica };

struct RowFact {
  const char* name;
  RowExtent extent;
  double* Rows::* of;
};
inline constexpr RowFact row_facts[] = {
    {"log10_grad_weight", RowExtent::layer, &Rows::log10_grad_weight},
    {"log10_grad_bias", RowExtent::layer, &Rows::log10_grad_bias},
    {"log10_grad_weight_total", RowExtent::weight, &Rows::log10_grad_weight_total},
    {"log10_grad_bias_total", RowExtent::weight, &Rows::log10_grad_bias_total},
    {"log10_grad_preactivation", RowExtent::layer, &Rows::log10_grad_preactivation},
    {"log10_grad_activation", RowExtent::input, &Rows::log10_grad_activation},
    {"log10_mean_square_preactivation", RowExtent::layer, &Rows::log10_mean_square_preactivation},
    {"log10_mean_square_activation", RowExtent::node, &Rows::log10_mean_square_activation},
    {"mean_activation", RowExtent::node, &Rows::mean_activation},
    {"saturated", RowExtent::activation, &Rows::saturated},
    {"dead", RowExtent::activation, &Rows::dead},
    {"similarity", RowExtent::node, &Rows::similarity},
    {"log10_weight_factor", RowExtent::layer, &Rows::log10_weight_factor},
    {"log10_derivative_factor", RowExtent::activation, &Rows::log10_derivative_factor},
    {"attention_entropy", RowExtent::mix, &Rows::attention_entropy},
    {"score_std", RowExtent::mix, &Rows::score_std},
    {"flushed_signal", RowExtent::rounded, &Rows::flushed_signal},
    {"flushed_gradient", RowExtent::rounded, &Rows::flushed_gradient},
    {"overflowed_signal", RowExtent::rounded, &Rows::overflowed_signal},
    {"overflowed_gradient", RowExtent::rounded, &Rows::overflowed_gradient},
    {"log10_error_signal", RowExtent::rounded, &Rows::log10_error_signal},
    {"log10_error_gradient", RowExtent::rounded, &Rows::log10_error_gradient},
    {"gradient_cosine", RowExtent::rounded, &Rows::gradient_cosine},
    {"log10_smallest_signal", RowExtent::rounded, &Rows::log10_smallest_signal},
    {"log10_largest_signal", RowExtent::rounded, &Rows::log10_largest_signal},
    {"log10_smallest_gradient", RowExtent::rounded, &Rows::log10_smallest_gradient},
    {"log10_largest_gradient", RowExtent::rounded, &Rows::log10_largest_gradient},
    {"loss", RowExtent::replica, &Rows::loss},
};
constexpr int row_count = sizeof row_facts / sizeof *row_facts;
static_assert(sizeof(Rows) == row_count * sizeof(double*), "every row has its facts");

// How many there are of what rows have numbers of.
struct RowExtents {
  int64_t layers, nodes, activations, mixes, rounded, weights;
  int64_t of(RowExtent extent) const {
    switch (extent) {
      case RowExtent::layer:
        return layers;
      case RowExtent::node:
        return nodes;
      case RowExtent::input:
        return nodes + 1;
      case RowExtent::activation:
        return activations;
      case RowExtent::mix:
        return mixes;
      case RowExtent::rounded:
        return rounded;
      case RowExtent::weight:
        return weights;
      case RowExtent::replica:
        return 1;
    }
    return 0;
  }
};

}  // namespace pykernel
