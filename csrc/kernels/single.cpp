// One input through a matrix-free layer, for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
//
// Sums: 16 lane partials in T over 256 units, added up in double over the chunk, then a fixed tree.
#include "kernels/single.hpp"

#include "kernels/tall-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr int stretch_groups = 4, stretch_units = stretch_groups * group_units;
constexpr int drawn_sums = SingleSums::saturated;  // the last two are counts

PK_INLINE void add_wide(double* sums, F32 v) {
  typedef float Half __attribute__((vector_size(vector_bytes / 2)));
  Half halves[2];
  __builtin_memcpy(halves, &v, sizeof v);
  for (int i = 0; i < 2; i++)
    store(sums + i * lanes<double>, load(sums + i * lanes<double>) + __builtin_convertvector(halves[i], F64));
}
PK_INLINE void add_wide(double* sums, F64 v) { store(sums, load(sums) + v); }

PK_INLINE void draw(const Keys& keys, uint32_t purpose_layer, uint32_t replica, int64_t group, int groups, bool uniform,
                    float* out) {
  alignas(64) uint32_t words[stretch_units];
  for (int i = 0; i < groups; i++) tall_words(keys, purpose_layer, replica, group + i, 0, words + i * group_units);
  if (!uniform) return normals_of_words(words, groups, out);
  for (int i = 0; i < groups * group_units; i += lanes<float>)
    store(out + i, uniforms(Bundle<U32, 1>{{load(words + i)}}).v[0]);
}

template <class T> PK_INLINE SingleSums sum(const Single& node, const Activation<T>& phi, int64_t chunk, int64_t n) {
  typedef Vec<T> V;
  Keys keys;
  expand(keys, node.seed);
  const V sigma = broadcast((T)node.sigma), h_scale = broadcast((T)node.h_scale),
          bias_scale = broadcast((T)node.bias_scale);
  alignas(64) double sums[drawn_sums][panel_lanes] = {};
  int64_t saturated = 0, dead = 0;
  for (int64_t first = chunk * chunk_units; first < (chunk + 1) * chunk_units && first < n; first += stretch_units) {
    alignas(64) float g[stretch_units], h[stretch_units], bias[stretch_units];
    alignas(64) T z[stretch_units], a[stretch_units], slope[stretch_units];
    const int units = n - first < stretch_units ? (int)(n - first) : stretch_units;
    const int groups = (units + group_units - 1) / group_units,
              padded = (units + panel_lanes - 1) / panel_lanes * panel_lanes;
    draw(keys, node.g, node.replica, first / group_units, groups, false, g);
    draw(keys, node.h, node.replica, first / group_units, groups, false, h);
    if (node.bias_scale != 0) draw(keys, node.bias, node.replica, first / group_units, groups, node.uniform_bias, bias);
    for (int i = units; i < padded; i++) g[i] = h[i] = bias[i] = 0;
    for (int i = 0; i < padded; i += lanes<T>) {
      const V drawn = load_as<T>(g + i) * sigma;
      store(z + i, node.bias_scale != 0 ? fma(load_as<T>(bias + i), bias_scale, drawn) : drawn);
      store(a + i, broadcast((T)1));
    }
    const SlopeSums counts = phi.slope(z, a, slope, units, 1, T(1), (T)node.threshold, node.parameters);
    saturated += counts.saturated, dead += counts.dead;
    phi.value(z, a, units, 1, T(1), T(1), node.parameters);
    for (int part = 0; part < panel_lanes; part += lanes<T>) {
      V s[drawn_sums] = {};
      for (int i = part; i < padded; i += panel_lanes) {
        const V zi = load(z + i), ai = load(a + i), gi = load_as<T>(g + i), hi = load_as<T>(h + i) * h_scale,
                si = load(slope + i);
        const V A = ai * si, H = hi * si;
        s[0] += zi, s[1] = fma(zi, zi, s[1]), s[2] += ai, s[3] = fma(ai, ai, s[3]), s[4] = fma(ai, hi, s[4]),
                    s[5] = fma(hi, hi, s[5]);
        s[6] = fma(A, A, s[6]), s[7] = fma(A, H, s[7]), s[8] = fma(H, H, s[8]), s[9] = fma(gi, A, s[9]),
        s[10] = fma(gi, H, s[10]);
      }
      for (int k = 0; k < drawn_sums; k++) add_wide(sums[k] + part, s[k]);
    }
  }
  SingleSums out;
  for (int k = 0; k < drawn_sums; k++) {
    F64 v[panel_vectors<double>];
    for (int j = 0; j < panel_vectors<double>; j++) v[j] = load(sums[k] + j * lanes<double>);
    out.of[k] = sum_lanes<double>(v);
  }
  out.of[SingleSums::saturated] = (double)saturated;
  out.of[SingleSums::dead] = (double)dead;
  return out;
}

}  // namespace

SingleSums single(const Single& node, const Activation<float>& phi, int64_t chunk, int64_t n) {
  return sum<float>(node, phi, chunk, n);
}
SingleSums single(const Single& node, const Activation<double>& phi, int64_t chunk, int64_t n) {
  return sum<double>(node, phi, chunk, n);
}

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
