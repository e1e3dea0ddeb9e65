// Products of weights in groups: each group of rows sees the units of its own group, at every tap.
// SPDX-License-Identifier: BSD-3-Clause
//
// Multiplications and additions are apart and compiled once, so that bits do not depend on the instruction set.
#pragma once
#include <algorithm>

#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

struct Grouping {
  int64_t count, taps, rows, units;  // groups; rows of one; units of its input at one tap
  int64_t columns() const { return taps * units; }
  // The unit of the input that entry (row, k) of W multiplies.
  int64_t unit(int64_t row, int64_t k) const { return k / units * (count * units) + row / rows * units + k % units; }
};
inline Grouping groups_of_layer(const Program& p, int64_t number) {
  const int64_t groups = groups_of(p, number), taps = p.taps ? p.taps[number] : 1;
  return {groups, taps, p.units[number] / groups, p.columns[number] / taps};
}

// Sixteen rows of numbers, each `stride` from the next column's, seen side by side.
template <class T> struct Lanes {
  const T* of[16];
  bool together = true;  // they lie as lanes do
  // row(lane): where a lane's numbers begin, or null for one that has none
  template <class F> explicit Lanes(F row) {
    for (int lane = 0; lane < 16; lane++) {
      of[lane] = row(lane);
      if (!of[lane]) of[lane] = of[0];
      together &= of[lane] == of[0] + lane;
    }
  }
  // use(lane, number of column b) for every lane
  template <class F> void at(int64_t b, F use) const {
    if (together)
      for (int lane = 0; lane < 16; lane++) use(lane, of[0][b * 16 + lane]);
    else
      for (int lane = 0; lane < 16; lane++) use(lane, of[lane][b * 16]);
  }
};

// z = scale W u, W (count * rows, columns of one group) in panels, B columns.
template <class T>
void multiply_groups(const Grouping& g, const T* w, T scale, const T* u, int64_t B, T* z, Team& team) {
  const int64_t rows = g.count * g.rows;
  team.each((rows + 15) / 16, [&](int64_t p) {
    T* out = z + p * B * 16;
    std::fill(out, out + B * 16, T(0));
    for (int64_t k = 0; k < g.columns(); k++) {
      const T* weight = w + (p * g.columns() + k) * 16;
      const Lanes<T> x(
          [&](int lane) { return p * 16 + lane < rows ? u + entry_at(g.unit(p * 16 + lane, k), 0, B) : nullptr; });
      for (int64_t b = 0; b < B; b++) x.at(b, [&](int lane, T v) { out[b * 16 + lane] += weight[lane] * v; });
    }
    for (int64_t i = 0; i < B * 16; i++) out[i] *= scale;
  });
}

// du = scale W^T delta
template <class T>
void multiply_groups_back(const Grouping& g, const T* w, T scale, const T* delta, int64_t B, T* du, Team& team) {
  const int64_t at_a_tap = g.count * g.units, units = g.taps * at_a_tap, columns = g.columns();
  team.each((units + 15) / 16, [&](int64_t p) {
    T* out = du + p * B * 16;
    std::fill(out, out + B * 16, T(0));
    for (int64_t r = 0; r < g.rows; r++) {
      T weight[16];
      const Lanes<T> d([&](int lane) -> const T* {
        const int64_t unit = p * 16 + lane, own = unit % at_a_tap;
        weight[lane] = 0;
        if (unit >= units) return nullptr;
        const int64_t row = own / g.units * g.rows + r, k = unit / at_a_tap * g.units + own % g.units;
        weight[lane] = w[entry_at(row, k, columns)];
        return delta + entry_at(row, 0, B);
      });
      for (int64_t b = 0; b < B; b++) d.at(b, [&](int lane, T v) { out[b * 16 + lane] += weight[lane] * v; });
    }
    for (int64_t i = 0; i < B * 16; i++) out[i] *= scale;
  });
}

// The sum of f(entry) over dJ/dW = (fd delta) (fu u)^T, in double.
template <class T, class F>
double sum_of_gradient(const Grouping& g, const Block<T>& delta, const Block<T>& u, int64_t B, Team& team, F f,
                       double fd = 1, double fu = 1) {
  const int64_t rows = g.count * g.rows, panels = (rows + 15) / 16;
  Vector<double> sums((size_t)panels);
  team.each(panels, [&](int64_t p) {
    double sum = 0;
    for (int64_t k = 0; k < g.columns(); k++) {
      double entry[16] = {};
      const Lanes<T> x(
          [&](int lane) { return p * 16 + lane < rows ? u.data + entry_at(g.unit(p * 16 + lane, k), 0, B) : nullptr; });
      const T* d = delta.data + p * B * 16;
      for (int64_t b = 0; b < B; b++)
        x.at(b, [&](int lane, T v) { entry[lane] += fd * (double)d[b * 16 + lane] * (fu * (double)v); });
      for (int lane = 0; lane < 16 && p * 16 + lane < rows; lane++) sum += f(entry[lane]);
    }
    sums[(size_t)p] = sum;
  });
  double sum = 0;
  for (const double x : sums) sum += x;
  return sum;
}

}  // namespace pykernel
