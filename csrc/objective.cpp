// Derivatives are kept as sign and log2, so that a saturated output still has a gradient; as in
// pykernel/engines/heads.py. SPDX-License-Identifier: BSD-3-Clause
#include "objective.hpp"

#include <string.h>

#include <algorithm>
#include <cmath>

#include "constants.hpp"
#include "draws.hpp"
#include "exponents.hpp"

namespace pykernel {
namespace {

constexpr int64_t strip = 16;  // inputs side by side: numbers of one output lie there in one or two lines of memory

// f(first, end) of every strip of inputs.
template <class F> void in_strips(int64_t inputs, int64_t outputs, Team& team, F&& f) {
  const int64_t count = (inputs + strip - 1) / strip;
  const auto one = [&](int64_t i) { f(i * strip, std::min((i + 1) * strip, inputs)); };
  if (inputs * outputs < 0x1p15)  // sooner done than shared
    for (int64_t i = 0; i < count; i++) one(i);
  else
    team.each(count, one);
}

double log2_logistic(double z) { return fmin(z, 0) * log2_e - log1p(exp(-fabs(z))) * log2_e; }

}  // namespace

template <class T> double Reading::of(const T* x, int64_t i, int64_t b) const {
  const auto at = [&](int64_t t) { return (double)x[entry_at(i, b * positions + t, columns)]; };
  if (over != over_mean) return at(over == over_last ? positions - 1 : 0);
  double sum = 0;
  for (int64_t t = 0; t < positions; t++) sum += at(t);
  return sum / (double)positions;
}

template <class T> void Reading::spread(T* g, int64_t i, int64_t b, double d) const {
  const auto at = [&](int64_t t) -> T& { return g[entry_at(i, b * positions + t, columns)]; };
  if (over != over_mean) {
    at(over == over_last ? positions - 1 : 0) = (T)d;
    return;
  }
  for (int64_t t = 0; t < positions; t++) at(t) = (T)(d / (double)positions);
}

template <class T>
Objective<T>::Objective(const Program& program)
    : head_(program.head),
      read_(read_columns_of(program)),
      exponent_(program.exponent),
      reads_first_(program.formats && head_.loss != no_loss && head_.over != over_positions),
      of_signal_{head_.over, columns_out_of(program), columns_out_of(program) / read_},
      of_logits_(reads_first_ ? Reading{over_positions, read_, 1} : of_signal_) {
  if (head_.loss == no_loss) return;
  y_.resize((size_t)(head_.outputs * read_));
  sign_.resize(y_.size());
}

template <class T> void Objective<T>::read(const Block<T>& signal, Block<T>& out) const {
  out.n = signal.n, out.exponent = signal.exponent;
  for (int64_t i = 0; i < padded(signal.n); i++)
    for (int64_t b = 0; b < read_; b++) out.data[entry_at(i, b, read_)] = (T)of_signal_.of(signal.data, i, b);
}

template <class T> void Objective<T>::spread(const Block<T>& gradient, Block<T>& out) const {
  const int64_t columns = of_signal_.columns;
  out.n = gradient.n, out.exponent = gradient.exponent;
  memset(static_cast<void*>(out.data), 0, sizeof(T) * (size_t)block_entries(out.n, columns));
  for (int64_t i = 0; i < gradient.n; i++)
    for (int64_t b = 0; b < read_; b++) of_signal_.spread(out.data, i, b, (double)gradient.data[entry_at(i, b, read_)]);
}

// With the targets that are drawn, by way of a block.
template <class T> int64_t Objective<T>::bytes(const Program& program) {
  const HeadSpec& head = program.head;
  if (head.loss == no_loss) return 0;
  const int64_t columns = read_columns_of(program), one = taken<double>(head.outputs * columns);
  return one + taken<signed char>(head.outputs * columns) + taken<double>(columns) +
         (head.targets ? 0 : one + taken<double>(block_entries(head.outputs, columns)));
}

template <class T> double Objective<T>::differentiate(const Block<T>& y, const Tall& address, Team& team, Block<T>& g) {
  const int64_t B = read_;
  Vector<double> drawn;
  if (!head_.targets) drawn = draw_targets(address, head_.loss, head_.outputs, B, team);
  const double* t = head_.targets ? head_.targets : drawn.data();
  g.exponent = 0;
  memset(static_cast<void*>(g.data), 0, sizeof(T) * (size_t)block_entries(head_.outputs, of_logits_.columns));
  if (!exponent_) return plain(y, t, g.data);
  const int e = (int)(y.exponent > 3000 ? 3000 : y.exponent < -3000 ? -3000 : y.exponent);
  in_strips(B, head_.outputs, team, [&](int64_t first, int64_t end) {
    for (int64_t o = 0; o < head_.outputs; o++)
      for (int64_t b = first; b < end; b++) {
        const double m = logit(y, o, b);  // inf or nan only where a format overflowed
        y_[(size_t)(o * B + b)] = std::isfinite(m) && e ? std::min(std::max(ldexp(m, e), -1e300), 1e300) : m;
      }
  });
  const double loss = head_.loss == mse       ? mean_square_error(y, t)
                      : head_.loss == sigmoid ? binary(y, t)
                      : head_.loss == softmax ? cross_entropy(t, team)
                                              : read_out(y, t);
  write(g, team);
  return loss / (double)B;
}

// J is linear in the logits: its derivative is t itself
template <class T> double Objective<T>::read_out(const Block<T>& y, const double* t) {
  double loss = 0;
  for (size_t i = 0; i < y_.size(); i++) {
    sign_[i] = t[i] < 0 ? -1 : 1, y_[i] = log2(fabs(t[i]));
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
      sign_[i] = d < 0 ? -1 : 1, y_[i] = log2(fabs(d)) + (far ? (double)y.exponent : 0);
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
      sign_[i] = t[i] == 1 ? -1 : 1, y_[i] = log2_logistic(t[i] == 1 ? -z : z);
    } else {
      const double d = exp2(log2_logistic(z)) - t[i];
      sign_[i] = d < 0 ? -1 : 1, y_[i] = log2(fabs(d));
    }
  }
  return loss;
}

