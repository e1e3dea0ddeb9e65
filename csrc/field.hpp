// Where the taps of a window lie in its field: the walk that patches and pools share.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "pykernel/program.hpp"

namespace pykernel {

constexpr int64_t outside = -1;

// The row or column that tap `tap` of window `at` sees along an axis, or `outside`.
inline int64_t seen_along(const Window& w, int axis, int64_t tap, int64_t at) {
  const int64_t n = w.field[axis], i = tap + w.stride[axis] * at - w.padding[axis];
  if (w.circular) return (i % n + n) % n;
  return i >= 0 && i < n ? i : outside;
}

// For a tap of every window of every input f(window's column, position's column or `outside`, how many): runs of
// windows whose positions follow each other, or that see nothing; `whole` false: one at a time.
template <class F> void each_run(const Window& w, int64_t tap, int64_t inputs, bool whole, F f) {
  const int64_t row_tap = tap / w.taps[1], column_tap = tap % w.taps[1], rows = w.out(0), columns = w.out(1);
  for (int64_t input = 0; input < inputs; input++)
    for (int64_t y = 0; y < rows; y++) {
      const int64_t row = seen_along(w, 0, row_tap, y);
      const int64_t to = (input * rows + y) * columns, from = (input * w.field[0] + row) * w.field[1];
      for (int64_t x = 0, length; x < columns; x += length) {
        const int64_t column = row == outside ? outside : seen_along(w, 1, column_tap, x);
        length = 1;
        while (whole && x + length < columns) {
          const int64_t next = row == outside ? outside : seen_along(w, 1, column_tap, x + length);
          if (next != (column == outside ? outside : column + length)) break;
          length++;
        }
        f(to + x, column == outside ? outside : from + column, length);
      }
    }
}

}  // namespace pykernel
