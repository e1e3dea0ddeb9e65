// The activation functions as structs with `value` and `slope` over vectors, and the kernels that run them over a
// block. SPDX-License-Identifier: BSD-3-Clause
//
// Slopes keep their relative precision in the tails: they come from e^-|z| and never from 1 - s. `plain_*`, where a
// struct has them, are the textbook formulas that precision="native" shows. V is F32 or F64; formulas mirror
// pykernel/activations.py.
#pragma once
#include "constants.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/maths-inl.hpp"
#include "pykernel/callback.hpp"

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

// -- what a kernel does with them

PK_INLINE int64_t panels(int64_t units) { return (units + 15) / 16; }

// Sums over a block of what `element(offset)` gives; lanes beyond the last unit are made zero first.
template <class T, class F> PK_INLINE Sums reduce(int64_t units, int64_t B, F element) {
  Vec<T> sum[panel_vectors<T>] = {}, square[panel_vectors<T>] = {}, largest[panel_vectors<T>] = {};
  const int64_t full = units / 16 * B * 16;
  for (int64_t o = 0; o < full; o += 16)
    for (int j = 0; j < panel_vectors<T>; j++) {
      const Vec<T> x = element(o + j * lanes<T>, Bits<T>{} == 0);
      sum[j] += x, square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]);
    }
  if (const int valid = (int)(units % 16))
    for (int64_t o = full; o < full + 16 * B; o += 16)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const Vec<T> x = element(o + j * lanes<T>, lane_numbers<T>(j) < (T)valid);
        sum[j] += x, square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]);
      }
  return {(double)sum_lanes<T>(sum), (double)sum_lanes<T>(square), (double)max_lanes<T>(largest)};
}

template <class T, class Phi>
Sums value_kernel(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters) {
  const Phi phi(parameters);
  return reduce<T>(units, B, [&](int64_t o, Bits<T> live) {
    const Vec<T> x = live ? phi.value(load(z + o) * in) * out : Vec<T>{};
    store(v + o, x);
    return x;
  });
}

// out = g slope(offset), and what is counted of slopes
template <class T, class F>
PK_INLINE SlopeSums slopes_of(const T* g, T* out, int64_t units, int64_t B, T threshold, F slope) {
  Vec<T> square[panel_vectors<T>] = {}, largest[panel_vectors<T>] = {};
  Bits<T> saturated[panel_vectors<T>] = {}, dead[panel_vectors<T>] = {};
  for (int64_t o = 0, left = units; left > 0; o += 16 * B, left -= 16) {
    Bits<T> flat[panel_vectors<T>];
    for (int j = 0; j < panel_vectors<T>; j++) flat[j] = lane_numbers<T>(j) < (T)(left < 16 ? left : 16);
    Bits<T> live[panel_vectors<T>];
    for (int j = 0; j < panel_vectors<T>; j++) live[j] = flat[j];
    for (int64_t b = 0; b < B; b++)
      for (int j = 0; j < panel_vectors<T>; j++) {
        const int64_t i = o + b * 16 + j * lanes<T>;
        const Vec<T> s = slope(i), x = live[j] ? load(g + i) * s : Vec<T>{};
        store(out + i, x);
        saturated[j] += (abs(s) < threshold) & live[j];
        flat[j] &= s == 0;
        square[j] = fma(x, x, square[j]), largest[j] = max(abs(x), largest[j]);
      }
    for (int j = 0; j < panel_vectors<T>; j++) dead[j] += flat[j];
  }
  SlopeSums sums = {(double)sum_lanes<T>(square), (double)max_lanes<T>(largest), 0, 0};
  for (int j = 0; j < panel_vectors<T>; j++)
    for (int i = 0; i < lanes<T>; i++) sums.saturated -= saturated[j][i], sums.dead -= dead[j][i];
  return sums;
}

template <class T, class Phi>
SlopeSums slope_kernel(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold,
                       const double* parameters) {
  const Phi phi(parameters);
  return slopes_of<T>(g, out, units, B, threshold,
                      [&](int64_t i) __attribute__((always_inline)) { return phi.slope(load(z + i) * in); });
}

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

// The user's own function, compiled elsewhere: parameters point to a Callback. Pieces of it at z * in, which need not
// be in place.
constexpr int64_t callback_piece = 1024;

PK_INLINE bool has_own(const Callback& f, float) { return f.value_f32 && f.slope_f32; }
PK_INLINE bool has_own(const Callback&, double) { return true; }
PK_INLINE void call_own(const Callback& f, bool slope, const float* z, float* out, int64_t n) {
  (slope ? f.slope_f32 : f.value_f32)(z, out, n, f.user);
}
PK_INLINE void call_own(const Callback& f, bool slope, const double* z, double* out, int64_t n) {
  (slope ? f.slope_f64 : f.value_f64)(z, out, n, f.user);
}
template <class T>
static void call_back(const double* parameters, bool slope, const T* source, T* out, int64_t n, T in) {
  const Callback& f = *(const Callback*)parameters;
  alignas(64) double wide_z[callback_piece], wide_out[callback_piece];
  alignas(64) T z[callback_piece];
  if (has_own(f, T(0))) {
    if (in == 1) return call_own(f, slope, source, out, n);
    for (int64_t i = 0; i < n; i += lanes<T>) store(z + i, load(source + i) * in);
    return call_own(f, slope, z, out, n);
  }
  int64_t i = 0;
  do wide_z[i] = (double)(source[i] * in);
  while (++i < n);  // n is at least 1, which this form tells the compiler
  call_own(f, slope, wide_z, wide_out, n);
  for (i = 0; i < n; i++) out[i] = (T)wide_out[i];
}

template <class T>
Sums value_callback(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters) {
  const int64_t n = panels(units) * 16 * B;
  for (int64_t o = 0; o < n; o += callback_piece)
    call_back(parameters, false, z + o, v + o, n - o < callback_piece ? n - o : callback_piece, in);
  return reduce<T>(units, B, [&](int64_t o, Bits<T> live) {
    const Vec<T> x = live ? load(v + o) * out : Vec<T>{};
    store(v + o, x);
    return x;
  });
}

// Slopes are asked for a piece at a time and then handed out panel by panel, as a function over vectors would give
// them.
template <class T>
SlopeSums slope_callback(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold,
                         const double* parameters) {
  alignas(64) T slopes[callback_piece];
  const int64_t n = panels(units) * 16 * B;
  int64_t from = 0, to = 0;
  return slopes_of<T>(g, out, units, B, threshold, [&](int64_t i) {
    if (i >= to) {
      from = i, to = n - i < callback_piece ? n : i + callback_piece;
      call_back(parameters, true, z + from, slopes, to - from, in);
    }
    return load(slopes + i - from);
  });
}

constexpr ActivationRow of_callback = {"callback", nullptr, 1, 1, 1, 1, 0, 1, true};

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
