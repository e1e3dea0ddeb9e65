// The table of the kernels around the products, for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/activations-inl.hpp"
#include "kernels/norms-inl.hpp"
#include "kernels/round-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class T>
constexpr Elementwise<T> table = {
    activations<T>,
    (int)(sizeof activations<T> / sizeof *activations<T>),
    observe<T>,
    combine<T>,
    multiply<T>,
    multiply_units<T>,
    add_bias<T>,
    round<T>,
    compare<T>,
    bias_square<T>,
    add_columns<T>,
    inverse_norms<T>,
    directed_square<T>,
    batch_norm<T>,
    batch_norm_backward<T>,
    column_sums<T>,
    column_squares<T>,
    column_norm<T>,
    column_norm_backward<T>,
};

}  // namespace

const Elementwise<float>& elementwise(float) { return table<float>; }
const Elementwise<double>& elementwise(double) { return table<double>; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
