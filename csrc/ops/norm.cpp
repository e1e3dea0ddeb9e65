// A norm that no activation follows. Its input is kept.
// SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T>& x = net.keep(step.op.ins[0]);
  Block<T> out = net.fresh(step, x.n);
  net.norms.normalise(net.program.norms[net.program.norm_steps[number]], x, out);
  net.put(step, out, net.layer.settle(out));
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T>& x = net.kept().block;
  const NormRow& norm = net.program.norms[net.program.norm_steps[number]];
  Block<T> g = net.take(step.op.out).block;
  Block<T> normed = net.scratch();
  net.norms.normalise(norm, x, normed);
  const Measure m = net.norms.normalise_backward(norm, x, normed, g, g);
  net.release(normed);
  net.give(step.op.ins[0], {g, m});
}

}  // namespace

PK_OP(norm, .table = Table::norm, .keeps_inputs = true);

}  // namespace pykernel
