// What a product needs to know of a weight matrix: where its draws come from or where they lie. Plain data, shared by
// all instruction sets. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "pykernel/formats.hpp"
#include "pykernel/stream.hpp"

namespace pykernel {

// What the parameter of a distribution is, and from where to where it goes; `above`: the least itself is none. Null: it
// has none.
struct ParameterRange {
  const char* what = nullptr;
  double least = 0, most = 0;
  bool above = false;
};

// The matrix W of shape (rows, columns) = scale * draws. Panels hold entry (row 16 p + lane, column k) at [(p * columns
// + k) * 16 + lane].
template <class T> struct Weights {
  int64_t rows, columns;
  T scale;                    // multiplies the product's output
  Distribution distribution;  // of the draws; not read where panels are given
  double parameter;           // density of sparse, degrees of freedom of student, alpha of stable
  uint64_t seed;
  uint32_t layer, replica;
  const float* kept;       // draws of an earlier forward product (`kept_size` of them), or null
  const T* given;          // the caller's own matrix in panels, or null
  Format format = {};      // what scale * draws is rounded to, where it is
  bool by_blocks = false;  // how kept draws lie, see below
};

// A tall array or (one column) a vector of unit draws; a bit is the top one of a word; kept: 1 where the word is at
// least `bound`, else 0; word: its 32 bits as those of a float.
enum class TallDraw : int { normal, uniform, bit, kept, word };
struct Tall {
  uint64_t seed;
  uint32_t purpose, layer, replica;
  TallDraw draw;
  uint32_t bound = 0;
};

// Kept draws lie in panels, as `given`, or by blocks of 16 columns: entry (row 16 p + lane, column k) of P panels at
// [((k / 16 * P + p) * 16 + k % 16) * 16 + lane].
inline constexpr int64_t kept_size(int64_t rows, int64_t columns) {
  return (rows + 15) / 16 * 16 * ((columns + 15) / 16 * 16);
}

inline constexpr int64_t panels_of(int64_t n) { return (n + 15) / 16; }
// Where panel p of them begins, from column k (a multiple of 16).
template <class T> constexpr int64_t kept_at(const Weights<T>& w, int64_t p, int64_t k) {
  return w.by_blocks ? (k * panels_of(w.rows) + p * 16) * 16 : (p * w.columns + k) * 16;
}

// Units of a tall array whose numbers come from the same 16 Philox blocks.
inline constexpr int group_panels = 4, group_units = 64;
inline constexpr int64_t panel_units = 16;

}  // namespace pykernel
