// The ceilings, for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/roofline.hpp"

#include "kernels/draws-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

// Twelve sums that do not wait for each other: two pipes of five cycles need ten.
float multiply_add(int64_t n) {
  constexpr int sums = 12;
  F32 y[sums];
  for (int i = 0; i < sums; i++) y[i] = broadcast((float)i);
  const F32 a = broadcast(0.5f), b = broadcast(1.0f);
  for (int64_t k = 0; k < n * panel_vectors<float>; k += sums)
#pragma GCC unroll 12
    for (int i = 0; i < sums; i++) y[i] = fma(y[i], a, b);
  F32 all[panel_vectors<float>] = {};
  for (int i = 0; i < sums; i++) all[0] += y[i];
  return sum_lanes<float>(all);
}

float draw_normals(int64_t n) {
  MatrixDraws<Normal> draws;
  open(draws.stream, 0, 1, 0, (uint32_t)Purpose::weight);
  F32 all[panel_vectors<float>] = {};
  for (int64_t first = 0; 16 * first < n; first += 64)
    draw(draws, 0, 1, first, 64, [&](int, int, int, int part, F32 v) { all[part / lanes<float>] += v; });
  return sum_lanes<float>(all);
}

float read(const float* x, int64_t n) {
  constexpr int sums = 8;
  F32 y[sums] = {};
  for (int64_t i = 0; i < n; i += sums * lanes<float>)
#pragma GCC unroll 8
    for (int j = 0; j < sums; j++) y[j] += load(x + i + j * lanes<float>);
  F32 all[panel_vectors<float>] = {};
  for (int j = 0; j < sums; j++) all[0] += y[j];
  return sum_lanes<float>(all);
}

constexpr Roofline table = {multiply_add, draw_normals, read};

}  // namespace

const Roofline& roofline() { return table; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
