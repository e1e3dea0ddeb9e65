// What a program, and its parts, must be before anything runs them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdexcept>

#include "pykernel/program.hpp"

namespace pykernel {

// Sizes whose bytes 64 bits do not count; Python's OverflowError.
struct TooLarge : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// All throw std::invalid_argument, saying what is allowed.
void check(const Program& program);
void check(const ActivationRow& row);
void check(const NormRow& row);
void check_width(int64_t width);
void check_batch(int64_t batch);
void check_finite(const double* x, int64_t n, const char* what);  // x may be null

}  // namespace pykernel
