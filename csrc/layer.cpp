// Exponents live here: which of them a step needs, and when it takes a slow road. The kernels below see mantissas only.
// SPDX-License-Identifier: BSD-3-Clause
#include "layer.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "constants.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

// `reach` is what 2^e times ordinary magnitudes may use; products below 2^-lost have lost digits to underflow.
template <class T> constexpr int reach = std::is_same_v<T, float> ? 120 : 1000;
template <class T> constexpr int lost = std::is_same_v<T, float> ? 90 : 900;

template <class T> T power(int64_t e) { return (T)ldexp(1., (int)(e < -3000 ? -3000 : e > 3000 ? 3000 : e)); }
template <class T> T scaled(double factor, int64_t e) {
  return (T)ldexp(factor, (int)(e < -3000 ? -3000 : e > 3000 ? 3000 : e));
}

void operator+=(Sums& a, const Sums& b) {
  a.sum += b.sum, a.square += b.square, a.largest = b.largest > a.largest ? b.largest : a.largest;
}
void operator+=(SlopeSums& a, const SlopeSums& b) {
  a.square += b.square, a.largest = b.largest > a.largest ? b.largest : a.largest, a.saturated += b.saturated,
                        a.dead += b.dead;
}

// log2 of the largest magnitude, far below everything for zero
template <class T> int64_t height(const Block<T>& x) {
  return x.largest > 0 ? x.exponent + ilogb(x.largest) : INT64_MIN / 4;
}

// What a block is multiplied with to be at exponent e: nothing where it is zero, whose own exponent says nothing.
template <class T> T present(const Block<T>& x, double factor, int64_t e) {
  return x.largest == 0 && e ? T(0) : scaled<T>(factor, x.exponent - e);
}

}  // namespace

template <class T> Phi<T> phi_of(const ActivationRow& row) {
  const Elementwise<T>& table = elementwise_table<T>();
  const Activation<T>* found = nullptr;
  for (int i = 0; i < table.activation_count; i++)
    if (!strcmp(table.activations[i].name, row.name)) found = &table.activations[i];
  if (!found) throw std::invalid_argument(std::string("unknown activation ") + row.name);
  if (!strcmp(row.name, "callback")) {
    const Callback* own = reinterpret_cast<const Callback*>(row.parameters);
    const bool floats = sizeof(T) == 4 && own && own->value_f32 && own->slope_f32;
    if (!own || !(floats || (own->value_f64 && own->slope_f64)))
      throw std::invalid_argument("a callback needs value and slope for this dtype");
  }
  return {&row, found, tails_of(row.name)};
}
template Phi<float> phi_of(const ActivationRow&);
template Phi<double> phi_of(const ActivationRow&);

namespace {
constexpr ActivationRow two_slopes = {"two slopes", nullptr, 1, 1, 1, 1, 0, 1, false};
int64_t chunks_of(int64_t units) { return (units + chunk_units - 1) / chunk_units; }
}  // namespace

template <class T>
Layer<T>::Layer(bool exponent, int64_t columns, int64_t largest_width, Team& team)
    : kernels_(elementwise_table<T>()),
      exponent_(exponent),
      B_(columns),
      team_(team),
      two_slopes_(phi_of<T>(two_slopes).kernel),
      sums_((size_t)chunks_of(largest_width)),
      slope_sums_((size_t)chunks_of(largest_width)),
      column_((size_t)(2 * B_ * (chunks_of(largest_width) + 1))) {
  for (auto* v : {&mean_, &factor_, &first_, &second_}) v->resize((size_t)B_);
  if (!exponent) scratch_ = Buffer<T>((size_t)block_entries(largest_width, B_));
}

template <class T> int64_t Layer<T>::bytes(bool exponent, int64_t columns, int64_t largest_width) {
  const int64_t chunks = chunks_of(largest_width);
  return taken<Sums>(chunks) + taken<SlopeSums>(chunks) + taken<double>(2 * columns * (chunks + 1)) +
         4 * taken<T>(columns) + (exponent ? 0 : Buffer<T>::bytes(block_entries(largest_width, columns))) +
         taken<double>(std::max(largest_width, columns));  // the last while a norm of a far block is taken
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
      results[c] = f(c * chunk_units, n - c * chunk_units < chunk_units ? n - c * chunk_units : chunk_units,
                     c * chunk_units * B_);
    });
    for (int64_t c = 1; c < count; c++) results[0] += results[c];
    return results[0];
  }
}

template <class T> Sums Layer<T>::observe(const Block<T>& x) {
  return chunks(x.n, [&](int64_t, int64_t units, int64_t o) { return kernels_.observe(x.data + o, units, B_, T(1)); });
}

