// Activation functions of whole blocks: which kernel an exponent asks for, and the slow road where values or slopes
// leave the range of T. SPDX-License-Identifier: BSD-3-Clause
#include "activation.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "exponents.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

// f(true value, place) of every entry of a block.
template <class T, class F> void each_true(const Layer<T>& layer, const Block<T>& h, F f) {
  const double true_scale = ldexp(1., (int)(h.exponent > 900 ? 900 : h.exponent));
  for (int64_t i = 0; i < h.n; i++)
    for (int64_t b = 0; b < layer.columns; b++) {
      const int64_t o = entry_at(i, b, layer.columns);
      f((double)h.data[o] * true_scale, o);
    }
}

template <class T> Measure activate_tail(Layer<T>& layer, const Phi<T>& phi, const Block<T>& h, Block<T>& v) {
  double top = -INFINITY;
  const auto over = [&](auto f) {
    each_true(layer, h, [&](double z, int64_t o) { f(phi.tails->value(z, phi.row->parameters), v.data[o]); });
  };
  over([&](Log2 x, T&) { top = x.log2 > top ? x.log2 : top; });
  if (!(top > -0x1p52)) top = 0;
  const double e = floor(top);
  over([&](Log2 x, T& out) { out = (T)(x.sign * exp2(x.log2 - e)); });
  v.exponent = (int64_t)e;
  return layer.settle(v);
}

template <class T>
Measure differentiate_tail(Layer<T>& layer, const Phi<T>& phi, const Block<T>& h, const Block<T>& g, Block<T>& out) {
  double top = -INFINITY;
  const auto over = [&](auto f) {
    each_true(layer, h, [&](double z, int64_t o) {
      f(phi.tails->slope(z, phi.row->parameters), (double)g.data[o], out.data[o]);
    });
  };
  over([&](Log2 s, double g, T&) {
    const double x = s.log2 + log2(fabs(g));
    top = x > top ? x : top;
  });
  if (!(top > -0x1p52)) top = 0;
  const double e = floor(top);
  over([&](Log2 s, double g, T& x) {
    x = (T)(g == 0 ? 0 : copysign(s.sign, s.sign * g) * exp2(s.log2 + log2(fabs(g)) - e));
  });
  out.exponent = g.exponent + (int64_t)e;
  return layer.settle(out);
}

// -- where a format has overflowed

// What a function or its slope tends to at -inf and at inf.
struct Limits {
  double left, right;
};

// evaluate(z, out): 16 numbers. The formula at infinity; where that is nan for the way it is written (inf times 0), the
// numbers at two finite places far out, if they agree; nan where it tends to nothing, as a sine.
template <class T, class F> Limits limits(F evaluate) {
  alignas(64) T z[16] = {(T)-INFINITY, -power<T>(reach<T>), -power<T>(reach<T> / 2),
                         (T)INFINITY,  power<T>(reach<T>),  power<T>(reach<T> / 2)};
  alignas(64) T out[16];
  evaluate(z, out);
  const auto limit = [](const T* of) -> double {
    if (!isnan(of[0])) return of[0];
    return fabs(of[1] - of[2]) <= 1e-6 * fmax(fabs(of[1]), 1) ? of[1] : NAN;
  };
  return {limit(out), limit(out + 3)};
}

template <class T> Limits limits_of_value(const Phi<T>& phi) {
  const ActivationRow& row = *phi.row;
  const Limits found = limits<T>([&](const T* z, T* out) { phi.kernel->value(z, out, 16, 1, 1, 1, row.parameters); });
  return {row.left ? -row.left * INFINITY : found.left, row.right ? row.right * INFINITY : found.right};
}

template <class T> Limits limits_of_slope(const Phi<T>& phi) {
  const ActivationRow& row = *phi.row;
  if (row.left || row.right) return {row.left, row.right};
  alignas(64) T ones[16];
  std::fill(ones, ones + 16, T(1));
  return limits<T>([&](const T* z, T* out) { phi.kernel->slope(z, ones, out, 16, 1, 1, 0, row.parameters); });
}

