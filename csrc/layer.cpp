// Exponents live here: which of them a step needs, and when it takes a slow road. The kernels below see mantissas only.
// SPDX-License-Identifier: BSD-3-Clause
#include "layer.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace pykernel {
namespace {

// Largest magnitudes are kept within 2^+-range, so that squares and sums stay normal numbers; `reach` is what 2^e times them may use;
// products below 2^-lost have lost digits to underflow.
template <class T> constexpr int range = std::is_same_v<T, float> ? 40 : 200;
template <class T> constexpr int reach = std::is_same_v<T, float> ? 120 : 1000;
template <class T> constexpr int lost = std::is_same_v<T, float> ? 90 : 900;

template <class T> T power(int64_t e) { return (T)ldexp(1., (int)(e < -3000 ? -3000 : e > 3000 ? 3000 : e)); }
template <class T> T scaled(double factor, int64_t e) { return (T)ldexp(factor, (int)(e < -3000 ? -3000 : e > 3000 ? 3000 : e)); }

void operator+=(Sums& a, const Sums& b) { a.sum += b.sum, a.square += b.square, a.largest = b.largest > a.largest ? b.largest : a.largest; }
void operator+=(SlopeSums& a, const SlopeSums& b) {
  a.square += b.square, a.largest = b.largest > a.largest ? b.largest : a.largest, a.saturated += b.saturated, a.dead += b.dead;
}

// log2 of the largest magnitude, far below everything for zero
template <class T> int64_t height(const Block<T>& x) { return x.largest > 0 ? x.exponent + ilogb(x.largest) : INT64_MIN / 4; }

// What a block is multiplied with to be at exponent e: nothing where it is zero, whose own exponent says nothing.
template <class T> T present(const Block<T>& x, double factor, int64_t e) {
  return x.largest == 0 && e ? T(0) : scaled<T>(factor, x.exponent - e);
}

}  // namespace

template <class T>
Layer<T>::Layer(const Plan& plan, const Elementwise<T>& kernels, Team& team, int64_t largest_width)
    : plan_(plan),
      kernels_(kernels),
      team_(team),
      B_(plan.batch),
      phi_(nullptr),
      two_slopes_(nullptr),
      tails_(tails_of(plan.activation.name)) {
  for (int i = 0; i < kernels.activation_count; i++) {
    if (!strcmp(kernels.activations[i].name, plan.activation.name)) phi_ = &kernels.activations[i];
    if (!strcmp(kernels.activations[i].name, "two slopes")) two_slopes_ = &kernels.activations[i];
  }
  if (!phi_) throw std::invalid_argument(std::string("unknown activation ") + plan.activation.name);
  if (!strcmp(plan.activation.name, "callback")) {
    const Callback* own = reinterpret_cast<const Callback*>(plan.activation.parameters);
    const bool floats = sizeof(T) == 4 && own && own->value_f32 && own->slope_f32;
    if (!own || !(floats || (own->value_f64 && own->slope_f64)))
      throw std::invalid_argument("a callback needs value and slope for this dtype");
  }
  const int64_t chunks = (largest_width + chunk_units - 1) / chunk_units;
  sums_.resize(chunks), slope_sums_.resize(chunks);
  if (plan.norm == layer_norm || plan.norm == rms_norm) {
    column_.resize((size_t)(2 * B_ * (chunks + 1)));
    for (auto* v : {&mean_, &factor_, &first_, &second_}) v->resize((size_t)B_);
  }
  if (!plan.exponent) scratch_ = Buffer<T>((size_t)(padded(largest_width) * B_));
}

template <class T> template <class F> auto Layer<T>::chunks(int64_t n, F f) {
  using Result = decltype(f(int64_t{}, int64_t{}, int64_t{}));
  const int64_t count = (n + chunk_units - 1) / chunk_units;
  if (count <= 1) return f(int64_t{0}, n, int64_t{0});
  if constexpr (std::is_void_v<Result>) {
    team_.each(count, [&](int64_t c) {
      f(c * chunk_units, n - c * chunk_units < chunk_units ? n - c * chunk_units : chunk_units, c * chunk_units * B_);
    });
  } else {
    Result* results;
    if constexpr (std::is_same_v<Result, Sums>)
      results = sums_.data();
    else
      results = slope_sums_.data();
    team_.each(count, [&](int64_t c) {
      results[c] = f(c * chunk_units, n - c * chunk_units < chunk_units ? n - c * chunk_units : chunk_units, c * chunk_units * B_);
    });
    for (int64_t c = 1; c < count; c++) results[0] += results[c];
    return results[0];
  }
}