template <class T> void Layer<T>::rescale(Block<T>& x, int64_t exponent) {
  for (int64_t left = x.exponent - exponent;
       left;) {  // in steps, since 2^left may be beyond T where every number is subnormal
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
  if (!exponent_) {  // the block stays as it is; only what is measured is scaled
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
  if (exponent_ || !(x.largest > 0) || !isfinite(x.largest)) return x;
  const int64_t h = ilogb(x.largest);
  if (h >= -range<T> && h <= range<T>) return x;
  Block<T> copy = {scratch_.get(), x.n, h < -reach<T> ? -reach<T> : h, 0};
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels_.combine(x.data + o, nullptr, copy.data + o, units, B_, power<T>(-copy.exponent), T(0));
  });
  copy.largest = sums.largest;
  return copy;
}

// Where fx x + fy y lies: at zero as long as its magnitude is an ordinary one.
template <class T> int64_t Layer<T>::common_exponent(const Block<T>& x, double fx, const Block<T>& y, double fy) const {
  const auto far = [](double factor) { return fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20; };
  if (!exponent_ || !(x.exponent || y.exponent || far(fx) || far(fy))) return 0;
  const auto height_of = [](const Block<T>& b, double factor) {
    return factor ? height(b) + ilogb(factor) : INT64_MIN / 4;
  };
  const int64_t h = std::max(height_of(x, fx), height_of(y, fy));
  return (h >= -range<T> && h <= range<T>) || h < INT64_MIN / 8 ? 0 : h;
}

template <class T> Measure Layer<T>::add(const Block<T>& x, double fx, const Block<T>& y, double fy, Block<T>& out) {
  const int64_t e = common_exponent(x, fx, y, fy);
  const T tx = present(x, fx, e), ty = present(y, fy, e);
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels_.combine(x.data + o, y.data + o, out.data + o, units, B_, tx, ty);
  });
  out.n = x.n, out.exponent = e;
  return settle(out, sums);
}

template <class T> Measure Layer<T>::scale(const Block<T>& x, double factor, Block<T>& out) {
  int e = 0;
  if (exponent_ && factor != 0 && (fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20)) frexp(factor, &e);
  const T f = scaled<T>(factor, -e);
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels_.combine(x.data + o, nullptr, out.data + o, units, B_, f, T(0));
  });
  out.n = x.n, out.exponent = x.exponent + e;
  return settle(out, sums);
}

// Where the product of the largest magnitudes is no ordinary number, one block is scaled so that it is; and where large
// entries of one meet small ones of the other only, once more, as far up as T goes.
// kernel(factor): the product times a factor, over the chunks.
template <class T>
template <class F>
Measure Layer<T>::product(const Block<T>& x, const Block<T>& y, Block<T>& out, F kernel) {
  const bool scaled = exponent_ && x.largest > 0 && y.largest > 0 && isfinite(x.largest) && isfinite(y.largest);
  const int64_t h = scaled ? ilogb(x.largest) + ilogb(y.largest) : 0;
  int64_t shift = h >= -range<T> && h <= range<T> ? 0 : h;
  Sums sums = kernel(power<T>(-shift));
  if (scaled && sums.largest < power<T>(-lost<T>)) {
    shift = std::min<int64_t>(shift, ilogb(x.largest) - reach<T>);
    sums = kernel(power<T>(-shift));
  }
  out.n = x.n, out.exponent = x.exponent + y.exponent + shift;
  return settle(out, sums);
}

template <class T> Measure Layer<T>::multiply(const Block<T>& x, const Block<T>& y, Block<T>& out) {
  return product(x, y, out, [&](T factor) {
    return chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.multiply(x.data + o, y.data + o, out.data + o, units, B_, factor);
    });
  });
}

template <class T> Measure Layer<T>::multiply_units(const Block<T>& x, const Block<T>& y, Block<T>& out) {
  return product(x, y, out, [&](T factor) {
    return chunks(x.n, [&](int64_t first, int64_t units, int64_t o) {
      return kernels_.multiply_units(x.data + o, y.data + first, out.data + o, units, B_, factor);
    });
  });
}

template <class T> Measure Layer<T>::add_bias(Block<T>& z, const T* b, double largest, double factor) {
  if (factor == 0) return settle(z);
  const Block<T> bias = {nullptr, z.n, 0, largest};
  const int64_t e = common_exponent(z, 1, bias, factor);
  const T fz = present(z, 1, e), fb = present(bias, factor, e);
  const Sums sums = chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
    return kernels_.add_bias(z.data + o, b + first, units, B_, fz, fb);
  });
  z.exponent = e;
  return settle(z, sums);
}