// While this lives, infinite numbers of a block are +-2^60, where a function is its asymptote.
template <class T> class Finite {
 public:
  Finite(Layer<T>& layer, Block<T>& h) : h_(h), entries_(block_entries(h.n, layer.columns)) {
    for (int64_t i = 0; i < entries_; i++)
      if (isinf(h.data[i])) {
        places_.push_back(h.data[i] > 0 ? i : ~i);
        h.data[i] = copysign(power<T>(60), h.data[i]);
      }
    h.largest = layer.observe(h).largest;
    if (h.exponent < 0) layer.rescale(h, 0);
  }
  ~Finite() {
    each([&](int64_t i, bool right) { h_.data[i] = (T)(right ? INFINITY : -INFINITY); });
    h_.largest = INFINITY;
  }
  // f(place, whether it is inf and not -inf)
  template <class F> void each(F f) const {
    for (int64_t place : places_) f(place < 0 ? ~place : place, place >= 0);
  }

 private:
  Block<T>& h_;
  const int64_t entries_;
  std::vector<int64_t> places_;
};

template <class T> Measure activate_overflowed(Layer<T>& layer, const Phi<T>& phi, Block<T>& h, Block<T>& v) {
  const Finite<T> finite(layer, h);
  activate(layer, phi, h, v);
  const Limits limits = limits_of_value(phi);
  if (v.exponent) layer.rescale(v, 0);
  finite.each([&](int64_t i, bool right) { v.data[i] = (T)(right ? limits.right : limits.left); });
  return layer.settle(v);
}

template <class T>
Measure differentiate_overflowed(Layer<T>& layer, const Phi<T>& phi, Block<T>& h, const Block<T>& g, Block<T>& out,
                                 SlopeCount& count) {
  if (out.data == g.data) throw std::logic_error("differentiate: out must not be g");
  const Finite<T> finite(layer, h);
  differentiate(layer, phi, h, g, out, count);
  const Limits limits = limits_of_slope(phi);
  finite.each([&](int64_t i, bool right) {
    const double slope = right ? limits.right : limits.left;
    if (slope == 0 || isnan(slope)) out.data[i] = (T)slope * g.data[i];
  });
  return layer.settle(out);
}

}  // namespace

template <class T> const Activation<T>& kernel_called(const char* name) {
  const Elementwise<T>& table = elementwise_table<T>();
  for (int i = 0; i < table.activation_count; i++)
    if (!strcmp(table.activations[i].facts->name, name)) return table.activations[i];
  throw std::invalid_argument(std::string("unknown activation ") + name);
}

ActivationRow activation_row(const char* name, const double* parameters) {
  const Elementwise<double>& table = elementwise_table<double>();
  for (int i = 0; i < table.activation_count; i++) {
    ActivationRow row = *table.activations[i].facts;
    if (!name || strcmp(row.name, name) || !strcmp(name, "callback") || !strcmp(name, "two slopes")) continue;
    if (!row.parameters) return row;
    if (parameters) row.parameters = parameters;
    const double p = row.parameters[0];
    if (!strcmp(name, "leaky_relu")) row.left = p;
    row.before_zero = p, row.max_slope = fmax(1, fabs(p)), row.flat = p == 0;
    return row;
  }
  throw std::invalid_argument("unknown activation " + std::string(name ? name : "(null)"));
}

template <class T> Phi<T> phi_of(const ActivationRow& row) {
  const Activation<T>& found = kernel_called<T>(row.name);
  if (!strcmp(row.name, "callback")) {
    const Callback* own = reinterpret_cast<const Callback*>(row.parameters);
    const bool floats = sizeof(T) == 4 && own && own->value_f32 && own->slope_f32;
    if (!own || !(floats || (own->value_f64 && own->slope_f64)))
      throw std::invalid_argument("a callback needs value and slope for this dtype");
  }
  return {&row, &found, &kernel_called<T>("two slopes"), tails_of(row.name)};
}

