// Threshold-pivoted Cholesky of Gram matrices, in blocks of rows.
// SPDX-License-Identifier: BSD-3-Clause
#include "factor.hpp"

#include <algorithm>
#include <cmath>

#include "constants.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

constexpr int64_t block = 32;   // rows that are subtracted from the rest together
constexpr int64_t base = 8;     // rows that are solved for one by one
constexpr int64_t slab = 64;    // columns of a right-hand side that one thread solves for
constexpr int64_t large = 128;  // below it a team's threads would wait for each other longer than they work

template <class F> void share(int64_t count, bool shared, Team& team, F f) {
  if (shared) return team.each(count, f);
  for (int64_t i = 0; i < count; i++) f(i);
}

}  // namespace

SmallFactor::SmallFactor(int64_t B) {
  const size_t n = (size_t)B, square = n * (size_t)row_stride(B);
  order.reserve(n);
  for (auto* v : {&rows_, &rest_of_gram_, &square_}) v->reserve(square);
  for (auto* v : {&unit_, &rest_, &live_, &inverse_}) v->reserve((size_t)row_stride(B));
}
int64_t SmallFactor::bytes(int64_t B) {
  return taken<int32_t>(B) + 3 * taken<double>(B * row_stride(B)) + 4 * taken<double>(row_stride(B));
}

void SmallFactor::scale_columns(const double* gram, int64_t stride, const double* lengths2, int64_t lengths_stride) {
  order.clear();
  smallest = 1;
  rows_.resize((size_t)(B_ * stride_));
  rest_of_gram_.resize((size_t)(B_ * stride_));
  for (auto* v : {&unit_, &rest_, &live_}) v->assign((size_t)stride_, 0.0);
  std::fill_n(live_.begin(), B_, 1.0);
  for (int64_t b = 0; b < B_; b++) {
    const double square = lengths2[b * lengths_stride];
    unit_[(size_t)b] = square > 0 ? 1 / std::sqrt(square) : 0;
    rest_[(size_t)b] = gram[b * stride + b] * unit_[(size_t)b] * unit_[(size_t)b];
  }
  for (int64_t k = 0; k < B_; k++) {
    double* row = &rest_of_gram_[(size_t)(k * stride_)];
    for (int64_t b = 0; b < B_; b++) row[b] = gram[k * stride + b] * unit_[(size_t)k] * unit_[(size_t)b];
    std::fill(row + B_, row + stride_, 0.0);
  }
}

// The column to take now, or -1.
int64_t SmallFactor::next() const {
  double most[8] = {};
  for (int64_t b = 0; b < stride_; b += 8)
    for (int j = 0; j < 8; j++) most[j] = std::max(most[j], rest_[(size_t)(b + j)]);
  const double largest = *std::max_element(most, most + 8);
  if (!(largest > lost_direction)) return -1;
  int64_t k = 0;
  while (rest_[(size_t)k] < preferred_direction * largest) k++;
  return k;
}

// Column k as the next direction; rows before `first` are already subtracted from the rest.
void SmallFactor::take(int64_t k, int64_t first) {
  const int64_t i = rank(), own = k / block * block;  // of rows in a block only what is to the right of it is kept up
  double* row = &rows_[(size_t)(i * stride_)];
  std::copy_n(&rest_of_gram_[(size_t)(k * stride_ + own)], stride_ - own, row + own);
  for (int64_t b = 0; b < own; b++) row[b] = rest_of_gram_[(size_t)(b * stride_ + k)];
  const double* before = &rows_[(size_t)(first * stride_)];
  algebra_table().subtract(1, stride_, i - first, before + k, 0, stride_, before, stride_, row, stride_);
  const double root = std::sqrt(std::max(rest_[(size_t)k], 1e-300)), inverse = 1 / root;
  smallest = std::min(smallest, root);
  double *live = live_.data(), *rest = rest_.data();
  live[k] = 0;
  for (int64_t b = 0; b < stride_; b++) {
    row[b] *= inverse * live[b];
    rest[b] = (rest[b] - row[b] * row[b]) * live[b];
  }
  row[k] = root;
  order.push_back((int32_t)k);
}

// The rows from `first` on, from what the columns not yet taken keep.
void SmallFactor::subtract_rows(int64_t first, Team& team) {
  const double* rows = &rows_[(size_t)(first * stride_)];
  const int64_t depth = rank() - first;
  share((B_ + block - 1) / block, B_ >= large, team, [&](int64_t part) {
    const int64_t k = part * block, count = std::min(block, B_ - k);
    if (std::all_of(&live_[(size_t)k], &live_[(size_t)k] + count, [](double live) { return live == 0; })) return;
    algebra_table().subtract(count, stride_ - k, depth, rows + k, 1, stride_, rows + k, stride_,
                             &rest_of_gram_[(size_t)(k * stride_ + k)], stride_);
  });
}

