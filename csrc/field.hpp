// Where the taps of a window lie in its field: the walk that patches and pools share.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include <algorithm>

#include "pykernel/program.hpp"

namespace pykernel {

constexpr int64_t outside = -1;

// The row or column that tap `tap` of window `at` sees along an axis, or `outside`.
inline int64_t seen_along(const Window& w, int axis, int64_t tap, int64_t at) {
  const int64_t n = w.field[axis], i = tap * w.dilation[axis] + w.stride[axis] * at - w.padding[axis];
  if (w.circular) return (i % n + n) % n;
  return i >= 0 && i < n ? i : outside;
}

// For a tap of every window of every input f(window's column, position's column or `outside`, how many): runs of
// windows that see nothing, or whose positions are w.stride[1] apart.
template <class F> void each_run(const Window& w, int64_t tap, int64_t inputs, F f) {
  const int64_t row_tap = tap / w.taps[1], column_tap = tap % w.taps[1], rows = w.out(0), columns = w.out(1);
  const int64_t width = w.field[1], stride = w.stride[1], first = column_tap * w.dilation[1] - w.padding[1];
  for (int64_t input = 0; input < inputs; input++)
    for (int64_t y = 0; y < rows; y++) {
      const int64_t row = seen_along(w, 0, row_tap, y);
      const int64_t to = (input * rows + y) * columns, from = (input * w.field[0] + row) * width;
      if (row == outside) {
        f(to, outside, columns);
        continue;
      }
      for (int64_t x = 0, length; x < columns; x += length) {
        const int64_t column = seen_along(w, 1, column_tap, x), before = -(first + stride * x);
        const int64_t until = column != outside ? width - column : before > 0 ? before : stride * columns;
        length = std::min((until + stride - 1) / stride, columns - x);
        f(to + x, column == outside ? outside : from + column, length);
      }
    }
}

}  // namespace pykernel
