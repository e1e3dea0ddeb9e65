// Sums of delta u^T by products of many columns at a time, or their norms by Gram matrices, whichever is cheaper.
// SPDX-License-Identifier: BSD-3-Clause
#include "totals.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <cmath>

#include "clip.hpp"
#include "constants.hpp"
#include "exponents.hpp"
#include "isa.hpp"
#include "kernels/mix.hpp"
#include "kernels/product.hpp"
#include "tape.hpp"

namespace pykernel {
namespace {

constexpr int64_t enough_columns = 64;  // of a product: the sum is then read and written seldom
constexpr int64_t share_panels = 4;     // of the sum, of which one thread's part of a product stays in cache

}  // namespace

template <class T> Vector<typename Totals<T>::Shape> Totals<T>::shapes_of(const Program& p) {
  Vector<Shape> shapes((size_t)p.weight_count);
  const Vector<int64_t> columns = columns_of_layers(p);
  for (int64_t i = 0; i < p.counts[Table::layer]; i++) {
    Shape& shape = shapes[(size_t)p.weight[i]];
    const int64_t B = columns.empty() ? columns_of(p) : columns[(size_t)i];
    shape.rows = p.units[i], shape.columns = p.columns[i];
    shape.most = std::max(shape.most, B);
    shape.room += B;
  }
  for (Shape& shape : shapes) {
    const double by_grams = (double)shape.room * (double)(shape.rows + shape.columns);
    shape.multiplies = p.clip_value > 0 || by_grams > (double)shape.rows * (double)shape.columns;
    if (shape.multiplies)
      shape.room = std::min(shape.room, (enough_columns + shape.most - 1) / shape.most * shape.most);
  }
  return shapes;
}

template <class T>
Totals<T>::Totals(const Program& program, Layer<T>& layer, Team& team) : program_(program), layer_(layer), team_(team) {
  int64_t most = 0, largest = 0;
  sums_.reserve((size_t)program.weight_count);
  for (const Shape& shape : shapes_of(program)) {
    Sum& sum = sums_.emplace_back();
    sum.shape = shape;
    sum.deltas = Buffer<T>((size_t)block_entries(shape.rows, shape.room));
    sum.inputs = Buffer<T>((size_t)block_entries(shape.columns, shape.room));
    if (shape.multiplies) {
      sum.turned = Buffer<T>((size_t)block_entries(shape.room, shape.columns));
      sum.total = Buffer<T>((size_t)block_entries(shape.rows, shape.columns), &team);
    } else {
      most = std::max(most, shape.room);
    }
    sum.bias = Buffer<T>((size_t)padded(shape.rows));
    sum.exponents.reserve((size_t)shape.room);
    largest = std::max({largest, shape.rows, shape.columns});
  }
  squares_.resize((size_t)chunks_of(largest));
  parts_.resize((size_t)(most * most));
  for (Vector<double>& gram : grams_) gram.resize((size_t)(most * most));
}

template <class T> int64_t Totals<T>::bytes(const Program& program) {
  if (!program.weight_count) return 0;
  int64_t most = 0, largest = 0,
          bytes = taken<Sum>(program.weight_count) + taken<Shape>(program.weight_count) +
                  (program.counts[Table::window] ? taken<int64_t>(program.counts[Table::layer]) : 0);
  for (const Shape& s : shapes_of(program)) {
    bytes += Buffer<T>::bytes(block_entries(s.rows, s.room)) + Buffer<T>::bytes(block_entries(s.columns, s.room)) +
             Buffer<T>::bytes(padded(s.rows)) + taken<int64_t>(s.room);
    if (s.multiplies)
      bytes += Buffer<T>::bytes(block_entries(s.room, s.columns)) + Buffer<T>::bytes(block_entries(s.rows, s.columns));
    else
      most = std::max(most, s.room);
    largest = std::max({largest, s.rows, s.columns});
  }
  return bytes + taken<double>(chunks_of(largest)) + 3 * taken<double>(most * most);
}

template <class T> int64_t Totals<T>::scratch_bytes(const Program& program) {
  int64_t bytes = 0;
  if (!program.weight_count) return bytes;
  for (const Shape& s : shapes_of(program))
    bytes = std::max(bytes, s.multiplies ? share_panels * 16 * s.columns * (int64_t)sizeof(T)
                                         : (int64_t)backward_scratch<T>(0, s.room));
  return bytes;
}

template <class T> void Totals<T>::begin() {
  for (Sum& sum : sums_) {
    sum.exponents.clear();
    sum.any = sum.any_bias = false;
  }
}

// Numbers all; the largest of a block does not say so.
template <class T> bool Totals<T>::is_finite(const Block<T>& x) const {
  return std::all_of(x.data, x.data + block_entries(x.n, layer_.columns), [](T y) { return std::isfinite(y); });
}

template <class T> void Totals<T>::add(int64_t number, const Block<T>& delta, const Block<T>& u) {
  Sum& sum = sums_[(size_t)program_.weight[number]];
  const bool no_delta = delta.largest == 0, no_input = u.largest == 0;  // zeros, or nan alone
  if (no_delta && is_finite(delta) && is_finite(u)) return;             // its exponent says nothing
  const Block<T> d = layer_.presentable(delta);
  add_bias(d, sum);
  if (no_input && is_finite(u) && is_finite(delta)) return;
  if (sum.waiting() + layer_.columns > sum.shape.room) multiply(sum);
  wait(d, sum.deltas, sum);
  int64_t exponent = d.exponent;
  const Block<T> x = layer_.presentable(u);
  wait(x, sum.inputs, sum);
  sum.exponents.insert(sum.exponents.end(), (size_t)layer_.columns, exponent + x.exponent);
}

template <class T> void Totals<T>::add_bias(const Block<T>& delta, Sum& sum) {
  const int64_t B = layer_.columns, e = sum.any_bias ? std::max(sum.bias_exponent, delta.exponent) : delta.exponent;
  const T before = sum.any_bias ? power<T>(sum.bias_exponent - e) : T(0), now = power<T>(delta.exponent - e);
  T* bias = sum.bias.get();
  const int64_t count = panels_of(delta.n) * 16;
  if (!sum.any_bias) std::fill_n(bias, count, T(0));
  const auto add = [&](const T* x, T* to, int64_t units) {
    for (int64_t i = 0; i < units; i++) to[i] = before * to[i] + now * x[i];
  };
  if (B == 1) {
    add(delta.data, bias, count);
  } else {
    for (int64_t p = 0; p < panels_of(delta.n); p++) {
      T x[16] = {};
      for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i < 16; i++) x[i] += delta.data[(p * B + b) * 16 + i];
      add(x, bias + p * 16, 16);
    }
  }
  sum.bias_exponent = e;
  sum.any_bias = true;
}

