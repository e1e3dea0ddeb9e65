// Blocks are rounded at their true values: the exponent goes into the numbers first, which formats bound.
// SPDX-License-Identifier: BSD-3-Clause
#include "rounding.hpp"

#include <math.h>

#include <algorithm>

#include "constants.hpp"
#include "exponents.hpp"
#include "isa.hpp"

namespace pykernel {

double rounded(double x, const Format& format) {
  if (!format.fraction || !isfinite(x) || x == 0) return x;
  const int unit = std::max(ilogb(x), format.lowest) - format.fraction;
  const double nearest = ldexp(nearbyint(ldexp(x, -unit)), unit);
  if (fabs(nearest) <= format.largest) return nearest;
  return copysign(format.infinite ? INFINITY : format.largest, x);
}

template <class T>
Rounding<T>::Rounding(int64_t largest_width, Layer<T>& layer, Team& team)
    : layer_(layer), team_(team), parts_((size_t)chunks_of(largest_width)) {}

template <class T>
const uint32_t* Rounding<T>::words(const Block<T>& x, int64_t first, int64_t units, const Format& format,
                                   const Chance& chance) const {
  if (!format.stochastic) return nullptr;
  const int64_t B = layer_.columns, p = first / 16;
  float* room = static_cast<float*>(thread_scratch((size_t)block_entries(units, B) * sizeof(float)));
  const Tall address = {chance.seed, (uint32_t)chance.purpose, chance.number, chance.replica, TallDraw::word};
  product_table<float>().tall(address, x.n, 0, B, p, p + panels_of(units), room);
  return reinterpret_cast<const uint32_t*>(room);
}

template <class T>
Measure Rounding<T>::round(Block<T>& x, const Format& format, const Measure& measure, const Chance& chance) {
  if (!format.fraction) return measure;
  if (x.exponent) {
    x.exponent = std::clamp<int64_t>(x.exponent, -4 * reach<T>, 4 * reach<T>);  // beyond, all is inf or zero
    layer_.rescale(x, 0);
  }
  return layer_.settle(x, layer_.chunks(x.n, [&](int64_t first, int64_t units, int64_t o) {
    return layer_.kernels.round(x.data + o, units, layer_.columns, format, words(x, first, units, format, chance));
  }));
}

template <class T>
void Rounding<T>::compare(const Block<T>& x, double scale, const Block<T>& plain, const Format& format,
                          const ComparedRows& rows, const Chance& chance) {
  // Of the numbers without formats the largest is of order one here, of the others 2^-most to 2^most: error carries
  // what is beyond, and below, nothing depends on it.
  const auto order = [](double size) { return size > 0 && isfinite(size) ? (int64_t)ilogb(size) : 0; };
  const int64_t plain_order = order(plain.largest), most = 200;
  const int64_t apart = x.largest > 0 ? x.exponent - plain.exponent - plain_order : 0;  // zero has no size
  const int64_t top = apart + order(x.largest / scale), near = std::clamp(top, -most, most);
  const double factor = scaled<double>(1 / scale, apart + near - top);
  // Limits of the format at the mantissas; numbers beyond what T holds there are zero, or inf.
  Format here = format;
  const int64_t shift = std::clamp<int64_t>(x.exponent, -4 * reach<T>, 4 * reach<T>);
  const int dropped = (sizeof(T) == 4 ? 23 : 52) - format.fraction;  // bits, which T must reach beyond the lowest
  here.lowest = (int)std::clamp<int64_t>(format.lowest - shift, -reach<T>, reach<T> - dropped);
  here.largest = scaled<double>(format.largest, -shift);
  here.infinite = true;  // far away the largest may be zero here, which is no number lost
  const int64_t count = chunks_of(x.n);
  team_.each(count, [&](int64_t c) {
    const int64_t o = c * chunk_units * layer_.columns, units = std::min(chunk_units, x.n - c * chunk_units);
    parts_[(size_t)c] =
        layer_.kernels.compare(x.data + o, plain.data + o, units, layer_.columns, factor,
                               scaled<double>(1, -plain_order), here, words(x, c * chunk_units, units, format, chance));
  });
  Comparison all = parts_[0];
  for (int64_t c = 1; c < count; c++) {
    const Comparison& part = parts_[(size_t)c];
    all.error += part.error, all.square += part.square, all.plain_square += part.plain_square;
    all.product += part.product, all.flushed += part.flushed, all.overflowed += part.overflowed;
    all.smallest = std::min(all.smallest, part.smallest), all.largest = std::max(all.largest, part.largest);
  }
  const double entries = (double)x.n * (double)layer_.columns, decades = log10_2 * (double)x.exponent;
  *rows.flushed = (double)all.flushed / entries, *rows.overflowed = (double)all.overflowed / entries;
  *rows.error = log10(sqrt(all.error) / sqrt(all.plain_square)) + log10_2 * (double)std::max<int64_t>(0, top - near);
  if (rows.cosine) *rows.cosine = all.product / (sqrt(all.square) * sqrt(all.plain_square));
  *rows.smallest = isfinite(all.smallest) ? log10(all.smallest) + decades : -INFINITY;
  *rows.largest = log10(all.largest) + decades;
}

template class Rounding<float>;
template class Rounding<double>;

}  // namespace pykernel
