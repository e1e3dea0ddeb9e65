// How far powers of two go in T, and what a block is multiplied with on the way to another exponent.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <math.h>
#include <stdint.h>

#include <type_traits>

#include "pykernel/block.hpp"

namespace pykernel {

// `reach` is what 2^e times ordinary magnitudes may use; products below 2^-lost have lost digits to underflow.
template <class T> inline constexpr int reach = std::is_same_v<T, float> ? 120 : 1000;
template <class T> inline constexpr int lost = std::is_same_v<T, float> ? 90 : 900;

template <class T> T scaled(double factor, int64_t e) {
  return (T)ldexp(factor, (int)(e < -3000 ? -3000 : e > 3000 ? 3000 : e));
}
template <class T> T power(int64_t e) { return scaled<T>(1, e); }

// Exponents of products end here, so that sums of two stay in 64 bits: gates square magnitudes, and after some sixty of
// them a block is inf or 0.
inline constexpr int64_t farthest = (int64_t)1 << 61;

// log2 of the largest magnitude, far below everything for zero
template <class T> int64_t height(const Block<T>& x) {
  return x.largest > 0 ? x.exponent + ilogb(x.largest) : INT64_MIN / 4;
}

}  // namespace pykernel