template <class T> Measure Layer<T>::centre(const Block<T>& x, Block<T>& out) {
  out.n = x.n, out.exponent = x.exponent, out.largest = x.largest;
  const int64_t panels = (x.n + 15) / 16, chunk = chunk_units / 16;
  team_.each((panels + chunk - 1) / chunk, [&](int64_t c) {
    for (int64_t p = c * chunk; p < std::min(panels, (c + 1) * chunk); p++)
      for (int64_t lane = 0; lane < 16; lane++) {
        const T* from = x.data + p * B_ * 16 + lane;
        T mean = 0;
        for (int64_t b = 0; b < B_; b++) mean += from[b * 16];
        mean /= (T)B_;
        for (int64_t b = 0; b < B_; b++) out.data[(p * B_ + b) * 16 + lane] = from[b * 16] - mean;
      }
  });
  return settle(out);
}

template <class T> double Layer<T>::log2_bias_norm(const Block<T>& delta) {
  const Block<T> d = presentable(delta);
  const Sums sums = chunks(
      d.n, [&](int64_t, int64_t units, int64_t o) { return Sums{kernels_.bias_square(d.data + o, units, B_), 0, 0}; });
  return .5 * log2(sums.sum) + (double)d.exponent;
}

// -- activation

template <class T> Measure Layer<T>::activate(const Phi<T>& phi, Block<T>& h, Block<T>& v) {
  const ActivationRow& row = *phi.row;
  const auto run = [&](Value<T> value, T in, T out, const double* parameters) {
    v.n = h.n;
    return chunks(h.n, [&](int64_t, int64_t units, int64_t o) {
      return value(h.data + o, v.data + o, units, B_, in, out, parameters);
    });
  };
  Sums sums;
  if (!exponent_) {
    v.exponent = 0;
    sums = run(phi.kernel->plain_value, 1, 1, row.parameters);
    return settle(v, sums);
  }
  if (h.exponent < 0 && row.at_zero == 0) {
    const double slopes[] = {row.before_zero, row.after_zero};
    sums = run(two_slopes_->value, 1, 1, slopes);
    v.exponent = h.exponent;
    return settle(v, sums);
  }
  v.exponent = 0;
  if (h.exponent <= 0) {
    sums = run(phi.kernel->value, power<T>(h.exponent), 1, row.parameters);
  } else {
    rescale(h, height(h));
    const bool near = h.exponent <= reach<T>, bounded = row.left == 0 && row.right == 0;
    const T in = power<T>(near ? h.exponent : reach<T>);
    if (bounded || !near) sums = run(phi.kernel->value, in, 1, row.parameters);
    if (!bounded && near) {
      sums = run(phi.kernel->value, in, 1 / in, row.parameters);
      v.exponent = h.exponent;
    } else if (!bounded) {
      const double slopes[] = {row.left, row.right};
      const Sums far = run(two_slopes_->value, 1, 1, slopes);
      if (far.largest > 0)
        sums = far, v.exponent = h.exponent;
      else
        sums = run(phi.kernel->value, in, 1, row.parameters);  // all on the flat side
    }
  }
  if (sums.largest < power<T>(-lost<T>) && phi.tails && phi.tails->value && h.largest > 0)
    return activate_tail(phi, h, v);
  return settle(v, sums);
}

template <class T> Measure Layer<T>::activate_tail(const Phi<T>& phi, const Block<T>& h, Block<T>& v) {
  const double true_scale = ldexp(1., (int)(h.exponent > 900 ? 900 : h.exponent));
  double top = -INFINITY;
  const auto over = [&](auto f) {
    for (int64_t i = 0; i < h.n; i++)
      for (int64_t b = 0; b < B_; b++) {
        const int64_t o = entry_at(i, b, B_);
        f(phi.tails->value((double)h.data[o] * true_scale, phi.row->parameters), v.data[o]);
      }
  };
  over([&](Log2 x, T&) { top = x.log2 > top ? x.log2 : top; });
  if (!(top > -0x1p52)) top = 0;
  const double e = floor(top);
  over([&](Log2 x, T& out) { out = (T)(x.sign * exp2(x.log2 - e)); });
  v.exponent = (int64_t)e;
  return settle(v);
}

