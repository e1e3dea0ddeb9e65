// The end of a block, where signal and gradient are looked at on their way.
// SPDX-License-Identifier: BSD-3-Clause
#include <math.h>

#include <algorithm>

#include "exponents.hpp"
#include "network.hpp"
#include "single.hpp"

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

// The same of the sum of all directions, where there are many columns.
template <class T> double similarity_of(Network<T>& net, const Block<T>& x) {
  const int64_t C = net.columns, panels = panels_of(x.n), part = std::max<int64_t>(1, (1 << 14) / panels);
  Vector<double> inverse((size_t)C), together((size_t)panels);
  const Block<T> seen = net.layer.presentable(x);
  const Elementwise<T>& kernels = net.layer.kernels;
  net.team.each((C + part - 1) / part, [&](int64_t task) {
    kernels.inverse_norms(seen.data, panels, C, task * part, std::min(part, C - task * part), inverse.data());
  });
  net.team.each(panels, [&](int64_t p) {
    together[(size_t)p] = kernels.directed_square(seen.data + p * C * 16, C, inverse.data());
  });
  double square = 0, count = 0;
  for (const double x : together) square += x;
  for (const double x : inverse) count += x > 0;
  return count > 1 ? (square - count) / (count * (count - 1)) : NAN;
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  net.move(step.op.ins[0], step.op.out);
  net.round_node(step.op.out, number);
  if (!net.observing) return;
  const Measure& m = net.measure(step.op.out);
  const double count = (double)net.value(step.op.out).n * (double)net.columns;
  net.rows.log10_mean_square_activation[number] =
      log10_2 * (2 * m.log2_norm() - net.log2_size(net.value(step.op.out).n));
  net.rows.mean_activation[number] = scaled<double>(m.sum / count, m.exponent);
  const Block<T>& x = net.value(step.op.out);
  net.rows.similarity[number] = net.columns <= 1 ? NAN
                                : !net.keeping.grams && sums_directions({x.n, net.columns})
                                    ? similarity_of(net, x)
                                    : similarity(net.gram(step.op.out), net.columns);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Gradient<T> g = net.take_node(step.op, number);
  net.rows.log10_grad_activation[number + 1] = log10_2 * g.norm;
  net.give(step.op.ins[0], g);
}

}  // namespace

void observe_node(const SingleNode& node, bool after_phi, const Rows& rows, int64_t i) {
  rows.log10_mean_square_activation[i] = log10_mean_square(node, after_phi ? SingleSums::aa : SingleSums::zz);
  const double mean = node.sums[after_phi ? SingleSums::a : SingleSums::z] / node.n * node.unit.x;
  rows.mean_activation[i] = ldexp(mean, (int)std::clamp<int64_t>(node.unit.e, -5000, 5000));
  rows.similarity[i] = NAN;
}

PK_OP(node, .table = Table::node);

}  // namespace pykernel
