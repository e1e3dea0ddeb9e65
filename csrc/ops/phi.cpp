// v = phi(Norm(h)): an activation function behind the norm that acts on its input, if there is one. Only h is kept;
// Norm(h) is made again. SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  Block<T>& h = net.keep(step.op.ins[0]);
  const NormRow& norm = net.norm_of_step(number);
  Block<T> out = net.fresh(step, h.n);
  Measure m;
  if (norm.kind) {
    Block<T> normed = net.scratch();
    net.norms.normalise(norm, h, normed);
    m = activate(net.layer, net.phi_of_step(number), normed, out);
    net.release(normed);
  } else {
    m = activate(net.layer, net.phi_of_step(number), h, out);
  }
  if (net.passes_formats(number)) net.store_input(h);
  net.put(step, out, m);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  Block<T>& h = net.kept().block;
  const NormRow& norm = net.norm_of_step(number);
  const Gradient<T> g = net.take(step.op.out);
  Block<T> out = net.scratch();
  Measure m;
  SlopeCount count;
  if (norm.kind) {
    Block<T> normed = net.scratch();
    net.norms.normalise(norm, h, normed);
    differentiate(net.layer, net.phi_of_step(number), normed, g.block, out, count);
    m = net.norms.normalise_backward(norm, h, normed, out, out);
    net.release(normed);
  } else {
    m = differentiate(net.layer, net.phi_of_step(number), h, g.block, out, count);
  }
  const Gradient<T> back(out, m);
  net.rows.log10_derivative_factor[number] = log10_2 * (back.norm - g.norm);
  net.observe_slopes(number, h.n, count);
  net.release(g.block);
  net.give(step.op.ins[0], back);
}

}  // namespace

PK_OP(phi, .table = Table::activation, .keeps_inputs = true);

}  // namespace pykernel
