// Drawn arrays of one network, over the tables of the chosen instruction set.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "isa.hpp"
#include "memory.hpp"
#include "pykernel/plan.hpp"
#include "pykernel/stream.hpp"
#include "team.hpp"

namespace pykernel {

// Throws std::invalid_argument where the distribution takes no such parameter.
void check_parameter(Distribution distribution, double parameter);
// The block of a tall array, the team splits it.
template <class T> void draw_tall(T* out, int64_t units, int64_t B, const Tall& address, Team& team);
// (outputs, B) row-major: normals, fair bits, or one-hot columns of uniform classes
Vector<double> draw_targets(Tall address, int loss, int64_t outputs, int64_t B, Team& team);

}  // namespace pykernel
