// Rank-revealing factors of small matrices of inner products, in double precision
// (pykernel/engines/reference_matrix_free.py is the definition). SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "memory.hpp"
#include "team.hpp"

namespace pykernel {

// Rows of small matrices lie so far apart: whole vectors, the rest of a row zero; of long rows an odd number, so that
// what stands one below the other meets every set of L1.
constexpr int64_t row_stride(int64_t columns) {
  const int64_t vectors = (columns + 7) / 8;
  return 8 * (vectors < 16 ? vectors : vectors | 1);
}

// C with C^T C = gram. Row i of C belongs to the direction that column order[i] adds to those taken before it.
// Threshold pivoting; a remainder below 2^-20 of a column's length is lost.
class SmallFactor {
 public:
  explicit SmallFactor(int64_t B);
  // What one takes of a workspace.
  static int64_t bytes(int64_t B);

  // `gram` (B, B), its rows `stride` apart; `lengths2`, `lengths_stride` apart: squared lengths that remainders are
  // compared with; `limit`: the largest possible rank.
  void make(const double* gram, int64_t stride, const double* lengths2, int64_t lengths_stride, int64_t B,
            int64_t limit, Team& team);
  // Of the leading (count, count) part of the Gram matrix of iid normal columns, without pivoting.
  void make_dense(const double* gram, int64_t stride, int64_t count, Team& team);
  // x (rank, columns), rows `stride` apart, row j for direction order[j]: solves R x = y (`transposed`: R^T x = y) in
  // place, R = C[:, order]; columns a multiple of 8.
  void solve(double* x, int64_t columns, int64_t stride, bool transposed, Team& team) const;

  int64_t rank() const { return (int64_t)order.size(); }
  const double* row(int64_t i) const { return &rows_[(size_t)(i * stride_)]; }

  Vector<int32_t> order;  // columns as they were taken
  double smallest = 1;    // the smallest remainder that was taken, as a fraction of its column's length

 private:
  void scale_columns(const double* gram, int64_t stride, const double* lengths2, int64_t lengths_stride);
  int64_t next() const;
  void take(int64_t k, int64_t first);
  void subtract_rows(int64_t first, Team& team);
  void finish();
  void solve_rows(int64_t first, int64_t last, double* x, int64_t columns, int64_t stride, bool transposed) const;

  int64_t B_ = 0, stride_ = 0;
  Vector<double> rows_, rest_of_gram_, square_;  // C; what the rows so far leave of the scaled matrix; R
  Vector<double> unit_, rest_, live_, inverse_;  // 1 / length; what is left of its square; 0 where taken, else 1; 1 /
                                                 // R's diagonal
};

// A factor's columns in ascending order, and where each was taken.
struct Directions {
  explicit Directions(int64_t most) { columns.reserve((size_t)most), place.reserve((size_t)most); }
  static int64_t bytes(int64_t most) { return 2 * taken<int32_t>(most); }
  Vector<int32_t> columns, place;
};
void ascend(const SmallFactor& factor, Directions& to);
// A factor's rows in ascending order, `stride` apart.
void rows_of(const SmallFactor& factor, const Directions& directions, int64_t stride, double* out);

}  // namespace pykernel
