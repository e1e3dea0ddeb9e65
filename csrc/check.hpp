// What a plan must be before anything runs it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "pykernel/plan.hpp"

namespace pykernel {

// Throws std::invalid_argument, saying what is allowed.
void check(const Plan& plan);

}  // namespace pykernel
