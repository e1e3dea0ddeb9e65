// The end of a block, where signal and gradient are looked at on their way.
// SPDX-License-Identifier: BSD-3-Clause
#include <math.h>

#include <algorithm>

#include "network.hpp"

namespace pykernel {
namespace {

// Mean cosine over pairs of columns that are not zero, of their Gram matrix.
double similarity(const double* gram, int64_t columns) {
  double sum = 0;
  int64_t pairs = 0;
  for (int64_t b = 0; b < columns; b++)
    for (int64_t c = 0; c < b; c++) {
      const double lengths =
          sqrt(gram[b * columns + b]) * sqrt(gram[c * columns + c]);  // the product of the squares may vanish
      if (lengths == 0) continue;
      sum += gram[b * columns + c] / lengths;
      pairs++;
    }
  return pairs ? sum / (double)pairs : NAN;
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  net.move(step.op.ins[0], step.op.out);
  net.round_node(step.op.out, number);
  if (!net.observing) return;
  const Measure& m = net.measure(step.op.out);
  const double count = (double)net.value(step.op.out).n * (double)net.columns;
  net.rows.log10_mean_square_activation[number] =
      log10_2 * (2 * m.log2_norm() - net.log2_size(net.value(step.op.out).n));
  net.rows.mean_activation[number] = ldexp(m.sum / count, (int)std::clamp<int64_t>(m.exponent, -3000, 3000));
  net.rows.similarity[number] = net.columns > 1 ? similarity(net.gram(step.op.out), net.columns) : NAN;
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Gradient<T> g = net.take_node(step.op, number);
  net.rows.log10_grad_activation[number + 1] = log10_2 * g.norm;
  net.give(step.op.ins[0], g);
}

}  // namespace

template <class T> OpRow<T> node_op() { return {forward<T>, backward<T>}; }
template OpRow<float> node_op();
template OpRow<double> node_op();

}  // namespace pykernel
