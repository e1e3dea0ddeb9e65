// The activation functions as structs with `value` and `slope` over vectors, and the table of them.
// SPDX-License-Identifier: BSD-3-Clause
//
// Slopes keep their relative precision in the tails: they come from e^-|z| and never from 1 - s. `plain_*`, where a
// struct has them, are the textbook formulas that precision="native" shows. V is F32 or F64; formulas mirror
// pykernel/activations.py.
#pragma once
#include "constants.hpp"
#include "kernels/functions-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class V> struct ElementOf {
  typedef float type;
};
template <> struct ElementOf<F64> {
  typedef double type;
};
template <class V> using Element = typename ElementOf<V>::type;
template <class V> PK_INLINE V number(double x) { return broadcast((Element<V>)x); }

template <class V> PK_INLINE V half_exp(V z) { return exp(-abs(z)); }
template <class V> PK_INLINE V logistic(V z) {
  const V e = half_exp(z);
  return (z >= 0 ? number<V>(1) : e) / (e + 1);
}

// What `facts` say: name, default parameters, slopes at -inf and inf, before and after zero, value at zero, largest
// slope, flat; the same numbers as in pykernel/activations.py (a test compares).
constexpr double two_over_root_pi = 1.12837916709551257390;
constexpr double leaky_slope[] = {0.01}, elu_alpha[] = {1.0};

template <class V> struct Linear {
  static constexpr ActivationRow facts = {"linear", nullptr, 1, 1, 1, 1, 0, 1, false};
  explicit Linear(const double*) {}
  V value(V z) const { return z; }
  V slope(V) const { return number<V>(1); }
};

template <class V> struct Sigmoid {
  static constexpr ActivationRow facts = {"sigmoid", nullptr, 0, 0, .25, .25, .5, .25, false};
  explicit Sigmoid(const double*) {}
  V value(V z) const { return logistic(z); }
  V slope(V z) const {
    const V e = half_exp(z), d = e + 1;
    return e / (d * d);
  }
  V plain_value(V z) const { return 1 / (1 + exp(-z)); }
  V plain_slope(V z) const {
    const V s = plain_value(z);
    return s * (1 - s);
  }
};

template <class V> struct Tanh {
  static constexpr ActivationRow facts = {"tanh", nullptr, 0, 0, 1, 1, 0, 1, false};
  explicit Tanh(const double*) {}
  V value(V z) const { return tanh(z); }
  V slope(V z) const {
    const V e = half_exp(z + z), d = e + 1;
    return 4 * e / (d * d);
  }
  V plain_slope(V z) const {
    const V t = tanh(z);
    return 1 - t * t;
  }
};

template <class V> struct Relu {
  static constexpr ActivationRow facts = {"relu", nullptr, 0, 1, 0, 1, 0, 1, true};
  explicit Relu(const double*) {}
  V value(V z) const { return max(V{}, z); }
  V slope(V z) const { return z > 0 ? number<V>(1) : V{}; }
};

template <class V> struct LeakyRelu {
  static constexpr ActivationRow facts = {"leaky_relu", leaky_slope, 0, 1, 0, 1, 0, 1, false};
  V s;
  explicit LeakyRelu(const double* p) : s(number<V>(p[0])) {}
  V value(V z) const { return z > 0 ? z : s * z; }
  V slope(V z) const { return z > 0 ? number<V>(1) : s; }
};

// Any function that is linear on either side of zero: what all others become where a block's exponent is far from zero.
template <class V> struct TwoSlopes {
  static constexpr ActivationRow facts = {"two slopes", nullptr, 1, 1, 1, 1, 0, 1, false};
  V below, above;
  explicit TwoSlopes(const double* p) : below(number<V>(p[0])), above(number<V>(p[1])) {}
  V value(V z) const { return (z > 0 ? above : below) * z; }
  V slope(V z) const { return z > 0 ? above : below; }
};

template <class V> struct Elu {
  static constexpr ActivationRow facts = {"elu", elu_alpha, 0, 1, 0, 1, 0, 1, false};
  V alpha;
  explicit Elu(const double* p) : alpha(number<V>(p[0])) {}
  V value(V z) const { return z > 0 ? z : alpha * expm1_negative(min(V{}, z)); }
  V slope(V z) const { return z > 0 ? number<V>(1) : alpha * exp(min(V{}, z)); }
};

