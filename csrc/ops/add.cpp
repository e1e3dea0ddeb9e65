// skip a + branch v: what passes by a block, and what comes out of it. Nothing is kept.
// SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T> a = net.value(step.op.ins[0]), v = net.value(step.op.ins[1]);
  Block<T> out = net.fresh(step, a.n);
  const Measure m = net.layer.add(a, net.program.skip[number], v, net.program.branch[number], out);
  net.put(step, out, m);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  Gradient<T> g = net.take(step.op.out);
  net.give(step.op.ins[1], net.times(g, net.program.branch[number]));
  const double skip = net.program.skip[number];
  if (skip == 1) return net.give(step.op.ins[0], g);
  const Measure m = net.layer.scale(g.block, skip, g.block);
  net.give(step.op.ins[0], {g.block, m});
}

}  // namespace

PK_OP(add, .table = Table::join, .inputs = 2, .in_place = true);

}  // namespace pykernel
