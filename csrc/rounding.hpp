// What a run in low precision does with whole blocks: rounds what is stored, and compares it with the run beside it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "layer.hpp"
#include "pykernel/formats.hpp"
#include "pykernel/rows.hpp"

namespace pykernel {

// Where the rows of a node's signal or gradient go.
struct ComparedRows {
  double *flushed, *overflowed, *error, *cosine, *smallest, *largest;  // cosine may be null
};

template <class T> class Rounding {
 public:
  Rounding(int64_t largest_width, Layer<T>& layer, Team& team);
  static int64_t bytes(int64_t largest_width) { return taken<Comparison>(chunks_of(largest_width)); }

  // x as the format holds it; measure: the block's.
  Measure round(Block<T>& x, const Format& format, const Measure& measure);
  // Rows of a block of true values before it is rounded, over `scale`, and of what it is without formats.
  void compare(const Block<T>& x, double scale, const Block<T>& plain, const Format& format, const ComparedRows& rows);

 private:
  Layer<T>& layer_;
  Team& team_;
  Vector<Comparison> parts_;
};

}  // namespace pykernel