template <class T> Sums Layer<T>::observe(const Block<T>& x) {
  return chunks(x.n, [&](int64_t, int64_t units, int64_t o) { return kernels_.observe(x.data + o, units, B_, T(1)); });
}

template <class T> void Layer<T>::rescale(Block<T>& x, int64_t exponent) {
  for (int64_t left = x.exponent - exponent; left;) {  // in steps, since 2^left may be beyond T where every number is subnormal
    const int64_t step = left > reach<T> ? reach<T> : left < -reach<T> ? -reach<T> : left;
    const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.combine(x.data + o, nullptr, x.data + o, units, B_, power<T>(step), T(0));
    });
    x.largest = sums.largest;
    left -= step;
    if (left < -4 * reach<T>) left = -reach<T>;
  }
  x.exponent = exponent;
}

template <class T> Measure Layer<T>::settle(Block<T>& x, Sums sums) {
  x.largest = sums.largest;
  if (!(sums.largest > 0)) {
    x.exponent = 0;
    return {sums.sum, sums.square, 0};
  }
  const int64_t h = ilogb(sums.largest), top = h + x.exponent;
  const bool fits = h >= -range<T> && h <= range<T>;
  if (fits && (x.exponent == 0 || top < -range<T> || top > range<T>)) return {sums.sum, sums.square, x.exponent};
  if (!isfinite(sums.largest)) return {sums.sum, sums.square, x.exponent};
  if (!plan_.exponent) {  // the block stays as it is; only what is measured is scaled
    const Sums scaled = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.observe(x.data + o, units, B_, power<T>(-h > reach<T> ? reach<T> : -h));
    });
    return {scaled.sum, scaled.square, h < -reach<T> ? -reach<T> : h};
  }
  rescale(x, top >= -range<T> && top <= range<T> ? 0 : top);
  sums = observe(x);
  return {sums.sum, sums.square, x.exponent};
}

template <class T> Block<T> Layer<T>::presentable(const Block<T>& x) {
  if (plan_.exponent || !(x.largest > 0) || !isfinite(x.largest)) return x;
  const int64_t h = ilogb(x.largest);
  if (h >= -range<T> && h <= range<T>) return x;
  Block<T> copy = {scratch_.get(), x.n, h < -reach<T> ? -reach<T> : h, 0};
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels_.combine(x.data + o, nullptr, copy.data + o, units, B_, power<T>(-copy.exponent), T(0));
  });
  copy.largest = sums.largest;
  return copy;
}

template <class T> Measure Layer<T>::add(const Block<T>& x, const Block<T>& y, double factor, Block<T>& out) {
  int64_t e = 0;
  if (plan_.exponent && (x.exponent || y.exponent || fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20)) {
    const int64_t hx = height(x), hy = factor ? height(y) + ilogb(factor) : INT64_MIN / 4, h = hx > hy ? hx : hy;
    e = h >= -range<T> && h <= range<T> ? 0 : h < INT64_MIN / 8 ? 0 : h;
  }
  const T fx = present(x, 1, e), fy = present(y, factor, e);
  const Sums sums = chunks(
      x.n, [&](int64_t, int64_t units, int64_t o) { return kernels_.combine(x.data + o, y.data + o, out.data + o, units, B_, fx, fy); });
  out.n = x.n, out.exponent = e;
  return settle(out, sums);
}

template <class T> Measure Layer<T>::scale(const Block<T>& x, double factor, Block<T>& out) {
  int e = 0;
  if (plan_.exponent && factor != 0 && (fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20)) frexp(factor, &e);
  const T f = scaled<T>(factor, -e);
  const Sums sums = chunks(
      x.n, [&](int64_t, int64_t units, int64_t o) { return kernels_.combine(x.data + o, nullptr, out.data + o, units, B_, f, T(0)); });
  out.n = x.n, out.exponent = x.exponent + e;
  return settle(out, sums);
}

