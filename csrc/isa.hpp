// Which instruction set's tables this process uses: the best that the machine has, or the one named by PYKERNEL_ISA.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <vector>

#include "kernels/algebra.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matrix_free.hpp"
#include "kernels/mix.hpp"
#include "kernels/product.hpp"
#include "kernels/single.hpp"

namespace pykernel {

struct Isa {
  const char* name;
  const Elementwise<float>& (*floats)(float);
  const Elementwise<double>& (*doubles)(double);
  const Products<float>& (*float_products)(float);
  const Products<double>& (*double_products)(double);
  const MatrixFree<float>& (*float_matrix_free)(float);
  const MatrixFree<double>& (*double_matrix_free)(double);
  const Algebra& (*algebra)();
  const Mixing<float>& (*float_mixing)(float);
  const Mixing<double>& (*double_mixing)(double);
  SingleKernel<float> float_single;
  SingleKernel<double> double_single;
};

// Those that this machine (processor and system) can run, best first; the last is "baseline".
const std::vector<Isa>& usable_isas();
// The one in use. Throws std::invalid_argument where PYKERNEL_ISA names none of the usable ones.
const char* isa_name();
template <class T> const Elementwise<T>& elementwise_table();
template <class T> const Products<T>& product_table();
template <class T> const MatrixFree<T>& matrix_free_table();
const Algebra& algebra_table();
template <class T> const Mixing<T>& mixing_table();
template <class T> SingleKernel<T> single_kernel();

}  // namespace pykernel
