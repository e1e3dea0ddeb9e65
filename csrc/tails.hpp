// Logarithms of activation functions and of their slopes where the plain number underflows; scalar and rare.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace pykernel {

// (sign, log2 of the magnitude); -inf for an exact zero. Formulas as in pykernel/activations.py.
struct Log2 {
  double sign, log2;
};
typedef Log2 (*Tail)(double z, const double* parameters);

struct Tails {
  const char* name;
  Tail value;  // null: the function does not decay to zero
  Tail slope;
};

// null for functions whose slope never underflows without being zero
const Tails* tails_of(const char* name);

}  // namespace pykernel
