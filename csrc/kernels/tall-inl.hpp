// Standard normals down tall arrays, from words in a buffer near the processor.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/draws-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

// `count` times 64 words to normals in the same places.
PK_INLINE void normals_of_words(const uint32_t* words, int count, float* out) {
  constexpr int parts = panel_vectors<float>, size = 2 * parts < bundle_size ? 2 * parts : bundle_size;
  for (int i = 0; i < count * 2 * parts; i += size) {
    U32s<size> first, second;
    F32s<size> a, b;
#pragma GCC unroll 4
    for (int j = 0; j < size; j++) {
      const int at = (i + j) / parts * 2 * panel_lanes + (i + j) % parts * lanes<float>;
      first.v[j] = load(words + at), second.v[j] = load(words + at + panel_lanes);
    }
    normal_pair(first, second, a, b);
#pragma GCC unroll 4
    for (int j = 0; j < size; j++) {
      const int at = (i + j) / parts * 2 * panel_lanes + (i + j) % parts * lanes<float>;
      store(out + at, a.v[j]), store(out + at + panel_lanes, b.v[j]);
    }
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
