// The rows of the table of ops.
// SPDX-License-Identifier: BSD-3-Clause
#include "ops/ops.hpp"

namespace pykernel {

template <class T> const OpRow<T>* op_rows() {
  static const OpRow<T> rows[] = {linear_op<T>(), phi_op<T>(),  norm_op<T>(), gate_op<T>(),   add_op<T>(),
                                  scale_op<T>(),  mask_op<T>(), node_op<T>(), affine_op<T>(), mix_op<T>(),
                                  gather_op<T>(), pool_op<T>(), drive_op<T>()};
  static_assert(sizeof rows / sizeof *rows == op_kinds);
  return rows;
}
template const OpRow<float>* op_rows();
template const OpRow<double>* op_rows();

}  // namespace pykernel
