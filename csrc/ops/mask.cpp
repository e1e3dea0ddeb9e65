// Dropout: entries zeroed with probability p, the rest divided by 1 - p. The mask has an address, so it is drawn again,
// not kept. SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

// out = x under mask `number`
template <class T> Measure apply(Network<T>& net, int64_t number, const Block<T>& x, Block<T>& out) {
  const double p = net.program.masks[number];
  Tall address = net.address(Purpose::dropout, number + 1, TallDraw::kept);
  address.bound = (uint32_t)(p * 0x1p32);
  Block<T> mask = net.scratch();
  draw_tall(mask.data, x.n, net.columns, address, net.team);
  mask.n = x.n, mask.exponent = 0, mask.largest = 1;
  net.layer.multiply(x, mask, out);
  net.release(mask);
  return net.layer.scale(out, 1 / (1 - p), out);
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Block<T>& x = net.value(step.op.ins[0]);
  Block<T> out = net.fresh(step, x.n);
  const Measure m = apply(net, number, x, out);
  net.put(step, out, m);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Gradient<T> g = net.take(step.op.out);
  Block<T> out = net.scratch();
  const Measure m = apply(net, number, g.block, out);
  net.release(g.block);
  net.give(step.op.ins[0], {out, m});
}

}  // namespace

PK_OP(mask, .table = Table::mask);

}  // namespace pykernel
