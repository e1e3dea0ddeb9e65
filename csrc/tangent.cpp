// Products of Gram matrices summed at the largest exponent so far.
// SPDX-License-Identifier: BSD-3-Clause
#include "tangent.hpp"

#include <math.h>

#include <algorithm>

namespace pykernel {
namespace {

double times_power_of_four(double x, int64_t e) { return ldexp(x, 2 * (int)std::clamp<int64_t>(e, -1500, 1500)); }

}  // namespace

void Tangent::begin() { any_ = false; }

void Tangent::add(const double* delta_gram, const double* gram, int64_t exponent) {
  const int64_t columns = batch_ * positions_;
  for (int64_t b = 0; b < batch_; b++)
    for (int64_t c = 0; c < batch_; c++) {
      double sum = 0;
      for (int64_t t = b * positions_; t < (b + 1) * positions_; t++)
        for (int64_t u = c * positions_; u < (c + 1) * positions_; u++) {
          const int64_t at = t * columns + u;
          sum += gram ? delta_gram[at] * gram[at] : delta_gram[at];
        }
      part_[(size_t)(b * batch_ + c)] = sum;
    }
  // What is zero at a large exponent must not push out what is not.
  if (std::all_of(part_.begin(), part_.end(), [](double x) { return x == 0; })) return;
  const int64_t e = any_ ? std::max(exponent_, exponent) : exponent;
  const double before = any_ ? times_power_of_four(1, exponent_ - e) : 0, now = times_power_of_four(1, exponent - e);
  for (size_t i = 0; i < sum_.size(); i++) sum_[i] = any_ ? before * sum_[i] + now * part_[i] : part_[i];
  exponent_ = e, any_ = true;
}

void Tangent::finish(double* out) const {
  for (size_t i = 0; i < sum_.size(); i++) out[i] = any_ ? times_power_of_four(sum_[i], exponent_) : 0;
}

}  // namespace pykernel
