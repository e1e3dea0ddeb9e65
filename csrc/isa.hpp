// Which instruction set's tables this process uses: the best that the machine has, or the one named by PYKERNEL_ISA.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/elementwise.hpp"
#include "kernels/product.hpp"

namespace pykernel {

const char* isa_name();
template <class T> const Elementwise<T>& elementwise_table();
template <class T> const Products<T>& product_table();

}  // namespace pykernel
