// Attention between the positions of one input, o = V softmax(scale K^T Q), head by head. Query, key and value are
// kept; scores are made again. SPDX-License-Identifier: BSD-3-Clause
#include <math.h>

#include "exponents.hpp"
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T>& q = net.keep(step.op.ins[0]);
  const Block<T>& k = net.keep(step.op.ins[1]);
  const Block<T>& v = net.keep(step.op.ins[2]);
  Block<T> o = net.fresh(step, q.n);
  const auto [sums, exponent] = net.mixer.forward(number, net.columns, q, k, v, o);
  net.put(step, o, net.layer.settle(o));
  if (!net.observing) return;
  net.rows.attention_entropy[number] = sums.entropy / ((double)net.columns * (double)net.program.heads[number]);
  net.rows.score_std[number] = scaled<double>(sqrt(sums.square / sums.count), exponent);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T>& v = net.kept().block;
  const Block<T>& k = net.kept().block;
  const Block<T>& q = net.kept().block;
  const Gradient<T> g = net.take(step.op.out);
  Block<T> dq = net.scratch(), dk = net.scratch(), dv = net.scratch();
  net.mixer.backward(number, net.columns, q, k, v, g.block, dq, dk, dv);
  net.release(g.block);
  net.give(step.op.ins[2], {dv, net.layer.settle(dv)});
  net.give(step.op.ins[0], {dq, net.layer.settle(dq)});
  net.give(step.op.ins[1], {dk, net.layer.settle(dk)});
}

}  // namespace

PK_OP(mix, .table = Table::mix, .inputs = 3, .keeps_inputs = true);

}  // namespace pykernel