template <class T> Measure Layer<T>::add_bias(Block<T>& z, const T* b, double largest, double factor) {
  int64_t e = 0;
  const Block<T> bias = {nullptr, z.n, 0, largest};
  if (plan_.exponent && factor != 0 && (z.exponent || fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20)) {
    const int64_t hz = height(z), hb = height(bias) + ilogb(factor), h = hz > hb ? hz : hb;
    e = h >= -range<T> && h <= range<T> ? 0 : h < INT64_MIN / 8 ? 0 : h;
  }
  if (factor == 0) return settle(z);
  const T fz = present(z, 1, e), fb = present(bias, factor, e);
  const Sums sums =
      chunks(z.n, [&](int64_t first, int64_t units, int64_t o) { return kernels_.add_bias(z.data + o, b + first, units, B_, fz, fb); });
  z.exponent = e;
  return settle(z, sums);
}

template <class T> double Layer<T>::log2_bias_norm(const Block<T>& delta) {
  const Block<T> d = presentable(delta);
  const Sums sums = chunks(d.n, [&](int64_t, int64_t units, int64_t o) { return Sums{kernels_.bias_square(d.data + o, units, B_), 0, 0}; });
  return .5 * log2(sums.sum) + (double)d.exponent;
}

// -- activation

template <class T> Measure Layer<T>::activate(Block<T>& h, Block<T>& v) {
  const ActivationRow& row = plan_.activation;
  const auto run = [&](Value<T> value, T in, T out, const double* parameters) {
    v.n = h.n;
    return chunks(h.n, [&](int64_t, int64_t units, int64_t o) { return value(h.data + o, v.data + o, units, B_, in, out, parameters); });
  };
  if (!plan_.exponent) return settle(v, (v.exponent = 0, run(phi_->plain_value, 1, 1, row.parameters)));
  Sums sums;
  if (h.exponent < 0 && row.at_zero == 0) {
    const double slopes[] = {row.before_zero, row.after_zero};
    sums = run(two_slopes_->value, 1, 1, slopes);
    v.exponent = h.exponent;
    return settle(v, sums);
  }
  v.exponent = 0;
  if (h.exponent <= 0) {
    sums = run(phi_->value, power<T>(h.exponent), 1, row.parameters);
  } else {
    rescale(h, height(h));
    const bool near = h.exponent <= reach<T>, bounded = row.left == 0 && row.right == 0;
    const T in = power<T>(near ? h.exponent : reach<T>);
    if (bounded || !near) sums = run(phi_->value, in, 1, row.parameters);
    if (!bounded && near) {
      sums = run(phi_->value, in, 1 / in, row.parameters);
      v.exponent = h.exponent;
    } else if (!bounded) {
      const double slopes[] = {row.left, row.right};
      const Sums far = run(two_slopes_->value, 1, 1, slopes);
      if (far.largest > 0)
        sums = far, v.exponent = h.exponent;
      else
        sums = run(phi_->value, in, 1, row.parameters);  // all on the flat side
    }
  }
  if (sums.largest < power<T>(-lost<T>) && tails_ && tails_->value && h.largest > 0) return activate_tail(h, v);
  return settle(v, sums);
}

template <class T> Measure Layer<T>::activate_tail(const Block<T>& h, Block<T>& v) {
  const double true_scale = ldexp(1., (int)(h.exponent > 900 ? 900 : h.exponent));
  double top = -INFINITY;
  const auto over = [&](auto f) {
    for (int64_t i = 0; i < h.n; i++)
      for (int64_t b = 0; b < B_; b++) {
        const int64_t o = entry_at(i, b, B_);
        f(tails_->value((double)h.data[o] * true_scale, plan_.activation.parameters), v.data[o]);
      }
  };
  over([&](Log2 x, T&) { top = x.log2 > top ? x.log2 : top; });
  if (!(top > -0x1p52)) top = 0;
  const double e = floor(top);
  over([&](Log2 x, T& out) { out = (T)(x.sign * exp2(x.log2 - e)); });
  v.exponent = (int64_t)e;
  return settle(v);
}

