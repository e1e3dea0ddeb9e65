// The tangent kernel of a network: <dJ_b/dtheta, dJ_b'/dtheta> over inputs b, summed over layers from Gram matrices.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "memory.hpp"

namespace pykernel {

class Tangent {
 public:
  // positions: columns of one input, whose gradients are summed.
  Tangent(int64_t batch, int64_t positions)
      : batch_(batch), positions_(positions), sum_((size_t)(batch * batch)), part_(sum_.size()) {}

  void begin();
  // sum over columns of b and b' of delta_gram times gram (null: of one), entries of 4^exponent.
  void add(const double* delta_gram, const double* gram, int64_t exponent);
  void finish(double* out) const;  // (batch, batch)

 private:
  const int64_t batch_, positions_;
  Vector<double> sum_;  // times 4^exponent_
  Vector<double> part_;
  int64_t exponent_ = 0;
  bool any_ = false;
};

}  // namespace pykernel
