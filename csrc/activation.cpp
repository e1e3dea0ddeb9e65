// Activation functions of whole blocks: which kernel an exponent asks for, and the slow road where values or slopes
// leave the range of T. SPDX-License-Identifier: BSD-3-Clause
#include "activation.hpp"

#include <math.h>
#include <string.h>

#include <stdexcept>
#include <string>

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
