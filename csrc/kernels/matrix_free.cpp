// The table of the matrix-free layer's kernels, for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/matrix_free-inl.hpp"
#include "kernels/wide-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class T>
constexpr MatrixFree<T> table = {draw<T>, inner<T>, turn<T>, widen_numbers<T>, multiply<T>, pack<T>, combine<T>};

}  // namespace

const MatrixFree<float>& matrix_free(float) { return table<float>; }
const MatrixFree<double>& matrix_free(double) { return table<double>; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
