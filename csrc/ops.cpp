// The rows of the table of ops.
// SPDX-License-Identifier: BSD-3-Clause
#include "ops.hpp"

namespace pykernel {

#define PK_FACTS(kind) &kind##_facts,
constinit const OpFacts* const op_facts[] = {PK_OPS(PK_FACTS)};
#undef PK_FACTS

template <class T> const OpRow<T>* op_rows() {
#define PK_ROW(kind) kind##_op<T>(),
  static const OpRow<T> rows[] = {PK_OPS(PK_ROW)};
#undef PK_ROW
  return rows;
}
template const OpRow<float>* op_rows();
template const OpRow<double>* op_rows();

}  // namespace pykernel
