// The facts about each activation function, for callers without Python: the same numbers as in pykernel/activations.py
// (a test compares). SPDX-License-Identifier: BSD-3-Clause
#include <math.h>
#include <string.h>

#include <stdexcept>
#include <string>

#include "constants.hpp"
#include "pykernel/plan.hpp"

namespace pykernel {
namespace {

constexpr double two_over_root_pi = 1.12837916709551257390;
constexpr double leaky_slope[] = {0.01}, elu_alpha[] = {1.0};

// name, default parameters, slopes at -inf and inf, before and after zero, value at zero, largest slope, flat
constexpr ActivationRow rows[] = {
    {"linear", nullptr, 1, 1, 1, 1, 0, 1, false},
    {"sigmoid", nullptr, 0, 0, .25, .25, .5, .25, false},
    {"tanh", nullptr, 0, 0, 1, 1, 0, 1, false},
    {"relu", nullptr, 0, 1, 0, 1, 0, 1, true},
    {"leaky_relu", leaky_slope, 0, 1, 0, 1, 0, 1, false},  // the rest follows from the parameter
    {"elu", elu_alpha, 0, 1, 0, 1, 0, 1, false},
    {"selu", nullptr, 0, selu_lambda, selu_lambda * selu_alpha, selu_lambda, 0, selu_lambda * selu_alpha, false},
    {"gelu", nullptr, 0, 1, .5, .5, 0, 1.1289042, false},
    {"gelu_tanh", nullptr, 0, 1, .5, .5, 0, 1.1289, false},
    {"silu", nullptr, 0, 1, .5, .5, 0, 1.0998394, false},
    {"softplus", nullptr, 0, 1, .5, .5, 0.69314718055994530942, 1, false},
    {"mish", nullptr, 0, 1, .6, .6, 0, 1.0884990, false},
    {"hardtanh", nullptr, 0, 0, 1, 1, 0, 1, true},
    {"softsign", nullptr, 0, 0, 1, 1, 0, 1, false},
    {"erf", nullptr, 0, 0, two_over_root_pi, two_over_root_pi, 0, two_over_root_pi, false},
    {"arctan", nullptr, 0, 0, 1, 1, 0, 1, false},
    {"sin", nullptr, 0, 0, 1, 1, 0, 1, false},
};

}  // namespace

ActivationRow activation_row(const char* name, const double* parameters) {
  for (ActivationRow row : rows) {
    if (!name || strcmp(row.name, name)) continue;
    if (!row.parameters) return row;
    if (parameters) row.parameters = parameters;
    const double p = row.parameters[0];
    if (!strcmp(name, "leaky_relu")) row.left = p;
    row.before_zero = p, row.max_slope = fmax(1, fabs(p)), row.flat = p == 0;
    return row;
  }
  throw std::invalid_argument("unknown activation " + std::string(name ? name : "(null)"));
}

}  // namespace pykernel
