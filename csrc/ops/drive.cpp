// An input that arrives on the way; the gradient that comes back to it goes no further.
// SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Program& p = net.program;
  Block<T> x = net.fresh(step, p.drives[number]);
  if (p.drive)
    pack(p.drive[number], x.n, net.columns, x, p.exponent);
  else
    net.draw_input(x, number + 1);
  net.put(step, x, net.layer.settle(x));
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t) {
  net.release(net.take(step.op.out).block);
}

}  // namespace

PK_OP(drive, .table = Table::drive);

}  // namespace pykernel
