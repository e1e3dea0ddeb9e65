// The activation functions as structs with `value` and `slope` over vectors, and the kernels that run them over a block.
// SPDX-License-Identifier: BSD-3-Clause
//
// Slopes keep their relative precision in the tails: they come from e^-|z| and never from 1 - s. `plain_*`, where a struct has them, are
// the textbook formulas that precision="native" shows. V is F32 or F64; formulas mirror pykernel/activations.py.
#pragma once
#include "kernels/elementwise.hpp"
#include "kernels/maths-inl.hpp"

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

template <class V> struct Linear {
  static constexpr const char* name = "linear";
  explicit Linear(const double*) {}
  V value(V z) const { return z; }
  V slope(V) const { return number<V>(1); }
};

template <class V> struct Sigmoid {
  static constexpr const char* name = "sigmoid";
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
  static constexpr const char* name = "tanh";
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
  static constexpr const char* name = "relu";
  explicit Relu(const double*) {}
  V value(V z) const { return max(V{}, z); }
  V slope(V z) const { return z > 0 ? number<V>(1) : V{}; }
};

template <class V> struct LeakyRelu {
  static constexpr const char* name = "leaky_relu";
  V s;
  explicit LeakyRelu(const double* p) : s(number<V>(p[0])) {}
  V value(V z) const { return z > 0 ? z : s * z; }
  V slope(V z) const { return z > 0 ? number<V>(1) : s; }
};

// Any function that is linear on either side of zero: what all others become where a block's exponent is far from zero.
template <class V> struct TwoSlopes {
  static constexpr const char* name = "two slopes";
  V below, above;
  explicit TwoSlopes(const double* p) : below(number<V>(p[0])), above(number<V>(p[1])) {}
  V value(V z) const { return (z > 0 ? above : below) * z; }
  V slope(V z) const { return z > 0 ? above : below; }
};

template <class V> struct Elu {
  static constexpr const char* name = "elu";
  V alpha;
  explicit Elu(const double* p) : alpha(number<V>(p[0])) {}
  V value(V z) const { return z > 0 ? z : alpha * expm1_negative(min(V{}, z)); }
  V slope(V z) const { return z > 0 ? number<V>(1) : alpha * exp(min(V{}, z)); }
};

template <class V> struct Selu {
  static constexpr const char* name = "selu";
  static constexpr double alpha = 1.6732632423543772, lambda = 1.0507009873554805;
  explicit Selu(const double*) {}
  V value(V z) const { return z > 0 ? number<V>(lambda) * z : number<V>(lambda * alpha) * expm1_negative(min(V{}, z)); }
  V slope(V z) const { return z > 0 ? number<V>(lambda) : number<V>(lambda * alpha) * exp(min(V{}, z)); }
};

template <class V> struct Gelu {
  static constexpr const char* name = "gelu";
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
  static constexpr const char* name = "gelu_tanh";
  static constexpr double twice_root = 1.59576912160573071176, cubic = 0.044715;  // 2 sqrt(2 / pi)
  explicit GeluTanh(const double*) {}
  static V argument(V z) { return number<V>(twice_root) * (z + number<V>(cubic) * z * z * z); }
  static V argument_slope(V z) { return number<V>(twice_root) * (1 + number<V>(3 * cubic) * z * z); }
  V value(V z) const { return z * logistic(argument(z)); }
  V slope(V z) const {
    const V near = min(number<V>(1e3), max(number<V>(-1e3), z));  // beyond, the product below is zero and its factors overflow
    const V y = argument(near), e = half_exp(y), d = e + 1;
    const V s = (y >= 0 ? number<V>(1) : e) / d, rest = (y >= 0 ? e : number<V>(1)) / d;
    return s * (1 + near * argument_slope(near) * rest);
  }
  V plain_value(V z) const { return z * (1 + tanh(argument(z) * number<V>(.5))) * number<V>(.5); }
};

template <class V> struct Silu {
  static constexpr const char* name = "silu";
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
  static constexpr const char* name = "softplus";
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
  static constexpr const char* name = "mish";
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
  static constexpr const char* name = "hardtanh";
  explicit Hardtanh(const double*) {}
  V value(V z) const { return min(number<V>(1), max(number<V>(-1), z)); }
  V slope(V z) const { return abs(z) < 1 ? number<V>(1) : V{}; }
};

template <class V> struct Softsign {
  static constexpr const char* name = "softsign";
  explicit Softsign(const double*) {}
  V value(V z) const { return z / (1 + abs(z)); }
  V slope(V z) const {
    const V r = 1 / (1 + abs(z));
    return r * r;
  }
};

template <class V> struct Erf {
  static constexpr const char* name = "erf";
  explicit Erf(const double*) {}
  V value(V z) const { return erf(z); }
  V slope(V z) const { return gaussian(z) * number<V>(1.12837916709551257390); }  // 2 / sqrt(pi)
};

