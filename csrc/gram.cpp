// Gram matrices of blocks, chunk by chunk, for batches of any evenness.
// SPDX-License-Identifier: BSD-3-Clause
#include "gram.hpp"

#include <algorithm>

#include "isa.hpp"

namespace pykernel {
namespace {

int64_t parts_of(int64_t width, int64_t entries) {
  return chunks_of(width) > 1 && entries > 1 ? chunks_of(width) * entries : 0;
}

// As that of the first query's gradient is, which sees one key only.
template <class T> bool is_zero(const Block<T>& x, int64_t columns, int64_t column) {
  for (int64_t p = 0; p < panels_of(x.n); p++) {
    const T* lanes = x.data + (p * columns + column) * 16;
    if (std::any_of(lanes, lanes + 16, [](T v) { return v != 0; })) return false;
  }
  return true;
}

}  // namespace

template <class T>
Grams<T>::Grams(int64_t entries, int64_t largest_width, Linear<T>& linear, Layer<T>& layer, Team& team)
    : linear_(linear), layer_(layer), team_(team), parts_((size_t)parts_of(largest_width, entries)) {}

template <class T> int64_t Grams<T>::bytes(int64_t entries, int64_t largest_width) {
  return taken<double>(parts_of(largest_width, entries));
}

template <class T> void Grams<T>::make(const Block<T>& block, const Measure& measure, double* out, int64_t* exponent) {
  const int64_t columns = layer_.columns;
  if (columns == 1) {
    *out = measure.square;
    *exponent = measure.exponent;
    return;
  }
  const Block<T> x = layer_.presentable(block);
  *exponent = x.exponent;
  if (linear_.gram(x, columns, out, team_)) return;
  const int64_t chunks = chunks_of(x.n), entries = columns * columns;
  const auto part = [&](int64_t c, double* gram) {
    product_table<T>().gram(x.data + c * chunk_units * columns, std::min(chunk_units, x.n - c * chunk_units), columns,
                            gram, thread_scratch(backward_scratch<T>(0, columns)));
  };
  if (chunks == 1) {
    part(0, out);
  } else {
    team_.each(chunks, [&](int64_t c) { part(c, parts_.data() + c * entries); });
    for (int64_t i = 0; i < entries; i++) {
      out[i] = 0;
      for (int64_t c = 0; c < chunks; c++) out[i] += parts_[(size_t)(c * entries + i)];
    }
  }
  if constexpr (sizeof(T) == 4) {
    bool lost = false;  // a column so small that its squares are subnormal, or zero although it is not
    for (int64_t b = 0; b < columns && !lost; b++) lost = out[b * columns + b] < 0x1p-90 && !is_zero(x, columns, b);
    if (lost && x.largest > 0) make_uneven(x, out);
  }
}

// In double, a panel at a time, for columns of very different size.
template <class T> void Grams<T>::make_uneven(const Block<T>& x, double* out) const {
  const int64_t B = layer_.columns;
  for (int64_t i = 0; i < B * B; i++) out[i] = 0;
  for (int64_t p = 0; p < panels_of(x.n); p++) {
    const T* panel = x.data + p * B * 16;
    for (int64_t b = 0; b < B; b++)
      for (int64_t c = 0; c <= b; c++) {
        double sum = 0;
        for (int64_t lane = 0; lane < 16; lane++) sum += (double)panel[b * 16 + lane] * (double)panel[c * 16 + lane];
        out[b * B + c] += sum;
      }
  }
  for (int64_t b = 0; b < B; b++)
    for (int64_t c = 0; c < b; c++) out[c * B + b] = out[b * B + c];
}

template class Grams<float>;
template class Grams<double>;

}  // namespace pykernel
