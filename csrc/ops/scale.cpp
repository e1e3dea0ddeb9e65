// A number times a block. Nothing is kept.
// SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T> x = net.value(step.op.ins[0]);
  Block<T> out = net.fresh(step, x.n);
  const Measure m = net.layer.scale(x, net.program.factors[number], out);
  net.put(step, out, m);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  Block<T> g = net.take(step.op.out).block;
  const Measure m = net.layer.scale(g, net.program.factors[number], g);
  net.give(step.op.ins[0], {g, m});
}

}  // namespace

PK_OP(scale, .table = Table::factor, .in_place = true);

}  // namespace pykernel
