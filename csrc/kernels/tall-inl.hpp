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

template <class T> PK_INLINE void copy_panel(const float* from, T* to) {
  for (int o = 0; o < panel_lanes; o += lanes<T>) store(to + o, load_as<T>(from + o));
}

// Normals of `panels` panels of a group, zero from unit n on: those of line line_of(j) in column j, 16 units of panel p
// at out + j * column + p * panel.
template <class T, class Line>
PK_INLINE void normals_of_group(const Keys& keys, uint32_t purpose_layer, uint32_t replica, int64_t group, int64_t n,
                                int64_t count, Line line_of, int panels, T* out, int64_t column, int64_t panel) {
  constexpr int batch = 8;
  alignas(64) uint32_t words[batch * group_units];
  alignas(64) float normals[batch * group_units];
  const int64_t left = n - group * group_units, live = left < 0 ? 0 : left;
  for (int64_t j = 0; j < count; j += batch) {
    const int some = (int)(count - j < batch ? count - j : batch);
    for (int i = 0; i < some; i++)
      tall_words(keys, purpose_layer, replica, group, line_of(j + i), words + i * group_units);
    normals_of_words(words, some, normals);
    for (int i = 0; i < some; i++) {
      T* to = out + (j + i) * column;
      for (int p = 0; p < panels; p++) copy_panel(normals + i * group_units + p * panel_lanes, to + p * panel);
      for (int64_t u = live; u < panels * panel_lanes; u++) to[u / panel_lanes * panel + u % panel_lanes] = 0;
    }
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
