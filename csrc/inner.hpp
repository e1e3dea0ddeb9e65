// Inner products over the units of a layer, of blocks or draws, cut among a team.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "kernels/matrix_free.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace pykernel {

// Columns of a block of so many (B), or drawn where block is null.
template <class T> struct Side {
  const T* block;
  Draws draws;
  int64_t count;
};

// Sums of `summed_units` units in the precision of the kernel, these added in order in double: the bits do not depend
// on the team.
template <class T> class InnerProducts {
 public:
  InnerProducts(int64_t B, int64_t units);  // the most of both
  // What one takes of a workspace.
  static int64_t bytes(int64_t B, int64_t units);
  // The most of thread_scratch() that a task takes for draws of few columns.
  static int64_t scratch_bytes(int64_t B);

  // out (a.count, y.count), rows `stride` apart: a^T y over `units` units; of a with itself where y is null.
  void operator()(const Side<T>& a, const Side<T>* y, int64_t units, bool careful, double* out, int64_t stride,
                  Team& team);

 private:
  struct Product {
    const Side<T>&a, &y;
    bool triangle, careful;  // of a block with itself; added up in double
    int64_t units;
    double* out;
    int64_t stride;
  };
  template <class Lay, class Multiply>
  void sum(const Product& of, int64_t chunk_units, Team& team, Lay lay, Multiply multiply);
  void few(const Product& of, Team& team);
  template <class S> void many(const Product& of, Team& team);
  template <class S> void pack(const Side<T>& side, bool turned, int64_t group, int64_t units, S* out);

  const MatrixFree<T>& kernels_;
  const int64_t span_;  // units at a time
  Vector<T> laid_[2];   // both sides of many columns, chunk by chunk
  Vector<double> sums_;
};

}  // namespace pykernel
