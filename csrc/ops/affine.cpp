// weight x + bias by unit, as a trained norm ends. Nothing is kept.
// SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

namespace pykernel {
namespace {

// One number a unit, as a block of one column
template <class T> Block<T> column(Network<T>& net, const double* numbers, int64_t n) {
  Block<T> out = {net.column(), n, 0, 0};
  pack(numbers, n, 1, out, net.program.exponent);
  return out;
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const AffineRow& row = net.program.affines[net.program.affine_steps[number]];
  const Block<T> x = net.value(step.op.ins[0]);
  Block<T> out = net.fresh(step, x.n);
  Measure m = net.layer.multiply_units(x, column(net, row.weight, x.n), out);
  if (row.bias) {
    const Block<T> b = column(net, row.bias, x.n);
    if (b.largest > 0) m = net.layer.add_bias(out, b.data, b.largest, ldexp(1, (int)b.exponent));
  }
  net.put(step, out, m);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const AffineRow& row = net.program.affines[net.program.affine_steps[number]];
  const Gradient<T> g = net.take(step.op.out);
  Block<T> out = net.scratch();
  const Measure m = net.layer.multiply_units(g.block, column(net, row.weight, g.block.n), out);
  net.release(g.block);
  net.give(step.op.ins[0], {out, m});
}

}  // namespace

PK_OP(affine, .table = Table::affine);

}  // namespace pykernel