template <class T> Measure Layer<T>::differentiate(Block<T>& h, const Block<T>& g, Block<T>& out, SlopeCount& count) {
  const ActivationRow& row = plan_.activation;
  const T threshold = (T)(.01 * row.max_slope);
  const auto run = [&](Slope<T> slope, T in, const double* parameters) {
    return chunks(h.n, [&](int64_t, int64_t units, int64_t o) {
      return slope(h.data + o, g.data + o, out.data + o, units, B_, in, threshold, parameters);
    });
  };
  SlopeSums sums;
  if (!plan_.exponent) {
    sums = run(phi_->plain_slope, 1, row.parameters);
  } else if (h.exponent < 0) {
    const double slopes[] = {row.before_zero, row.after_zero};
    sums = run(two_slopes_->slope, 1, slopes);
  } else if (h.exponent == 0) {
    sums = run(phi_->slope, 1, row.parameters);
  } else {
    rescale(h, height(h));
    // Beyond reach the large entries have the slopes at +-infinity either way; exact zeros keep the slope at zero.
    sums = run(phi_->slope, power<T>(h.exponent <= reach<T> ? h.exponent : reach<T>), row.parameters);
  }
  count = {sums.saturated, row.flat ? sums.dead : 0};
  const int64_t e = g.exponent;
  out.n = h.n, out.exponent = e;
  if (plan_.exponent && sums.largest < power<T>(-lost<T>) && tails_ && h.exponent >= 0 && g.largest > 0) {
    if (out.data == g.data) throw std::logic_error("differentiate: out must not be g");
    return differentiate_tail(h, g, out);
  }
  return settle(out, {0, sums.square, sums.largest});
}

template <class T> Measure Layer<T>::differentiate_tail(const Block<T>& h, const Block<T>& g, Block<T>& out) {
  const double true_scale = ldexp(1., (int)(h.exponent > 900 ? 900 : h.exponent));
  double top = -INFINITY;
  const auto over = [&](auto f) {
    for (int64_t i = 0; i < h.n; i++)
      for (int64_t b = 0; b < B_; b++) {
        const int64_t o = entry_at(i, b, B_);
        f(tails_->slope((double)h.data[o] * true_scale, plan_.activation.parameters), (double)g.data[o], out.data[o]);
      }
  };
  over([&](Log2 s, double g, T&) {
    const double x = s.log2 + log2(fabs(g));
    top = x > top ? x : top;
  });
  if (!(top > -0x1p52)) top = 0;
  const double e = floor(top);
  over([&](Log2 s, double g, T& x) { x = (T)(g == 0 ? 0 : copysign(s.sign, s.sign * g) * exp2(s.log2 + log2(fabs(g)) - e)); });
  out.exponent = g.exponent + (int64_t)e;
  return settle(out);
}

// -- norm

template <class T> void Layer<T>::normalise(const Block<T>& z, Block<T>& h) {
  h.n = z.n, h.exponent = 0;
  if (z.exponent) {
    normalise_far(z, nullptr, h);
    return;
  }
  if (plan_.norm == batch_norm) {
    chunks(z.n, [&](int64_t, int64_t units, int64_t o) { kernels_.batch_norm(z.data + o, h.data + o, units, B_, (T)plan_.norm_eps); });
  } else {
    column_statistics(z);
    chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      kernels_.column_norm(z.data + o, h.data + o, units, B_, mean_.data(), factor_.data());
    });
  }
  h.largest = 1;
}

// mean_ and factor_ of every column, z's exponent zero
template <class T> void Layer<T>::column_statistics(const Block<T>& z) {
  const int64_t count = (z.n + chunk_units - 1) / chunk_units;
  double* total = column_.data() + 2 * B_ * count;
  const auto sum_chunks = [&] {
    for (int64_t b = 0; b < 2 * B_; b++) {
      total[b] = 0;
      for (int64_t c = 0; c < count; c++) total[b] += column_[(size_t)(2 * B_ * c + b)];
    }
  };
  chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
    double* out = column_.data() + first / chunk_units * 2 * B_;
    kernels_.column_sums(z.data + o, nullptr, units, B_, out, out + B_);
  });
  sum_chunks();
  const bool centred = plan_.norm == layer_norm;
  for (int64_t b = 0; b < B_; b++) mean_[(size_t)b] = centred ? (T)(total[b] / (double)z.n) : T(0);
  if (centred) {
    chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
      double* out = column_.data() + first / chunk_units * 2 * B_;
      kernels_.column_squares(z.data + o, units, B_, mean_.data(), out + B_);
    });
    sum_chunks();
  }
  for (int64_t b = 0; b < B_; b++) factor_[(size_t)b] = (T)(1 / ::sqrt(total[B_ + b] / (double)z.n + plan_.norm_eps));
}

