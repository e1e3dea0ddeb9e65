// Products of small matrices in double precision, one table per instruction set.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

namespace pykernel {

struct Algebra {
  // c (m, n) -= a b over `depth` terms in order, each a fused multiply-add: a's entry (i, k) at a[i * a_row + k *
  // a_term], b's rows b_row apart, c's c_row; n a multiple of 8.
  void (*subtract)(int64_t m, int64_t n, int64_t depth, const double* a, int64_t a_row, int64_t a_term, const double* b,
                   int64_t b_row, double* c, int64_t c_row);
};

}  // namespace pykernel