// The columns of one more use behind those that wait.
template <class T> void Totals<T>::wait(const Block<T>& x, Buffer<T>& to, const Sum& sum) const {
  const int64_t B = layer_.columns, first = sum.waiting();
  for (int64_t p = 0; p < panels_of(x.n); p++)
    memcpy(to.get() + (p * sum.shape.room + first) * 16, x.data + p * B * 16, sizeof(T) * (size_t)(B * 16));
}

// What waits goes into the sum, at the largest exponent.
template <class T> void Totals<T>::multiply(Sum& sum) {
  const auto [rows, columns, room, most, multiplies] = sum.shape;
  const int64_t waiting = sum.waiting();
  const int64_t top = *std::max_element(sum.exponents.begin(), sum.exponents.end());
  T* const deltas = sum.deltas.get();  // panels of `room` columns become panels of those that wait
  for (int64_t p = 0; p < panels_of(rows); p++) {
    T* const panel = deltas + p * waiting * 16;
    if (waiting < room) memmove(panel, deltas + p * room * 16, sizeof(T) * (size_t)(waiting * 16));
    for (int64_t column = 0; column < waiting; column++)
      if (const int64_t e = sum.exponents[(size_t)column]; e != top)
        for (int64_t i = column * 16; i < (column + 1) * 16; i++) panel[i] *= power<T>(e - top);
  }
  mixing_table<T>().turn(sum.inputs.get(), columns, room, sum.turned.get());

  const int64_t e = sum.any ? std::max(sum.exponent, top) : top;
  const T before = sum.any ? power<T>(sum.exponent - e) : T(0), now = power<T>(top - e);
  team_.each((panels_of(rows) + share_panels - 1) / share_panels, [&](int64_t c) {
    const int64_t first = c * share_panels * 16, units = std::min(share_panels * 16, rows - first);
    T* const product = static_cast<T*>(thread_scratch((size_t)(share_panels * 16 * columns) * sizeof(T)));
    Weights<T> w = {units, waiting, T(1), Distribution::normal, 0, 0, 0, 0, nullptr, deltas + first * waiting};
    product_table<T>().forward(w, 0, panels_of(units), columns, sum.turned.get(), product, nullptr);
    T* const to = sum.total.get() + first * columns;
    if (sum.any)
      layer_.kernels.combine(to, product, to, units, columns, before, now);
    else
      layer_.kernels.combine(product, nullptr, to, units, columns, now, T(0));
  });
  sum.exponent = e;
  sum.any = true;
  sum.exponents.clear();
}