template <class T>
Measure Layer<T>::differentiate(const Phi<T>& phi, Block<T>& h, const Block<T>& g, Block<T>& out, SlopeCount& count) {
  const ActivationRow& row = *phi.row;
  const T threshold = (T)(.01 * row.max_slope);
  const auto run = [&](Slope<T> slope, T in, const double* parameters) {
    return chunks(h.n, [&](int64_t, int64_t units, int64_t o) {
      return slope(h.data + o, g.data + o, out.data + o, units, B_, in, threshold, parameters);
    });
  };
  SlopeSums sums;
  if (!exponent_) {
    sums = run(phi.kernel->plain_slope, 1, row.parameters);
  } else if (h.exponent < 0) {
    const double slopes[] = {row.before_zero, row.after_zero};
    sums = run(two_slopes_->slope, 1, slopes);
  } else if (h.exponent == 0) {
    sums = run(phi.kernel->slope, 1, row.parameters);
  } else {
    rescale(h, height(h));
    // Beyond reach the large entries have the slopes at +-infinity either way; exact zeros keep the slope at zero.
    sums = run(phi.kernel->slope, power<T>(h.exponent <= reach<T> ? h.exponent : reach<T>), row.parameters);
  }
  count = {sums.saturated, row.flat ? sums.dead : 0};
  const int64_t e = g.exponent;
  out.n = h.n, out.exponent = e;
  if (exponent_ && sums.largest < power<T>(-lost<T>) && phi.tails && h.exponent >= 0 && g.largest > 0) {
    if (out.data == g.data) throw std::logic_error("differentiate: out must not be g");
    return differentiate_tail(phi, h, g, out);
  }
  return settle(out, {0, sums.square, sums.largest});
}

template <class T>
Measure Layer<T>::differentiate_tail(const Phi<T>& phi, const Block<T>& h, const Block<T>& g, Block<T>& out) {
  const double true_scale = ldexp(1., (int)(h.exponent > 900 ? 900 : h.exponent));
  double top = -INFINITY;
  const auto over = [&](auto f) {
    for (int64_t i = 0; i < h.n; i++)
      for (int64_t b = 0; b < B_; b++) {
        const int64_t o = entry_at(i, b, B_);
        f(phi.tails->slope((double)h.data[o] * true_scale, phi.row->parameters), (double)g.data[o], out.data[o]);
      }
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
  return settle(out);
}

// -- norm

template <class T> void Layer<T>::normalise(const NormRow& norm, const Block<T>& z, Block<T>& h) {
  h.n = z.n, h.exponent = 0;
  if (z.exponent) {
    normalise_far(norm, z, h);
    return;
  }
  if (norm.kind == batch_norm) {
    chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      kernels_.batch_norm(z.data + o, h.data + o, units, B_, (T)norm.eps);
    });
  } else {
    column_statistics(norm, z);
    chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      kernels_.column_norm(z.data + o, h.data + o, units, B_, mean_.data(), factor_.data());
    });
  }
  h.largest = 1;
}

// mean_ and factor_ of every column, z's exponent zero
template <class T> void Layer<T>::column_statistics(const NormRow& norm, const Block<T>& z) {
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
  const bool centred = norm.kind == layer_norm;
  for (int64_t b = 0; b < B_; b++) mean_[(size_t)b] = centred ? (T)(total[b] / (double)z.n) : T(0);
  if (centred) {
    chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
      double* out = column_.data() + first / chunk_units * 2 * B_;
      kernels_.column_squares(z.data + o, units, B_, mean_.data(), out + B_);
    });
    sum_chunks();
  }
  for (int64_t b = 0; b < B_; b++) factor_[(size_t)b] = (T)(1 / ::sqrt(total[B_ + b] / (double)z.n + norm.eps));
}

template <class T>
Measure Layer<T>::normalise_backward(const NormRow& norm, const Block<T>& z, const Block<T>& h, const Block<T>& g,
                                     Block<T>& dz) {
  dz.n = z.n;
  if (z.exponent) return normalise_far_backward(norm, z, g, dz);
  dz.exponent = g.exponent;
  SlopeSums sums;
  if (norm.kind == batch_norm) {
    sums = chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.batch_norm_backward(z.data + o, g.data + o, dz.data + o, units, B_, (T)norm.eps);
    });
  } else {
    const int64_t count = (z.n + chunk_units - 1) / chunk_units;
    column_statistics(norm, z);
    chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
      double* out = column_.data() + first / chunk_units * 2 * B_;
      kernels_.column_sums(g.data + o, h.data + o, units, B_, out, out + B_);
    });
    for (int64_t b = 0; b < B_; b++) {
      double sum = 0, product = 0;
      for (int64_t c = 0; c < count; c++)
        sum += column_[(size_t)(2 * B_ * c + b)], product += column_[(size_t)(2 * B_ * c + B_ + b)];
      first_[(size_t)b] = norm.kind == layer_norm ? (T)(sum / (double)z.n) : T(0);
      second_[(size_t)b] = (T)(product / (double)z.n);
    }
    sums = chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels_.column_norm_backward(h.data + o, g.data + o, dz.data + o, units, B_, first_.data(),
                                           second_.data(), factor_.data());
    });
  }
  return settle(dz, {0, sums.square, sums.largest});
}

