// Rank-revealing factors of small matrices of inner products, in double precision
// (pykernel/engines/reference_matrix_free.py is the definition). SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "memory.hpp"

namespace pykernel {

// C with C^T C = gram. Row k of C (B, B) belongs to the direction that column k adds to those taken before it, zero
// where it adds none; `order` lists the directions as they were taken. Threshold pivoting; a remainder below 2^-20 of a
// column's length is lost.
struct SmallFactor {
  Vector<double> rows;     // (B, B)
  Vector<int32_t> order;   // as taken
  Vector<int32_t> sorted;  // ascending
  double smallest;         // the smallest remainder that was taken, as a fraction of its column's length

  // `lengths2` (stride apart): squared lengths that remainders are compared with; `limit`: the largest possible rank.
  void make(const double* gram, const double* lengths2, int64_t stride, int64_t B, int64_t limit);
  // Cholesky of the leading (count, count) part of the Gram matrix of iid normal columns, rows `stride` apart, without
  // pivoting.
  void make_dense(const double* gram, int64_t stride, int64_t count);
  // x (rank, columns), row j for direction order[j]: solves R x = y (`transposed`: R^T x = y) in place, R =
  // rows[order][order]
  void solve(double* x, int64_t columns, bool transposed) const;

  // What one takes of a workspace.
  static int64_t bytes(int64_t B) { return taken<double>(B * B) + 4 * taken<int32_t>(B) * 2 + 2 * taken<double>(B); }

 private:
  int64_t B_ = 0;
  Vector<double> unit_, rest_;
};

}  // namespace pykernel