template <class V> struct Selu {
  static constexpr ActivationRow facts = {
      "selu", nullptr, 0, selu_lambda, selu_lambda * selu_alpha, selu_lambda, 0, selu_lambda * selu_alpha, false};
  static constexpr double alpha = selu_alpha, lambda = selu_lambda;
  explicit Selu(const double*) {}
  V value(V z) const { return z > 0 ? number<V>(lambda) * z : number<V>(lambda * alpha) * expm1_negative(min(V{}, z)); }
  V slope(V z) const { return z > 0 ? number<V>(lambda) : number<V>(lambda * alpha) * exp(min(V{}, z)); }
};

template <class V> struct Gelu {
  static constexpr ActivationRow facts = {"gelu", nullptr, 0, 1, .5, .5, 0, 1.1289042, false};
  explicit Gelu(const double*) {}
  static V phi(V z) {
    const V tail = normal_tail(abs(z));
    return z < 0 ? tail : 1 - tail;
  }
  V value(V z) const { return z * phi(z); }
  V slope(V z) const { return phi(z) + z * density(z); }
  V plain_value(V z) const { return z * (1 + erf(z * number<V>(0.70710678118654752440))) * number<V>(.5); }
};

template <class V> struct GeluTanh {
  static constexpr ActivationRow facts = {"gelu_tanh", nullptr, 0, 1, .5, .5, 0, 1.1289, false};
  static constexpr double twice_root = 1.59576912160573071176, cubic = gelu_cubic;  // 2 sqrt(2 / pi)
  explicit GeluTanh(const double*) {}
  static V argument(V z) { return number<V>(twice_root) * (z + number<V>(cubic) * z * z * z); }
  static V argument_slope(V z) { return number<V>(twice_root) * (1 + number<V>(3 * cubic) * z * z); }
  V value(V z) const { return z * logistic(argument(z)); }
  V slope(V z) const {
    const V near =
        min(number<V>(1e3), max(number<V>(-1e3), z));  // beyond, the product below is zero and its factors overflow
    const V y = argument(near), e = half_exp(y), d = e + 1;
    const V s = (y >= 0 ? number<V>(1) : e) / d, rest = (y >= 0 ? e : number<V>(1)) / d;
    return s * (1 + near * argument_slope(near) * rest);
  }
  V plain_value(V z) const { return z * (1 + tanh(argument(z) * number<V>(.5))) * number<V>(.5); }
};

template <class V> struct Silu {
  static constexpr ActivationRow facts = {"silu", nullptr, 0, 1, .5, .5, 0, 1.0998394, false};
  explicit Silu(const double*) {}
  V value(V z) const { return z * logistic(z); }
  V slope(V z) const {
    const V e = half_exp(z), d = e + 1;
    const V s = (z >= 0 ? number<V>(1) : e) / d, rest = (z >= 0 ? e : number<V>(1)) / d;
    return s * (1 + z * rest);
  }
  V plain_value(V z) const { return z / (1 + exp(-z)); }
  V plain_slope(V z) const {
    const V s = 1 / (1 + exp(-z));
    return s * (1 + z * (1 - s));
  }
};

template <class V> struct Softplus {
  static constexpr ActivationRow facts = {"softplus", nullptr, 0, 1, .5, .5, 0.69314718055994530942, 1, false};
  explicit Softplus(const double*) {}
  V value(V z) const { return max(V{}, z) + log1p_unit(half_exp(z)); }
  V slope(V z) const { return logistic(z); }
  V plain_value(V z) const {  // log(1 + e^z): the sum drops e below eps and overflows where e does
    const V sum = 1 + exp(z);
    const V log = z < 0 ? log1p_unit(sum - 1) : z + log1p_unit(half_exp(z));
    return sum == number<V>(__builtin_inf()) ? sum : log;
  }
  V plain_slope(V z) const { return 1 / (1 + exp(-z)); }
};