namespace {

// What is normalised over, where z carries an exponent, in scalar double. With e > 0 the factor is 2^-e / sqrt(variance
// + eps 2^-2e).
template <class T> class FarGroups {
 public:
  FarGroups(const NormRow& norm, const Block<T>& z, int64_t columns)
      : count(norm.kind == batch_norm ? z.n : columns),
        members(norm.kind == batch_norm ? columns : z.n),
        up(ldexp(1., z.exponent > 0 ? 0 : (int)std::max<int64_t>(z.exponent, -2000))),
        rest((size_t)members),
        z_(z),
        columns_(columns),
        over_columns_(norm.kind == batch_norm),
        centred_(norm.kind != rms_norm),
        eps_(ldexp(norm.eps, z.exponent > 0 ? (int)std::max<int64_t>(-2 * z.exponent, -4000) : 0)) {}

  int64_t at(int64_t group, int64_t member) const {
    return over_columns_ ? entry_at(group, member, columns_) : entry_at(member, group, columns_);
  }
  // rest and factor of a group
  void read(int64_t group) {
    double mean = 0, square = 0;
    for (int64_t m = 0; m < members && centred_; m++) mean += (double)z_.data[at(group, m)];
    mean /= (double)members;
    for (int64_t m = 0; m < members; m++) {
      rest[(size_t)m] = (double)z_.data[at(group, m)] - mean;
      square += rest[(size_t)m] * rest[(size_t)m];
    }
    const double variance = square / (double)members * up * up + eps_;
    factor = 1 / ::sqrt(variance > 2.3e-308 ? variance : 2.3e-308);
  }
  // mean of g, and of g times Norm(z)
  void project(int64_t group, const T* g, double& mean, double& product) const {
    mean = product = 0;
    for (int64_t m = 0; m < members; m++) {
      const double gm = (double)g[at(group, m)];
      mean += gm;
      product += gm * rest[(size_t)m] * factor * up;
    }
    mean = centred_ ? mean / (double)members : 0;
    product /= (double)members;
  }

  const int64_t count, members;
  const double up;      // 2^e where e is below zero
  Vector<double> rest;  // mantissas without their mean
  double factor = 0;

 private:
  const Block<T>& z_;
  const int64_t columns_;
  const bool over_columns_, centred_;
  const double eps_;
};

}  // namespace

// visit(use) calls use(number, place) for every entry of out, twice alike; their common power of two goes to the
// exponent.
template <class T> template <class F> Measure Layer<T>::write_far(F visit, Block<T>& out) {
  double top = 0;
  visit([&](double x, int64_t) { top = std::max(top, fabs(x)); });
  const int shift = top > 0 ? ilogb(top) : 0;
  visit([&](double x, int64_t o) { out.data[o] = (T)ldexp(x, -shift); });
  out.exponent += shift;
  return settle(out);
}

template <class T> void Layer<T>::normalise_far(const NormRow& norm, const Block<T>& z, Block<T>& h) {
  FarGroups<T> groups(norm, z, B_);
  h.exponent = std::min<int64_t>(z.exponent, 0);
  write_far(
      [&](auto use) {
        for (int64_t group = 0; group < groups.count; group++) {
          groups.read(group);
          for (int64_t m = 0; m < groups.members; m++) use(groups.rest[(size_t)m] * groups.factor, groups.at(group, m));
        }
      },
      h);
}

template <class T>
Measure Layer<T>::normalise_far_backward(const NormRow& norm, const Block<T>& z, const Block<T>& g, Block<T>& dz) {
  FarGroups<T> groups(norm, z, B_);
  dz.exponent = g.exponent - std::max<int64_t>(z.exponent, 0);
  return write_far(
      [&](auto use) {
        for (int64_t group = 0; group < groups.count; group++) {
          double mean, product;
          groups.read(group);
          groups.project(group, g.data, mean, product);
          for (int64_t m = 0; m < groups.members; m++) {
            const double h = groups.rest[(size_t)m] * groups.factor;
            use(groups.factor * ((double)g.data[groups.at(group, m)] - mean - h * groups.up * product),
                groups.at(group, m));
          }
        }
      },
      dz);
}

template class Layer<float>;
template class Layer<double>;

}  // namespace pykernel