template <class V> struct Arctan {
  static constexpr const char* name = "arctan";
  explicit Arctan(const double*) {}
  V value(V z) const { return atan(z); }
  V slope(V z) const { return 1 / fma(z, z, number<V>(1)); }
};

template <class V> struct Sin {
  static constexpr const char* name = "sin";
  explicit Sin(const double*) {}
  V value(V z) const { return sine(z, 0); }
  V slope(V z) const { return sine(z, 1); }
};

// -- what a kernel does with them

template <class T> PK_INLINE Vec<T> lane_numbers(int vector) {
  Vec<T> v;
  for (int i = 0; i < lanes<T>; i++) v[i] = (T)(vector * lanes<T> + i);
  return v;
}

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

template <class T, class Phi> Sums value_kernel(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters) {
  const Phi phi(parameters);
  return reduce<T>(units, B, [&](int64_t o, Bits<T> live) {
    const Vec<T> x = live ? phi.value(load(z + o) * in) * out : Vec<T>{};
    store(v + o, x);
    return x;
  });
}

template <class T, class Phi>
SlopeSums slope_kernel(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold, const double* parameters) {
  const Phi phi(parameters);
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
        const Vec<T> s = phi.slope(load(z + i) * in), x = live[j] ? load(g + i) * s : Vec<T>{};
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

template <class V, class Phi> struct Plain : Phi {
  using Phi::Phi;
  V value(V z) const { return Phi::plain_value(z); }
  V slope(V z) const { return Phi::plain_slope(z); }
};

template <class T, template <class> class Function> constexpr Activation<T> row() {
  typedef Vec<T> V;
  typedef Function<V> Phi;
  Activation<T> row = {Phi::name, value_kernel<T, Phi>, slope_kernel<T, Phi>, value_kernel<T, Phi>, slope_kernel<T, Phi>};
  if constexpr (requires(const Phi& p, V z) { p.plain_value(z); }) row.plain_value = value_kernel<T, Plain<V, Phi>>;
  if constexpr (requires(const Phi& p, V z) { p.plain_slope(z); }) row.plain_slope = slope_kernel<T, Plain<V, Phi>>;
  return row;
}

// The user's own function, compiled elsewhere: parameters[0] holds the bits of a pointer to void(const T* z, T* value, T* slope, int64 n).
template <class T> struct Callback {
  typedef void (*Function)(const T*, T*, T*, int64_t);
  static constexpr int64_t piece = 1024;
  Function function;
  T z[piece], v[piece], s[piece];
  explicit Callback(const double* parameters) { __builtin_memcpy(&function, parameters, sizeof function); }
  void operator()(const T* source, int64_t n, T in) {
    for (int64_t i = 0; i < n; i++) z[i] = source[i] * in;
    function(z, v, s, n);
  }
};

template <class T> Sums value_callback(const T* z, T* v, int64_t units, int64_t B, T in, T out, const double* parameters) {
  Callback<T> call(parameters);
  const int64_t n = panels(units) * 16 * B;
  for (int64_t o = 0; o < n; o += call.piece) {
    const int64_t count = n - o < call.piece ? n - o : call.piece;
    call(z + o, count, in);
    for (int64_t i = 0; i < count; i++) v[o + i] = call.v[i] * out;
  }
  return reduce<T>(units, B, [&](int64_t o, Bits<T> live) {
    const Vec<T> x = live ? load(v + o) : Vec<T>{};
    store(v + o, x);
    return x;
  });
}

template <class T>
SlopeSums slope_callback(const T* z, const T* g, T* out, int64_t units, int64_t B, T in, T threshold, const double* parameters) {
  Callback<T> call(parameters);
  SlopeSums sums = {0, 0, 0, 0};
  for (int64_t first = 0; first < units; first += 16) {
    const int valid = (int)(units - first < 16 ? units - first : 16);
    uint32_t alive = 0;
    for (int64_t b = 0; b < B; b += call.piece / 16) {
      const int64_t count = 16 * (B - b < call.piece / 16 ? B - b : call.piece / 16), o = first * B + b * 16;
      call(z + o, count, in);
      for (int64_t i = 0; i < count; i++) {
        const bool live = i % 16 < valid;
        const T s = call.s[i], x = live ? g[o + i] * s : 0, magnitude = __builtin_fabs(x);
        out[o + i] = x;
        sums.square += (double)x * x;
        sums.largest = magnitude > sums.largest ? magnitude : sums.largest;
        sums.saturated += live && __builtin_fabs(s) < threshold;
        alive |= (uint32_t)(s != 0) << (i % 16);
      }
    }
    sums.dead += valid - __builtin_popcount(alive & ((1u << valid) - 1));
  }
  return sums;
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