template <class T> double Totals<T>::log2_product(Sum& sum) {
  if (!sum.exponents.empty()) multiply(sum);
  if (!sum.any) return -INFINITY;
  const auto [rows, columns, room, most, multiplies] = sum.shape;
  const int64_t chunks = chunks_of(rows);
  const Clip clip(program_.clip_value, sum.exponent);
  team_.each(chunks, [&](int64_t c) {
    const int64_t units = std::min(chunk_units, rows - c * chunk_units);
    const T* x = sum.total.get() + c * chunk_units * columns;
    double& square = squares_[(size_t)c];
    if (program_.clip_value == 0) {
      square = layer_.kernels.observe(x, units, columns, T(1)).square;
    } else {
      square = 0;
      for (int64_t i = 0; i < block_entries(units, columns); i++) square += clip.square((double)x[i]);
    }
  });
  double square = 0;
  for (int64_t c = 0; c < chunks; c++) square += squares_[(size_t)c];
  return program_.clip_value > 0 ? clip.log2_norm(square) : .5 * log2(square) + (double)sum.exponent;
}

// X^T X of all columns that wait, in double over chunks.
template <class T> void Totals<T>::gram(const Buffer<T>& columns, int64_t units, const Sum& sum, Vector<double>& out) {
  const int64_t room = sum.shape.room, count = room * room;
  std::fill(out.begin(), out.begin() + count, 0.0);
  for (int64_t c = 0; c < chunks_of(units); c++) {
    product_table<T>().gram(columns.get() + c * chunk_units * room, std::min(chunk_units, units - c * chunk_units),
                            room, parts_.data(), thread_scratch(backward_scratch<T>(0, room)));
    for (int64_t i = 0; i < count; i++) out[(size_t)i] += parts_[(size_t)i];
  }
}

template <class T> double Totals<T>::log2_by_grams(const Sum& sum) {
  if (sum.exponents.empty()) return -INFINITY;
  const int64_t room = sum.shape.room, waiting = sum.waiting();
  const int64_t top = *std::max_element(sum.exponents.begin(), sum.exponents.end());
  gram(sum.deltas, sum.shape.rows, sum, grams_[0]);
  gram(sum.inputs, sum.shape.columns, sum, grams_[1]);
  const auto factor = [&](int64_t column) { return power<double>(sum.exponents[(size_t)column] - top); };
  double square = 0;
  for (int64_t i = 0; i < waiting; i++) {
    double row = 0;
    for (int64_t j = 0; j < waiting; j++)
      row += grams_[0][(size_t)(i * room + j)] * grams_[1][(size_t)(i * room + j)] * factor(j);
    square += row * factor(i);
  }
  return .5 * log2(square < 0 ? 0 : square) + (double)top;  // below zero: rounding, where the gradient cancels
}

template <class T> void Totals<T>::finish(const Rows& rows) {
  for (int64_t w = 0; w < program_.weight_count; w++) {
    Sum& sum = sums_[(size_t)w];
    rows.log10_grad_weight_total[w] = log10_2 * (sum.shape.multiplies ? log2_product(sum) : log2_by_grams(sum));
    const Clip clip(program_.clip_value, sum.bias_exponent);
    double square = 0;
    for (int64_t i = 0; i < sum.shape.rows; i++) {
      const double x = (double)sum.bias.get()[i];
      square += program_.clip_value > 0 ? clip.square(x) : x * x;
    }
    const double norm =
        program_.clip_value > 0 ? clip.log2_norm(square) : .5 * log2(square) + (double)sum.bias_exponent;
    rows.log10_grad_bias_total[w] = sum.any_bias ? log10_2 * norm : -INFINITY;
  }
}

template class Totals<float>;
template class Totals<double>;

}  // namespace pykernel
