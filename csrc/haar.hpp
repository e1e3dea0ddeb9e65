// Uniformly distributed orthogonal matrices.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/product.hpp"
#include "team.hpp"

namespace pykernel {

// Orthonormal rows or columns, whichever are fewer, as panels: the orthogonal factor of w's normal draws, with a
// positive triangular factor (Mezzadri 2007). Householder in double; 4 m n^2 operations for m >= n. Takes
// frame_bytes(rows, columns) on the way.
int64_t frame_bytes(int64_t rows, int64_t columns);
template <class T> void draw_frame(const Weights<T>& w, T* panels, const Products<T>& table, Team& team);

}  // namespace pykernel