// Lengths put back, and what solve() reads.
void SmallFactor::finish() {
  const int64_t r = rank();
  square_.assign((size_t)(r * stride_), 0.0);
  inverse_.resize((size_t)r);
  for (int64_t b = 0; b < B_; b++) unit_[(size_t)b] = unit_[(size_t)b] > 0 ? 1 / unit_[(size_t)b] : 0;
  for (int64_t i = 0; i < r; i++) {
    double* row = &rows_[(size_t)(i * stride_)];
    for (int64_t b = 0; b < B_; b++) row[b] *= unit_[(size_t)b];
    for (int64_t j = i; j < r; j++) square_[(size_t)(i * stride_ + j)] = row[order[(size_t)j]];
    inverse_[(size_t)i] = 1 / square_[(size_t)(i * stride_ + i)];
  }
}

void SmallFactor::make(const double* gram, int64_t stride, const double* lengths2, int64_t lengths_stride, int64_t B,
                       int64_t limit, Team& team) {
  B_ = B, stride_ = row_stride(B);
  scale_columns(gram, stride, lengths2, lengths_stride);
  int64_t first = 0;
  while (rank() < std::min(B, limit)) {
    const int64_t k = next();
    if (k < 0) break;
    take(k, first);
    if (rank() - first < block || rank() == B) continue;
    subtract_rows(first, team);
    first = rank();
  }
  finish();
}

void SmallFactor::make_dense(const double* gram, int64_t stride, int64_t count, Team& team) {
  B_ = count, stride_ = row_stride(count);
  scale_columns(gram, stride, gram, stride + 1);
  for (int64_t k = 0, first = 0; k < count; k++) {
    take(k, first);
    if (rank() - first < block || rank() == B_) continue;
    subtract_rows(first, team);
    first = rank();
  }
  finish();
}

void SmallFactor::solve(double* x, int64_t columns, int64_t stride, bool transposed, Team& team) const {
  share((columns + slab - 1) / slab, rank() >= large, team, [&](int64_t part) {
    solve_rows(0, rank(), x + part * slab, std::min(slab, columns - part * slab), stride, transposed);
  });
}

void SmallFactor::solve_rows(int64_t first, int64_t last, double* x, int64_t columns, int64_t stride,
                             bool transposed) const {
  const Algebra& algebra = algebra_table();
  const double* R = square_.data();
  if (last - first > base) {
    const int64_t middle = first + (last - first + base) / (2 * base) * base, above = middle - first,
                  below = last - middle;
    solve_rows(transposed ? first : middle, transposed ? middle : last, x, columns, stride, transposed);
    const double* corner = R + first * stride_ + middle;
    if (transposed)
      algebra.subtract(below, columns, above, corner, 1, stride_, x + first * stride, stride, x + middle * stride,
                       stride);
    else
      algebra.subtract(above, columns, below, corner, stride_, 1, x + middle * stride, stride, x + first * stride,
                       stride);
    return solve_rows(transposed ? middle : first, transposed ? last : middle, x, columns, stride, transposed);
  }
  for (int64_t step = 0; step < last - first; step++) {
    const int64_t i = transposed ? first + step : last - 1 - step;
    double* xi = x + i * stride;
    if (transposed)
      algebra.subtract(1, columns, step, R + first * stride_ + i, 0, stride_, x + first * stride, stride, xi, stride);
    else
      algebra.subtract(1, columns, step, R + i * stride_ + i + 1, 0, 1, xi + stride, stride, xi, stride);
    for (int64_t c = 0; c < columns; c++) xi[c] *= inverse_[(size_t)i];
  }
}

void ascend(const SmallFactor& factor, Directions& to) {
  to.place.resize((size_t)factor.rank()), to.columns.resize((size_t)factor.rank());
  for (size_t i = 0; i < to.place.size(); i++) to.place[i] = (int32_t)i;
  std::sort(to.place.begin(), to.place.end(),
            [&](int32_t i, int32_t j) { return factor.order[(size_t)i] < factor.order[(size_t)j]; });
  for (size_t i = 0; i < to.place.size(); i++) to.columns[i] = factor.order[(size_t)to.place[i]];
}

void rows_of(const SmallFactor& factor, const Directions& directions, int64_t stride, double* out) {
  for (size_t i = 0; i < directions.place.size(); i++)
    std::copy_n(factor.row(directions.place[i]), stride, out + (int64_t)i * stride);
}

}  // namespace pykernel
