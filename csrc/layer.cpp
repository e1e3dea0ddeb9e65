// Exponents live here: which of them a step needs, and when it takes a slow road. The kernels below see mantissas only.
// SPDX-License-Identifier: BSD-3-Clause
#include "layer.hpp"

#include <math.h>

#include <algorithm>

#include "constants.hpp"
#include "exponents.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

// What a block is multiplied with to be at exponent e: nothing where it is zero, whose own exponent says nothing.
template <class T> T present(const Block<T>& x, double factor, int64_t e) {
  return x.largest == 0 && e ? T(0) : scaled<T>(factor, x.exponent - e);
}

}  // namespace

template <class T>
Layer<T>::Layer(bool exponent_, int64_t columns_, int64_t largest_width, int64_t largest_block, Team& team)
    : exponent(exponent_),
      columns(columns_),
      kernels(elementwise_table<T>()),
      team_(team),
      sums_((size_t)chunks_of(largest_width)),
      slope_sums_((size_t)chunks_of(largest_width)) {
  if (!exponent) scratch_ = Buffer<T>((size_t)largest_block);
}

template <class T> int64_t Layer<T>::bytes(bool exponent, int64_t largest_width, int64_t largest_block) {
  const int64_t chunks = chunks_of(largest_width);
  return taken<Sums>(chunks) + taken<SlopeSums>(chunks) + (exponent ? 0 : Buffer<T>::bytes(largest_block));
}

template <class T> Sums Layer<T>::observe(const Block<T>& x) {
  return chunks(x.n,
                [&](int64_t, int64_t units, int64_t o) { return kernels.observe(x.data + o, units, columns, T(1)); });
}

template <class T> void Layer<T>::rescale(Block<T>& x, int64_t to) {
  for (int64_t left = x.exponent - to;
       left;) {  // in steps, since 2^left may be beyond T where every number is subnormal
    const int64_t step = left > reach<T> ? reach<T> : left < -reach<T> ? -reach<T> : left;
    const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels.combine(x.data + o, nullptr, x.data + o, units, columns, power<T>(step), T(0));
    });
    x.largest = sums.largest;
    left -= step;
    if (left < -4 * reach<T>) left = -reach<T>;
  }
  x.exponent = to;
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
  if (!exponent) {  // the block stays as it is; only what is measured is scaled
    const Sums scaled = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels.observe(x.data + o, units, columns, power<T>(-h > reach<T> ? reach<T> : -h));
    });
    return {scaled.sum, scaled.square, h < -reach<T> ? -reach<T> : h};
  }
  rescale(x, top >= -range<T> && top <= range<T> ? 0 : top);
  sums = observe(x);
  return {sums.sum, sums.square, x.exponent};
}

template <class T> Block<T> Layer<T>::presentable(const Block<T>& x) {
  if (exponent || !(x.largest > 0) || !isfinite(x.largest)) return x;
  const int64_t h = ilogb(x.largest);
  if (h >= -range<T> && h <= range<T>) return x;
  Block<T> copy = {scratch_.get(), x.n, h < -reach<T> ? -reach<T> : h, 0};
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels.combine(x.data + o, nullptr, copy.data + o, units, columns, power<T>(-copy.exponent), T(0));
  });
  copy.largest = sums.largest;
  return copy;
}

// fx x + fy y, one of which has overflowed its format: an inf stays one at any exponent, and sets none.
template <class T>
Measure Layer<T>::add_overflowed(const Block<T>& x, double fx, const Block<T>& y, double fy, Block<T>& out) {
  const auto term = [](const Block<T>& of, double factor, int64_t i) {
    const double value = (double)of.data[i] * factor;
    return isfinite(value) ? scaled<double>(value, of.exponent) : value;
  };
  for (int64_t i = 0; i < block_entries(x.n, columns); i++) out.data[i] = (T)(term(x, fx, i) + term(y, fy, i));
  out.n = x.n, out.exponent = 0;
  return settle(out);
}

// Where fx x + fy y lies: at zero as long as its magnitude is an ordinary one.
template <class T> int64_t Layer<T>::common_exponent(const Block<T>& x, double fx, const Block<T>& y, double fy) const {
  const auto far = [](double factor) { return fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20; };
  if (!exponent || !(x.exponent || y.exponent || far(fx) || far(fy))) return 0;
  const auto height_of = [](const Block<T>& b, double factor) {
    return factor ? height(b) + ilogb(factor) : INT64_MIN / 4;
  };
  const int64_t h = std::max(height_of(x, fx), height_of(y, fy));
  return (h >= -range<T> && h <= range<T>) || h < INT64_MIN / 8 ? 0 : h;
}

template <class T> Measure Layer<T>::add(const Block<T>& x, double fx, const Block<T>& y, double fy, Block<T>& out) {
  if (exponent && !(isfinite(x.largest) && isfinite(y.largest))) return add_overflowed(x, fx, y, fy, out);
  const int64_t e = common_exponent(x, fx, y, fy);
  const T tx = present(x, fx, e), ty = present(y, fy, e);
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels.combine(x.data + o, y.data + o, out.data + o, units, columns, tx, ty);
  });
  out.n = x.n, out.exponent = e;
  return settle(out, sums);
}

