// Householder's QR, columns one after the other; within a column the reflections of the others are shared by the team.
// SPDX-License-Identifier: BSD-3-Clause
#include "haar.hpp"

#include <math.h>

#include <algorithm>

#include "buffer.hpp"
#include "pykernel/block.hpp"

namespace pykernel {
namespace {

// x -= 2 v (v . x) with the sums in four partials, so that they do not wait for each other
void reflect(const double* v, double* x, int64_t n) {
  double sum[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int j = 0; j < 4; j++) sum[j] += v[i + j] * x[i + j];
  for (; i < n; i++) sum[0] += v[i] * x[i];
  const double twice = 2 * ((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (i = 0; i < n; i++) x[i] -= twice * v[i];
}

}  // namespace

int64_t frame_bytes(int64_t rows, int64_t columns) {
  return Buffer<float>::bytes(padded(rows) * columns) + 2 * Buffer<double>::bytes(rows * columns) +
         taken<double>(std::min(rows, columns));
}

template <class T> void draw_frame(const Weights<T>& w, T* panels, const Products<T>& table, Team& team) {
  const int64_t rows = w.rows, columns = w.columns, m = std::max(rows, columns), n = std::min(rows, columns);
  const bool wide = rows < columns;  // then the frame is the transpose's
  Buffer<float> draws((size_t)(padded(rows) * columns));
  Weights<T> normals = w;
  normals.given = nullptr, normals.kept = nullptr, normals.distribution = Distribution::normal;
  team.each(panels_of(rows),
            [&](int64_t p) { table.draw(normals, p, p + 1, 0, columns, draws.get() + p * columns * 16); });
  // a: columns to be reduced, each of m numbers; v: the reflections, unit vectors, in a's place below the diagonal
  Buffer<double> a((size_t)(m * n)), q((size_t)(m * n));
  Vector<double> sign((size_t)n);
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < m; i++) {
      const int64_t row = wide ? j : i, column = wide ? i : j;
      a.get()[j * m + i] = (double)draws.get()[entry_at(row, column, columns)];
    }
  for (int64_t j = 0; j < n; j++) {
    if (team.stopped()) throw Stopped{};
    double* x = a.get() + j * m + j;
    const int64_t length = m - j;
    double square = 0;
    for (int64_t i = 0; i < length; i++) square += x[i] * x[i];
    const double norm = ::sqrt(square), old = x[0];
    sign[(size_t)j] = old > 0 ? -1 : 1;  // of the diagonal: the reflection makes it -sign(old) norm
    x[0] += old > 0 ? norm : -norm;
    const double scale = 1 / ::sqrt(square - old * old + x[0] * x[0]);
    for (int64_t i = 0; i < length; i++) x[i] = square > 0 ? x[i] * scale : 0;
    const int64_t part = std::max<int64_t>(1, (1 << 14) / length), others = n - j - 1;
    team.each((others + part - 1) / part, [&](int64_t c) {
      for (int64_t k = c * part; k < std::min(others, (c + 1) * part); k++)
        reflect(x, a.get() + (j + 1 + k) * m + j, length);
    });
  }
  const int64_t part = std::max<int64_t>(1, n / 16);
  team.each((n + part - 1) / part, [&](int64_t c) {
    for (int64_t k = c * part; k < std::min(n, (c + 1) * part); k++) {
      double* column = q.get() + k * m;
      column[k] = sign[(size_t)k];
      for (int64_t j = k; j >= 0; j--) reflect(a.get() + j * m + j, column + j, m - j);
    }
  });
  for (int64_t i = 0; i < padded(rows); i++)
    for (int64_t k = 0; k < columns; k++)
      panels[entry_at(i, k, columns)] = i < rows ? (T)q.get()[wide ? i * m + k : k * m + i] : T(0);
}
template void draw_frame(const Weights<float>&, float*, const Products<float>&, Team&);
template void draw_frame(const Weights<double>&, double*, const Products<double>&, Team&);

}  // namespace pykernel