template <class T> Measure Layer<T>::normalise_backward(const Block<T>& z, const Block<T>& h, const Block<T>& g, Block<T>& dz) {
  dz.n = z.n;
  if (z.exponent) return normalise_far(z, &g, dz);
  dz.exponent = g.exponent;
  SlopeSums sums;
  if (plan_.norm == batch_norm) {
    sums = chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.batch_norm_backward(z.data + o, g.data + o, dz.data + o, units, B_, (T)plan_.norm_eps);
    });
  } else {
    const int64_t count = (z.n + chunk_units - 1) / chunk_units;
    column_statistics(z);
    chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
      double* out = column_.data() + first / chunk_units * 2 * B_;
      kernels_.column_sums(g.data + o, h.data + o, units, B_, out, out + B_);
    });
    for (int64_t b = 0; b < B_; b++) {
      double sum = 0, product = 0;
      for (int64_t c = 0; c < count; c++) sum += column_[(size_t)(2 * B_ * c + b)], product += column_[(size_t)(2 * B_ * c + B_ + b)];
      first_[(size_t)b] = plan_.norm == layer_norm ? (T)(sum / (double)z.n) : T(0);
      second_[(size_t)b] = (T)(product / (double)z.n);
    }
    sums = chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.column_norm_backward(h.data + o, g.data + o, dz.data + o, units, B_, first_.data(), second_.data(), factor_.data());
    });
  }
  return settle(dz, {0, sums.square, sums.largest});
}

// Where z carries an exponent, in scalar double: h of z (g null) or dz of g. With e > 0 the factor is 2^-e / sqrt(variance + eps 2^-2e).
template <class T> Measure Layer<T>::normalise_far(const Block<T>& z, const Block<T>* g, Block<T>& out) {
  const bool over_batch = plan_.norm == batch_norm, centred = plan_.norm != rms_norm;
  const int64_t groups = over_batch ? z.n : B_, members = over_batch ? B_ : z.n, e = z.exponent;
  const auto at = [&](int64_t group, int64_t member) {
    const int64_t i = over_batch ? group : member, b = over_batch ? member : group;
    return entry_at(i, b, B_);
  };
  const double eps = ldexp(plan_.norm_eps, e > 0 ? (int)(e > 2000 ? -4000 : -2 * e) : 0),
               up = ldexp(1., e > 0 ? 0 : (int)(e < -2000 ? -2000 : e));
  Vector<double> row((size_t)members);
  const auto visit = [&](auto use) {  // use(result, place)
    for (int64_t group = 0; group < groups; group++) {
      double mean = 0, square = 0, m1 = 0, m2 = 0;
      for (int64_t m = 0; m < members && centred; m++) mean += (double)z.data[at(group, m)];
      mean /= (double)members;
      for (int64_t m = 0; m < members; m++) {
        row[(size_t)m] = (double)z.data[at(group, m)] - mean;
        square += row[(size_t)m] * row[(size_t)m];
      }
      const double variance = square / (double)members * up * up + eps, factor = 1 / ::sqrt(variance > 2.3e-308 ? variance : 2.3e-308);
      for (int64_t m = 0; m < members && g; m++) {
        const double gm = (double)g->data[at(group, m)];
        m1 += gm, m2 += gm * row[(size_t)m] * factor * up;
      }
      m1 = centred ? m1 / (double)members : 0, m2 /= (double)members;
      for (int64_t m = 0; m < members; m++) {
        const double h = row[(size_t)m] * factor;
        use(g ? factor * ((double)g->data[at(group, m)] - m1 - h * up * m2) : h, at(group, m));
      }
    }
  };
  double top = 0;
  visit([&](double x, int64_t) { top = fabs(x) > top ? fabs(x) : top; });
  const int shift = top > 0 ? ilogb(top) : 0;
  visit([&](double x, int64_t o) { out.data[o] = (T)ldexp(x, -shift); });
  out.exponent = shift + (g ? g->exponent - (e > 0 ? e : 0) : (e > 0 ? 0 : e));
  return settle(out);
}

template class Layer<float>;
template class Layer<double>;

}  // namespace pykernel
