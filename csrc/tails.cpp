// One row for each activation function with a tail that floating point loses.
// SPDX-License-Identifier: BSD-3-Clause
#include "tails.hpp"

#include <math.h>
#include <string.h>

#include "constants.hpp"
#include "pykernel/callback.hpp"

namespace pykernel {
namespace {

constexpr double root_2_pi = 2.50662827463100050242;

double magnitude(double x) { return log2(fabs(x)); }
Log2 signed_log2(double x) { return {x < 0 ? -1. : 1., magnitude(x)}; }
double logistic(double z) { return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z)); }
double log2_logistic(double z) { return fmin(z, 0) * log2_e - log1p(exp(-fabs(z))) * log2_e; }

Log2 sigmoid_value(double z, const double*) { return {1, log2_logistic(z)}; }
Log2 sigmoid_slope(double z, const double*) { return {1, log2_logistic(z) + log2_logistic(-z)}; }
Log2 tanh_slope(double z, const double*) { return {1, 2 + log2_logistic(2 * z) + log2_logistic(-2 * z)}; }

Log2 exponential_slope(double z, double alpha) {
  return z > 0 ? Log2{1, 0} : Log2{alpha < 0 ? -1. : 1., magnitude(alpha) + z * log2_e};
}
Log2 elu_slope(double z, const double* p) { return exponential_slope(z, p[0]); }
Log2 selu_slope(double z, const double*) {
  const Log2 s = exponential_slope(z, selu_alpha);
  return {s.sign, s.log2 + log2(selu_lambda)};
}

// below -30 the asymptotic series of the normal tail: relative error 2e-12 there
double log2_normal(double z) {
  if (z >= -30) return log2(erfc(-z / M_SQRT2) / 2);
  const double x = 1 / (z * z);
  return -z * z / 2 * log2_e - log2(-z * root_2_pi) + log2(1 - x * (1 - 3 * x * (1 - 5 * x * (1 - 7 * x))));
}
Log2 gelu_value(double z, const double*) { return {z < 0 ? -1. : 1., magnitude(z) + log2_normal(z)}; }
Log2 gelu_slope(double z, const double*) {
  if (z >= -30) return signed_log2(erfc(-z / M_SQRT2) / 2 + z * exp(-z * z / 2) / root_2_pi);
  const double x = 1 / (z * z);
  return {-1,
          -z * z / 2 * log2_e + log2(-z / root_2_pi) + log2(1 - x * (1 - x * (1 - 3 * x * (1 - 5 * x * (1 - 7 * x)))))};
}

constexpr double twice_root = 1.59576912160573071176, cubic = gelu_cubic;  // 2 sqrt(2 / pi)
// The cube of anything below overflows; either is beyond 2^-2^62. nan stays nan.
double capped(double z) { return z < -1e90 ? -1e90 : z; }
Log2 gelu_tanh_value(double z, const double*) {
  z = capped(z);
  return {z < 0 ? -1. : 1., magnitude(z) + log2_logistic(twice_root * (z + cubic * z * z * z))};
}
Log2 gelu_tanh_slope(double z, const double*) {
  z = capped(z);
  const double y = twice_root * (z + cubic * z * z * z), dy = twice_root * (1 + 3 * cubic * z * z);
  const Log2 factor = signed_log2(z < 1e3 ? 1 + z * dy * logistic(-y) : 1);
  return {factor.sign, log2_logistic(y) + factor.log2};
}

Log2 silu_value(double z, const double*) { return {z < 0 ? -1. : 1., magnitude(z) + log2_logistic(z)}; }
Log2 silu_slope(double z, const double*) {
  const Log2 factor = signed_log2(1 + z * logistic(-z));
  return {factor.sign, log2_logistic(z) + factor.log2};
}

Log2 softplus_value(double z, const double*) {
  return {1, z < -30 ? z * log2_e : log2(fmax(z, 0) + log1p(exp(-fabs(z))))};
}
Log2 softplus_slope(double z, const double*) { return {1, log2_logistic(z)}; }

double mish_gate(double z) {
  const double e = exp(-fabs(z)), n = z >= 0 ? 1 + 2 * e : e * (e + 2);
  return n / (n + (z >= 0 ? 2 * e * e : 2));
}
Log2 mish_value(double z, const double*) {
  return z < -40 ? Log2{-1, magnitude(z) + z * log2_e} : signed_log2(z * mish_gate(z));
}
Log2 mish_slope(double z, const double*) {
  if (z < -40) return {-1, z * log2_e + log2(-1 - z)};
  const double e = exp(-fabs(z)), n = z >= 0 ? 1 + 2 * e : e * (e + 2), gap = z >= 0 ? 2 * e * e : 2, d = n + gap;
  return signed_log2(n / d + z * (gap * (d + n) / (d * d)) * logistic(z));
}

Log2 softsign_slope(double z, const double*) { return {1, -2 * log2(1 + fabs(z))}; }
Log2 erf_slope(double z, const double*) { return {1, log2(2 / 1.77245385090551602730) - z * z * log2_e}; }
Log2 arctan_slope(double z, const double*) { return {1, fabs(z) < 1e100 ? -log2(1 + z * z) : -2 * magnitude(z)}; }

// The caller's own functions have no logarithms: in double they reach further than in float.
Log2 own(double z, const double* p, bool slope) {
  const Callback& f = *reinterpret_cast<const Callback*>(p);
  double out = 0;
  if (const auto wide = slope ? f.slope_f64 : f.value_f64) {
    wide(&z, &out, 1, f.user);
  } else {
    const float narrow = (float)z;
    float answer;
    (slope ? f.slope_f32 : f.value_f32)(&narrow, &answer, 1, f.user);
    out = answer;
  }
  return signed_log2(out);
}
Log2 own_value(double z, const double* p) { return own(z, p, false); }
Log2 own_slope(double z, const double* p) { return own(z, p, true); }

constexpr Tails rows[] = {
    {"callback", own_value, own_slope},
    {"sigmoid", sigmoid_value, sigmoid_slope},
    {"tanh", nullptr, tanh_slope},
    {"elu", nullptr, elu_slope},
    {"selu", nullptr, selu_slope},
    {"gelu", gelu_value, gelu_slope},
    {"gelu_tanh", gelu_tanh_value, gelu_tanh_slope},
    {"silu", silu_value, silu_slope},
    {"softplus", softplus_value, softplus_slope},
    {"mish", mish_value, mish_slope},
    {"softsign", nullptr, softsign_slope},
    {"erf", nullptr, erf_slope},
    {"arctan", nullptr, arctan_slope},
};

}  // namespace

const Tails* tails_of(const char* name) {
  for (const Tails& row : rows)
    if (!strcmp(row.name, name)) return &row;
  return nullptr;
}

}  // namespace pykernel
