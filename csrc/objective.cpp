// Derivatives are kept as sign and log2, so that a saturated output still has a gradient; as in
// pykernel/engines/heads.py. SPDX-License-Identifier: BSD-3-Clause
#include "objective.hpp"

#include <string.h>

#include <cmath>

#include "constants.hpp"
#include "draws.hpp"
#include "exponents.hpp"

namespace pykernel {
namespace {

double log2_logistic(double z) { return fmin(z, 0) * log2_e - log1p(exp(-fabs(z))) * log2_e; }

}  // namespace

template <class T>
Objective<T>::Objective(const Program& program)
    : head_(program.head),
      columns_(columns_out_of(program)),
      read_(read_columns_of(program)),
      positions_(columns_ / read_),
      exponent_(program.exponent) {
  if (head_.loss == no_loss) return;
  for (auto* v : {&y_, &sign_, &log2_}) v->resize((size_t)(head_.outputs * read_));
}

// The mantissa of logit o of input b, as it is read.
template <class T> double Objective<T>::logit(const Block<T>& y, int64_t o, int64_t b) const {
  const auto at = [&](int64_t t) { return (double)y.data[entry_at(o, b * positions_ + t, columns_)]; };
  if (head_.over != over_mean) return at(head_.over == over_last ? positions_ - 1 : 0);
  double sum = 0;
  for (int64_t t = 0; t < positions_; t++) sum += at(t);
  return sum / (double)positions_;
}

// Its derivative into the columns that it was read of; the others are zero.
template <class T> void Objective<T>::spread(T* g, int64_t o, int64_t b, double d) const {
  const auto at = [&](int64_t t) -> T& { return g[entry_at(o, b * positions_ + t, columns_)]; };
  if (head_.over != over_mean) {
    at(head_.over == over_last ? positions_ - 1 : 0) = (T)d;
    return;
  }
  for (int64_t t = 0; t < positions_; t++) at(t) = (T)(d / (double)positions_);
}

// With the targets that are drawn, by way of a block.
template <class T> int64_t Objective<T>::bytes(const Program& program) {
  const HeadSpec& head = program.head;
  if (head.loss == no_loss) return 0;
  const int64_t columns = read_columns_of(program), one = taken<double>(head.outputs * columns);
  return 3 * one + (head.targets ? 0 : one + taken<double>(block_entries(head.outputs, columns)));
}

template <class T> double Objective<T>::differentiate(const Block<T>& y, const Tall& address, Team& team, Block<T>& g) {
  const int64_t B = read_;
  Vector<double> drawn;
  if (!head_.targets) drawn = draw_targets(address, head_.loss, head_.outputs, B, team);
  const double* t = head_.targets ? head_.targets : drawn.data();
  g.exponent = 0;
  memset(static_cast<void*>(g.data), 0, sizeof(T) * (size_t)((head_.outputs + 15) / 16 * 16 * columns_));
  if (!exponent_) return plain(y, t, g.data);
  const int e = (int)(y.exponent > 3000 ? 3000 : y.exponent < -3000 ? -3000 : y.exponent);
  for (int64_t o = 0; o < head_.outputs; o++)
    for (int64_t b = 0; b < B; b++) {
      const double m = logit(y, o, b);  // inf or nan only where a format overflowed
      y_[(size_t)(o * B + b)] = std::isfinite(m) ? fmin(fmax(ldexp(m, e), -1e300), 1e300) : m;
    }
  const double loss = head_.loss == mse       ? mean_square_error(y, t)
                      : head_.loss == sigmoid ? binary(y, t)
                      : head_.loss == softmax ? cross_entropy(y, t)
                                              : read_out(y, t);
  write(g);
  return loss / (double)B;
}

// J is linear in the logits: its derivative is t itself
template <class T> double Objective<T>::read_out(const Block<T>& y, const double* t) {
  double loss = 0;
  for (size_t i = 0; i < y_.size(); i++) {
    sign_[i] = t[i] < 0 ? -1 : 1, log2_[i] = log2(fabs(t[i]));
    loss += t[i] * logit(y, (int64_t)i / read_, (int64_t)i % read_);
  }
  return scaled<double>(loss, y.exponent);
}

// (y - t), where y is far beyond double by its exponent alone
template <class T> double Objective<T>::mean_square_error(const Block<T>& y, const double* t) {
  const int64_t B = read_;
  double loss = 0;
  for (int64_t o = 0; o < head_.outputs; o++)
    for (int64_t b = 0; b < B; b++) {
      const size_t i = (size_t)(o * B + b);
      const double mantissa = logit(y, o, b);
      const bool far = y.exponent > 900 && mantissa != 0;
      const double d = far ? mantissa : y_[i] - t[i];
      sign_[i] = d < 0 ? -1 : 1, log2_[i] = log2(fabs(d)) + (far ? (double)y.exponent : 0);
      loss += far ? INFINITY : .5 * d * d;
    }
  return loss;
}

template <class T> double Objective<T>::binary(const Block<T>&, const double* t) {
  double loss = 0;
  for (size_t i = 0; i < y_.size(); i++) {
    const double z = y_[i];
    if (t[i] > 0) loss -= t[i] * log2_logistic(z) / log2_e;
    if (t[i] < 1) loss -= (1 - t[i]) * log2_logistic(-z) / log2_e;
    if (t[i] == 0 || t[i] == 1) {
      sign_[i] = t[i] == 1 ? -1 : 1, log2_[i] = log2_logistic(t[i] == 1 ? -z : z);
    } else {
      const double d = exp2(log2_logistic(z)) - t[i];
      sign_[i] = d < 0 ? -1 : 1, log2_[i] = log2(fabs(d));
    }
  }
  return loss;
}

template <class T> double Objective<T>::cross_entropy(const Block<T>&, const double* t) {
  const size_t B = (size_t)read_, n = (size_t)head_.outputs;
  double loss = 0;
  for (size_t b = 0; b < B; b++) {
    double top = -INFINITY, total = 0;
    bool one_hot = true;
    for (size_t o = 0; o < n; o++) {
      top = fmax(top, y_[o * B + b]);
      one_hot &= t[o * B + b] == 0 || t[o * B + b] == 1;
    }
    for (size_t o = 0; o < n; o++) total += exp2((y_[o * B + b] - top) * log2_e);
    double others = -INFINITY, rest = 0;
    for (size_t o = 0; o < n; o++) {
      const double log2_p = (y_[o * B + b] - top) * log2_e - log2(total);
      log2_[o * B + b] = log2_p, sign_[o * B + b] = 1;
      if (t[o * B + b] > 0) loss -= t[o * B + b] * log2_p / log2_e;
      if (t[o * B + b] != 1) others = fmax(others, log2_p);
    }
    if (one_hot) {  // where t = 1: minus the others' p
      for (size_t o = 0; o < n; o++)
        if (t[o * B + b] != 1) rest += exp2(log2_[o * B + b] - others);
      for (size_t o = 0; o < n; o++)
        if (t[o * B + b] == 1) sign_[o * B + b] = -1, log2_[o * B + b] = others + log2(rest);
    } else {
      for (size_t o = 0; o < n; o++) {
        const double d = exp2(log2_[o * B + b]) - t[o * B + b];
        sign_[o * B + b] = d < 0 ? -1 : 1, log2_[o * B + b] = log2(fabs(d));
      }
    }
  }
  return loss;
}

template <class T> void Objective<T>::write(Block<T>& g) {
  const int64_t B = read_;
  double top = -INFINITY;
  for (const double x : log2_) top = x > top && x < INFINITY ? x : top;
  const double e = top > -0x1p52 ? floor(top) : 0;
  for (int64_t o = 0; o < head_.outputs; o++)
    for (int64_t b = 0; b < B; b++) {
      const size_t i = (size_t)(o * B + b);
      spread(g.data, o, b, sign_[i] * exp2(log2_[i] - e) / (double)B);
    }
  g.exponent = (int64_t)e;
}

template <class T> double Objective<T>::plain(const Block<T>& y, const double* targets, T* g) {
  using std::exp, std::log;
  const int64_t B = read_, n = head_.outputs;
  T loss = 0;
  for (int64_t b = 0; b < B; b++) {
    T total = 0;
    if (head_.loss == softmax)
      for (int64_t o = 0; o < n; o++) total += exp((T)logit(y, o, b));
    for (int64_t o = 0; o < n; o++) {
      const T x = (T)logit(y, o, b), t = (T)targets[o * B + b];
      T d;
      if (head_.loss == linear_loss) {
        d = t, loss += t * x;
      } else if (head_.loss == mse) {
        d = x - t, loss += T(.5) * d * d;
      } else if (head_.loss == sigmoid) {
        const T p = 1 / (1 + exp(-x)), slope = p * (1 - p);
        d = (p - t) / slope * slope, loss -= t * log(p) + (1 - t) * log(1 - p);
      } else {
        const T p = exp(x) / total;
        d = p - t, loss -= t * log(p);
      }
      spread(g, o, b, (double)(d / (T)B));
    }
  }
  return (double)loss / (double)B;
}

template class Objective<float>;
template class Objective<double>;

}  // namespace pykernel
