// What a run in low precision does with whole blocks: rounds what is stored, and compares it with the run beside it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/product.hpp"
#include "layer.hpp"
#include "pykernel/formats.hpp"
#include "pykernel/rows.hpp"

namespace pykernel {

// Where the rows of a node's signal or gradient go.
struct ComparedRows {
  double *flushed, *overflowed, *error, *cosine, *smallest, *largest;  // cosine may be null
};

// Where the words of what is rounded by chance come from; nothing is read where it is rounded to nearest.
struct Chance {
  uint64_t seed = 0;
  Purpose purpose = Purpose::round_signal;
  uint32_t number = 0, replica = 0;  // of the op that made it
};

template <class T> class Rounding {
 public:
  Rounding(int64_t largest_width, Layer<T>& layer, Team& team);
  static int64_t bytes(int64_t largest_width) { return taken<Comparison>(chunks_of(largest_width)); }

  // x as the format holds it; measure: the block's.
  Measure round(Block<T>& x, const Format& format, const Measure& measure, const Chance& chance);
  // Rows of a block of true values before it is rounded, over `scale`, and of what it is without formats.
  void compare(const Block<T>& x, double scale, const Block<T>& plain, const Format& format, const ComparedRows& rows,
               const Chance& chance);

 private:
  // Of the units of a chunk, in their places: null where they are rounded to nearest.
  const uint32_t* words(const Block<T>& x, int64_t first, int64_t units, const Format& format,
                        const Chance& chance) const;

  Layer<T>& layer_;
  Team& team_;
  Vector<Comparison> parts_;
};

}  // namespace pykernel