template <class V> struct Mish {
  static constexpr ActivationRow facts = {"mish", nullptr, 0, 1, .6, .6, 0, 1.0884990, false};
  explicit Mish(const double*) {}
  // tanh(softplus(z)) = n / d; its complement of squares over d^2, without cancellation
  V value(V z) const {
    const V e = half_exp(z);
    const V n = z >= 0 ? 1 + 2 * e : e * (e + 2);
    const V d = n + (z >= 0 ? 2 * e * e : number<V>(2));
    return z * (n / d);
  }
  V slope(V z) const {
    const V e = half_exp(z);
    const V n = z >= 0 ? 1 + 2 * e : e * (e + 2);
    const V gap = z >= 0 ? 2 * e * e : number<V>(2);
    const V d = n + gap, s = (z >= 0 ? number<V>(1) : e) / (e + 1);
    return n / d + z * (gap * (d + n) / (d * d)) * s;
  }
  V plain_value(V z) const { return z * tanh(Softplus<V>(nullptr).plain_value(z)); }
};

template <class V> struct Hardtanh {
  static constexpr ActivationRow facts = {"hardtanh", nullptr, 0, 0, 1, 1, 0, 1, true};
  explicit Hardtanh(const double*) {}
  V value(V z) const { return min(number<V>(1), max(number<V>(-1), z)); }
  V slope(V z) const { return abs(z) < 1 ? number<V>(1) : V{}; }
};

template <class V> struct Softsign {
  static constexpr ActivationRow facts = {"softsign", nullptr, 0, 0, 1, 1, 0, 1, false};
  explicit Softsign(const double*) {}
  V value(V z) const { return z / (1 + abs(z)); }
  V slope(V z) const {
    const V r = 1 / (1 + abs(z));
    return r * r;
  }
};

template <class V> struct Erf {
  static constexpr ActivationRow facts = {"erf", nullptr,          0,    0, two_over_root_pi, two_over_root_pi,
                                          0,     two_over_root_pi, false};
  explicit Erf(const double*) {}
  V value(V z) const { return erf(z); }
  V slope(V z) const { return gaussian(z) * number<V>(1.12837916709551257390); }  // 2 / sqrt(pi)
};

template <class V> struct Arctan {
  static constexpr ActivationRow facts = {"arctan", nullptr, 0, 0, 1, 1, 0, 1, false};
  explicit Arctan(const double*) {}
  V value(V z) const { return atan(z); }
  V slope(V z) const { return 1 / fma(z, z, number<V>(1)); }
};

template <class V> struct Sin {
  static constexpr ActivationRow facts = {"sin", nullptr, 0, 0, 1, 1, 0, 1, false};
  explicit Sin(const double*) {}
  V value(V z) const { return sine(z, 0); }
  V slope(V z) const { return sine(z, 1); }
};

template <class V, class Phi> struct Plain : Phi {
  using Phi::Phi;
  V value(V z) const { return Phi::plain_value(z); }
  V slope(V z) const { return Phi::plain_slope(z); }
};

template <class T, template <class> class Function> constexpr Activation<T> row() {
  typedef Vec<T> V;
  typedef Function<V> Phi;
  Activation<T> row = {&Phi::facts, value_kernel<T, Phi>, slope_kernel<T, Phi>, value_kernel<T, Phi>,
                       slope_kernel<T, Phi>};
  if constexpr (requires(const Phi& p, V z) { p.plain_value(z); }) row.plain_value = value_kernel<T, Plain<V, Phi>>;
  if constexpr (requires(const Phi& p, V z) { p.plain_slope(z); }) row.plain_slope = slope_kernel<T, Plain<V, Phi>>;
  return row;
}

// The functions that the library knows by name.
template <class T>
constexpr Activation<T> activations[] = {
    row<T, Linear>(),
    row<T, Sigmoid>(),
    row<T, Tanh>(),
    row<T, Relu>(),
    row<T, LeakyRelu>(),
    row<T, Elu>(),
    row<T, Selu>(),
    row<T, Gelu>(),
    row<T, GeluTanh>(),
    row<T, Silu>(),
    row<T, Softplus>(),
    row<T, Mish>(),
    row<T, Hardtanh>(),
    row<T, Softsign>(),
    row<T, Erf>(),
    row<T, Arctan>(),
    row<T, Sin>(),
    row<T, TwoSlopes>(),
    {&of_callback, value_callback<T>, slope_callback<T>, value_callback<T>, slope_callback<T>},
};

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
