// Products of Gram matrices summed at the largest exponent so far.
// SPDX-License-Identifier: BSD-3-Clause
#include "tangent.hpp"

#include <math.h>

#include <algorithm>

namespace pykernel {
namespace {

double power_of_four(int64_t e) { return ldexp(1, 2 * (int)std::clamp<int64_t>(e, -1500, 1500)); }

}  // namespace

void Tangent::begin() { any_ = false; }

void Tangent::add(const double* delta_gram, const double* gram, int64_t exponent) {
  const int64_t e = any_ ? std::max(exponent_, exponent) : exponent, columns = batch_ * positions_;
  const double before = any_ ? power_of_four(exponent_ - e) : 0, now = power_of_four(exponent - e);
  for (int64_t b = 0; b < batch_; b++)
    for (int64_t c = 0; c < batch_; c++) {
      double sum = 0;
      for (int64_t t = b * positions_; t < (b + 1) * positions_; t++)
        for (int64_t u = c * positions_; u < (c + 1) * positions_; u++) {
          const int64_t at = t * columns + u;
          sum += gram ? delta_gram[at] * gram[at] : delta_gram[at];
        }
      double& to = sum_[(size_t)(b * batch_ + c)];
      to = any_ ? before * to + now * sum : sum;
    }
  exponent_ = e, any_ = true;
}

void Tangent::finish(double* out) const {
  for (size_t i = 0; i < sum_.size(); i++) out[i] = any_ ? sum_[i] * power_of_four(exponent_) : 0;
}

}  // namespace pykernel