template <class T> Measure activate(Layer<T>& layer, const Phi<T>& phi, Block<T>& h, Block<T>& v) {
  if (layer.exponent && isinf(h.largest)) return activate_overflowed(layer, phi, h, v);
  const ActivationRow& row = *phi.row;
  const auto run = [&](Value<T> value, T in, T out, const double* parameters) {
    v.n = h.n;
    return layer.chunks(h.n, [&](int64_t, int64_t units, int64_t o) {
      return value(h.data + o, v.data + o, units, layer.columns, in, out, parameters);
    });
  };
  Sums sums;
  if (!layer.exponent) {
    v.exponent = 0;
    sums = run(phi.kernel->plain_value, 1, 1, row.parameters);
    return layer.settle(v, sums);
  }
  if (h.exponent < 0 && row.at_zero == 0) {
    const double slopes[] = {row.before_zero, row.after_zero};
    sums = run(phi.two_slopes->value, 1, 1, slopes);
    v.exponent = h.exponent;
    return layer.settle(v, sums);
  }
  v.exponent = 0;
  if (h.exponent <= 0) {
    sums = run(phi.kernel->value, power<T>(h.exponent), 1, row.parameters);
  } else {
    layer.rescale(h, height(h));
    const bool near = h.exponent <= reach<T>, bounded = row.left == 0 && row.right == 0;
    const T in = power<T>(near ? h.exponent : reach<T>);
    if (bounded || !near) sums = run(phi.kernel->value, in, 1, row.parameters);
    if (!bounded && near) {
      sums = run(phi.kernel->value, in, 1 / in, row.parameters);
      v.exponent = h.exponent;
    } else if (!bounded) {
      const double slopes[] = {row.left, row.right};
      const Sums far = run(phi.two_slopes->value, 1, 1, slopes);
      if (far.largest > 0)
        sums = far, v.exponent = h.exponent;
      else
        sums = run(phi.kernel->value, in, 1, row.parameters);  // all on the flat side
    }
  }
  if (sums.largest < power<T>(-lost<T>) && phi.tails && phi.tails->value && h.largest > 0)
    return activate_tail(layer, phi, h, v);
  return layer.settle(v, sums);
}

template <class T>
Measure differentiate(Layer<T>& layer, const Phi<T>& phi, Block<T>& h, const Block<T>& g, Block<T>& out,
                      SlopeCount& count) {
  if (layer.exponent && isinf(h.largest)) return differentiate_overflowed(layer, phi, h, g, out, count);
  const ActivationRow& row = *phi.row;
  const T threshold = (T)(.01 * row.max_slope);
  const auto run = [&](Slope<T> slope, T in, const double* parameters) {
    return layer.chunks(h.n, [&](int64_t, int64_t units, int64_t o) {
      return slope(h.data + o, g.data + o, out.data + o, units, layer.columns, in, threshold, parameters);
    });
  };
  SlopeSums sums;
  if (!layer.exponent) {
    sums = run(phi.kernel->plain_slope, 1, row.parameters);
  } else if (h.exponent < 0) {
    const double slopes[] = {row.before_zero, row.after_zero};
    sums = run(phi.two_slopes->slope, 1, slopes);
  } else if (h.exponent == 0) {
    sums = run(phi.kernel->slope, 1, row.parameters);
  } else {
    layer.rescale(h, height(h));
    // Beyond reach the large entries have the slopes at +-infinity either way; exact zeros keep the slope at zero.
    sums = run(phi.kernel->slope, power<T>(h.exponent <= reach<T> ? h.exponent : reach<T>), row.parameters);
  }
  count = {sums.saturated, row.flat ? sums.dead : 0};
  const int64_t e = g.exponent;
  out.n = h.n, out.exponent = e;
  if (layer.exponent && sums.largest < power<T>(-lost<T>) && phi.tails && h.exponent >= 0 && g.largest > 0) {
    if (out.data == g.data) throw std::logic_error("differentiate: out must not be g");
    return differentiate_tail(layer, phi, h, g, out);
  }
  return layer.settle(out, {0, sums.square, sums.largest});
}

#define PYKERNEL_INSTANTIATE(T)                                              \
  template const Activation<T>& kernel_called<T>(const char*);               \
  template Phi<T> phi_of(const ActivationRow&);                              \
  template Measure activate(Layer<T>&, const Phi<T>&, Block<T>&, Block<T>&); \
  template Measure differentiate(Layer<T>&, const Phi<T>&, Block<T>&, const Block<T>&, Block<T>&, SlopeCount&);
PYKERNEL_INSTANTIATE(float)
PYKERNEL_INSTANTIATE(double)

}  // namespace pykernel
