// Threshold-pivoted Cholesky of Gram matrices.
// SPDX-License-Identifier: BSD-3-Clause
#include "factor.hpp"

#include <algorithm>
#include <cmath>

#include "constants.hpp"

namespace pykernel {

void SmallFactor::make(const double* gram, const double* lengths2, int64_t stride, int64_t B, int64_t limit) {
  B_ = B;
  rows.assign((size_t)(B * B), 0.0);
  order.clear();
  unit_.resize((size_t)B), rest_.resize((size_t)B);
  smallest = 1;
  for (int64_t b = 0; b < B; b++) {
    const double square = lengths2[b * stride];
    unit_[b] = square > 0 ? 1 / std::sqrt(square) : 0;
    rest_[b] = gram[b * B + b] * unit_[b] * unit_[b];
  }
  while ((int64_t)order.size() < std::min(B, limit)) {
    const double largest = *std::max_element(rest_.begin(), rest_.end());
    if (!(largest > lost_direction)) break;
    int64_t k = 0;
    while (rest_[k] < preferred_direction * largest) k++;
    double* row = &rows[k * B];
    for (int64_t b = 0; b < B; b++) row[b] = gram[k * B + b] * unit_[k] * unit_[b];
    for (const int32_t o : order) {
      const double* other = &rows[o * B];
      const double factor = other[k];
      for (int64_t b = 0; b < B; b++) row[b] -= factor * other[b];
    }
    const double root = std::sqrt(rest_[k]);
    smallest = std::min(smallest, root);
    for (int64_t b = 0; b < B; b++) row[b] /= root;
    for (const int32_t o : order) row[o] = 0;
    row[k] = root;
    order.push_back((int32_t)k);
    for (int64_t b = 0; b < B; b++) rest_[b] -= row[b] * row[b];
    for (const int32_t o : order) rest_[o] = 0;
  }
  for (const int32_t o : order)
    for (int64_t b = 0; b < B; b++)
      if (rows[o * B + b] != 0) rows[o * B + b] /= unit_[b];
  sorted = order;
  std::sort(sorted.begin(), sorted.end());
}

void SmallFactor::make_dense(const double* gram, int64_t stride, int64_t count) {
  B_ = count;
  rows.assign((size_t)(count * count), 0.0);
  order.resize((size_t)count);
  smallest = 1;
  for (int64_t k = 0; k < count; k++) {
    order[(size_t)k] = (int32_t)k;
    double* row = &rows[(size_t)(k * count)];
    for (int64_t b = k; b < count; b++) row[b] = gram[k * stride + b];
    for (int64_t o = 0; o < k; o++)
      for (int64_t b = k; b < count; b++) row[b] -= rows[(size_t)(o * count + k)] * rows[(size_t)(o * count + b)];
    const double root = std::sqrt(std::max(row[k], 1e-300));
    smallest = std::min(smallest, root / std::sqrt(std::max(gram[k * stride + k], 1e-300)));
    for (int64_t b = k; b < count; b++) row[b] /= root;
  }
  sorted = order;
}

void SmallFactor::solve(double* x, int64_t columns, bool transposed) const {
  const int64_t r = (int64_t)order.size();
  for (int64_t step = 0; step < r; step++) {
    const int64_t i = transposed ? step : r - 1 - step;
    double* xi = x + i * columns;
    const double diagonal = rows[order[i] * B_ + order[i]];
    for (int64_t c = 0; c < columns; c++) xi[c] /= diagonal;
    for (int64_t j = transposed ? i + 1 : 0; j < (transposed ? r : i); j++) {
      const double entry = transposed ? rows[order[i] * B_ + order[j]] : rows[order[j] * B_ + order[i]];
      if (entry == 0) continue;
      for (int64_t c = 0; c < columns; c++) x[j * columns + c] -= entry * xi[c];
    }
  }
}

}  // namespace pykernel