template <class T> Measure Layer<T>::scale(const Block<T>& x, double factor, Block<T>& out) {
  int e = 0;
  if (exponent && factor != 0 && (fabs(factor) > 0x1p20 || fabs(factor) < 0x1p-20)) frexp(factor, &e);
  const T f = scaled<T>(factor, -e);
  const Sums sums = chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
    return kernels.combine(x.data + o, nullptr, out.data + o, units, columns, f, T(0));
  });
  out.n = x.n, out.exponent = x.exponent + e;
  return settle(out, sums);
}

// x y where no exponent says how large it is: inf or 0.
template <class T> Measure Layer<T>::multiply_far(const Block<T>& x, const Block<T>& y, double most, Block<T>& out) {
  for (int64_t i = 0; i < block_entries(x.n, columns); i++) {
    const double product = (double)x.data[i] * (double)y.data[i];
    out.data[i] = product == 0 ? T(0) : (T)(product * most);
  }
  out.n = x.n, out.exponent = 0;
  return settle(out);
}

// Where the product of the largest magnitudes is no ordinary number, one block is scaled so that it is; and where large
// entries of one meet small ones of the other only, once more, as far up as T goes.
// kernel(factor): the product times a factor, over the chunks.
template <class T>
template <class F>
Measure Layer<T>::product(const Block<T>& x, const Block<T>& y, Block<T>& out, F kernel) {
  const bool scaled = exponent && x.largest > 0 && y.largest > 0 && isfinite(x.largest) && isfinite(y.largest);
  const int64_t h = scaled ? ilogb(x.largest) + ilogb(y.largest) : 0;
  int64_t shift = h >= -range<T> && h <= range<T> ? 0 : h;
  Sums sums = kernel(power<T>(-shift));
  if (scaled && sums.largest < power<T>(-lost<T>)) {
    // no further than a factor goes: 0 times inf is no number
    shift = std::min<int64_t>(shift, std::max<int64_t>(ilogb(x.largest) - reach<T>, -reach<T>));
    sums = kernel(power<T>(-shift));
  }
  out.n = x.n, out.exponent = x.exponent + y.exponent + shift;
  return settle(out, sums);
}

template <class T> Measure Layer<T>::multiply(const Block<T>& x, const Block<T>& y, Block<T>& out) {
  const int64_t sum = x.exponent + y.exponent;
  if (sum >= farthest || sum <= -farthest) return multiply_far(x, y, sum > 0 ? INFINITY : 0, out);
  return product(x, y, out, [&](T factor) {
    return chunks(x.n, [&](int64_t, int64_t units, int64_t o) {
      return kernels.multiply(x.data + o, y.data + o, out.data + o, units, columns, factor);
    });
  });
}

template <class T> Measure Layer<T>::multiply_units(const Block<T>& x, const Block<T>& y, Block<T>& out) {
  return product(x, y, out, [&](T factor) {
    return chunks(x.n, [&](int64_t first, int64_t units, int64_t o) {
      return kernels.multiply_units(x.data + o, y.data + first, out.data + o, units, columns, factor);
    });
  });
}

template <class T> Measure Layer<T>::add_bias(Block<T>& z, const T* b, double largest, double factor) {
  if (factor == 0) return settle(z);
  const Block<T> bias = {nullptr, z.n, 0, largest};
  const int64_t e = isfinite(z.largest) ? common_exponent(z, 1, bias, factor) : z.exponent;
  const T fz = present(z, 1, e), fb = present(bias, factor, e);
  const Sums sums = chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
    return kernels.add_bias(z.data + o, b + first, units, columns, fz, fb);
  });
  z.exponent = e;
  return settle(z, sums);
}

template <class T> Measure Layer<T>::centre(const Block<T>& x, int64_t count, Block<T>& out) {
  out.n = x.n, out.exponent = x.exponent, out.largest = x.largest;
  const int64_t panels = (x.n + 15) / 16, chunk = chunk_units / 16;
  team_.each((panels + chunk - 1) / chunk, [&](int64_t c) {
    const int64_t groups = columns / count;
    for (int64_t g = c * chunk * groups; g < std::min(panels, (c + 1) * chunk) * groups; g++)
      for (int64_t lane = 0; lane < 16; lane++) {
        const T* from = x.data + g * count * 16 + lane;
        T mean = 0;
        for (int64_t b = 0; b < count; b++) mean += from[b * 16];
        mean /= (T)count;
        for (int64_t b = 0; b < count; b++) out.data[(g * count + b) * 16 + lane] = from[b * 16] - mean;
      }
  });
  return settle(out);
}

template <class T> double Layer<T>::log2_bias_norm(const Block<T>& delta) {
  const Block<T> d = presentable(delta);
  const Sums sums = chunks(d.n, [&](int64_t, int64_t units, int64_t o) {
    return Sums{kernels.bias_square(d.data + o, units, columns), 0, 0};
  });
  return .5 * log2(sums.sum) + (double)d.exponent;
}

template class Layer<float>;
template class Layer<double>;

}  // namespace pykernel
