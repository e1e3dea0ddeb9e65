// Rows and columns of the caller into the kernels' layout and back.
// SPDX-License-Identifier: BSD-3-Clause
#include "pykernel/block.hpp"

#include <math.h>
#include <string.h>

namespace pykernel {

double Measure::log2_norm() const { return .5 * log2(square) + (double)exponent; }

template <class T, class From> void pack(const From* x, int64_t n, int64_t B, Block<T>& out, bool exponent) {
  double largest = 0;
  for (int64_t i = 0; i < n * B; i++) largest = fmax(largest, fabs((double)x[i]));
  const int e = exponent && (largest > 0x1p30 || largest < 0x1p-30) && largest > 0 ? ilogb(largest) : 0;
  memset(static_cast<void*>(out.data), 0, sizeof(T) * (size_t)block_entries(n, B));
  for (int64_t i = 0; i < n; i++)
    for (int64_t b = 0; b < B; b++) out.data[entry_at(i, b, B)] = (T)ldexp((double)x[i * B + b], -e);
  out.n = n, out.exponent = e, out.largest = ldexp(largest, -e);
}

template <class T> void unpack(const Block<T>& block, int64_t B, T* x) {
  const int e = (int)(block.exponent > 3000 ? 3000 : block.exponent < -3000 ? -3000 : block.exponent);
  for (int64_t i = 0; i < block.n; i++)
    for (int64_t b = 0; b < B; b++) x[i * B + b] = (T)ldexp((double)block.data[entry_at(i, b, B)], e);
}

template void pack(const float*, int64_t, int64_t, Block<float>&, bool);
template void pack(const float*, int64_t, int64_t, Block<double>&, bool);
template void pack(const double*, int64_t, int64_t, Block<float>&, bool);
template void pack(const double*, int64_t, int64_t, Block<double>&, bool);
template void unpack(const Block<float>&, int64_t, float*);
template void unpack(const Block<double>&, int64_t, double*);

}  // namespace pykernel
