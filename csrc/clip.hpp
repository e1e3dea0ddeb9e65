// A bound on the entries of gradients, as it is seen by mantissas.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <math.h>
#include <stdint.h>

#include <algorithm>

namespace pykernel {

// Below 1e-150 every entry that is not zero is clamped.
struct Clip {
  Clip(double value, int64_t e) : bound(ldexp(value, (int)std::clamp<int64_t>(-e, -2000, 2000))), all(bound < 1e-150) {
    log2_unit = all ? log2(value) : (double)e;
  }
  double square(double x) const {
    const double y = all ? (x != 0) : std::min(fabs(x), bound);
    return x == x ? y * y : x;
  }
  double log2_norm(double square) const { return .5 * log2(square) + log2_unit; }
  double bound;
  bool all;
  double log2_unit;
};

}  // namespace pykernel