template <class T> double Objective<T>::cross_entropy(const double* t, Team& team) {
  Vector<double> losses((size_t)read_);
  in_strips(read_, head_.outputs, team, [&](int64_t first, int64_t end) {
    cross_entropies(t + first, (size_t)first, (size_t)(end - first), losses.data() + first);
  });
  double loss = 0;
  for (const double one : losses) loss += one;
  return loss;
}

// Of `inputs` inputs from `first`, one strip: an output at a time, so that what lies side by side is met together.
template <class T> void Objective<T>::cross_entropies(const double* t, size_t first, size_t inputs, double* losses) {
  const size_t B = (size_t)read_, n = (size_t)head_.outputs;
  double* y = y_.data() + first;  // logits, then log2 of their probabilities
  signed char* sign = sign_.data() + first;
  double top[strip], total[strip], others[strip], rest[strip];
  bool one_hot[strip];
  const auto each = [&](auto&& f) {
    for (size_t o = 0; o < n; o++)
      for (size_t b = 0; b < inputs; b++) f(o * B + b, b);
  };
  for (size_t b = 0; b < inputs; b++)
    top[b] = others[b] = -INFINITY, total[b] = rest[b] = losses[b] = 0, one_hot[b] = true;
  each([&](size_t i, size_t b) {
    top[b] = y[i] > top[b] ? y[i] : top[b];
    one_hot[b] &= t[i] == 0 || t[i] == 1;
  });
  each([&](size_t i, size_t b) { total[b] += exp2((y[i] - top[b]) * log2_e); });
  for (size_t b = 0; b < inputs; b++) total[b] = log2(total[b]);
  each([&](size_t i, size_t b) {
    y[i] = (y[i] - top[b]) * log2_e - total[b], sign[i] = 1;
    if (t[i] > 0) losses[b] -= t[i] * y[i] / log2_e;
    if (t[i] != 1) others[b] = y[i] > others[b] ? y[i] : others[b];
  });
  each([&](size_t i, size_t b) {
    if (one_hot[b]) {
      if (t[i] != 1) rest[b] += exp2(y[i] - others[b]);
    } else {
      const double d = exp2(y[i]) - t[i];
      sign[i] = d < 0 ? -1 : 1, y[i] = log2(fabs(d));
    }
  });
  for (size_t b = 0; b < inputs; b++)
    if (one_hot[b])  // where t = 1: minus the others' p
      for (size_t o = 0; o < n; o++)
        if (t[o * B + b] == 1) sign[o * B + b] = -1, y[o * B + b] = others[b] + log2(rest[b]);
}

template <class T> void Objective<T>::write(Block<T>& g, Team& team) {
  const int64_t B = read_;
  double top = -INFINITY;
  for (const double x : y_) top = x > top && x < INFINITY ? x : top;
  const double e = top > -0x1p52 ? floor(top) : 0;
  in_strips(B, head_.outputs, team, [&](int64_t first, int64_t end) {
    for (int64_t o = 0; o < head_.outputs; o++)
      for (int64_t b = first; b < end; b++) {
        const size_t i = (size_t)(o * B + b);
        of_logits_.spread(g.data, o, b, sign_[i] * exp2(y_[i] - e) / (double)B);
      }
  });
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
      of_logits_.spread(g, o, b, (double)(d / (T)B));
    }
  }
  return (double)loss / (double)B;
}

template class Objective<float>;
template class Objective<double>;

}  // namespace pykernel
