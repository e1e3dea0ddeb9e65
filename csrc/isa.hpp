// Which instruction set's tables this process uses: the best that the machine has, or the one named by PYKERNEL_ISA.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <vector>

#include "kernels/elementwise.hpp"
#include "kernels/product.hpp"

namespace pykernel {

struct Isa {
  const char* name;
  const Elementwise<float>& (*floats)(float);
  const Elementwise<double>& (*doubles)(double);
  const Products<float>& (*float_products)(float);
  const Products<double>& (*double_products)(double);
};

// Those that this machine (processor and system) can run, best first; the last is "baseline".
const std::vector<Isa>& usable_isas();
// The one in use. Throws std::invalid_argument where PYKERNEL_ISA names none of the usable ones.
const char* isa_name();
template <class T> const Elementwise<T>& elementwise_table();
template <class T> const Products<T>& product_table();

}  // namespace pykernel
