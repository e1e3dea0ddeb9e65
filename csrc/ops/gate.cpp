// phi(g) v entry by entry (Dauphin et al. 2017, arXiv 1612.08083). Both inputs are kept, phi(g) is made again.
// SPDX-License-Identifier: BSD-3-Clause
#include <math.h>

#include "network.hpp"

namespace pykernel {
namespace {

// log2 of sqrt(x^2 + y^2), of log2 of x and y
double log2_together(double x, double y) {
  const double top = fmax(x, y);
  return isfinite(top) ? top + .5 * log2(exp2(2 * (x - top)) + exp2(2 * (y - top))) : top;
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  net.keep(step.op.ins[0]);
  const Block<T>& v = net.keep(step.op.ins[1]);
  Block<T>& g = net.value(step.op.ins[0]);
  Block<T> out = net.fresh(step, g.n), value = net.scratch();
  activate(net.layer, net.phi_of_step(number), g, value);
  const Measure m = net.layer.multiply(value, v, out);
  net.release(value);
  net.put(step, out, m);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T>& v = net.kept().block;
  Block<T>& g = net.kept().block;
  const Phi<T>& phi = net.phi_of_step(number);
  const Gradient<T> out = net.take(step.op.out);
  Block<T> product = net.scratch(), dg = net.scratch(), dv = net.scratch();
  SlopeCount count;
  net.layer.multiply(out.block, v, product);
  const Measure mg = differentiate(net.layer, phi, g, product, dg, count);
  activate(net.layer, phi, g, product);
  const Measure mv = net.layer.multiply(out.block, product, dv);
  const double after = log2_together(mg.log2_norm(), mv.log2_norm());
  net.rows.log10_derivative_factor[number] = log10_2 * (after - out.norm);
  net.observe_slopes(number, g.n, count);
  net.release(product);
  net.release(out.block);
  net.give(step.op.ins[0], {dg, mg});
  net.give(step.op.ins[1], {dv, mv});
}

}  // namespace

PK_OP(gate, .table = Table::activation, .inputs = 2, .keeps_inputs = true);

}  // namespace pykernel
