// Draws by address: words made into float32 numbers of each distribution, bit for bit those of pykernel/stream.py.
// SPDX-License-Identifier: BSD-3-Clause
//
// Constants and their errors are explained there. A distribution turns a bundle of vectors of words into a bundle of
// draws, or two bundles (of words 0 or 2 of a block, and of words 1 or 3) into `outputs` bundles.
#pragma once
#include "constants.hpp"
#include "kernels/bundle-inl.hpp"
#include "kernels/stream-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr float log_terms[] = {-0x1.fffffep+0f, 0x1.00007ap+0f, -0x1.5559dcp-1f, 0x1.ff623ap-2f,
                               -0x1.978e42p-2f, 0x1.614c3ap-2f, -0x1.4c3c72p-2f, 0x1.9df7b4p-3f};
constexpr float sin_terms[] = {0x1.921fb6p+0f, -0x1.4abbc2p-1f, 0x1.4668b0p-4f, -0x1.324ccap-8f, 0x1.3daff6p-13f};
constexpr float cos_terms[] = {0x1.fffffep-1f, -0x1.3bd3a6p+0f, 0x1.03bd06p-2f, -0x1.54f61ap-6f, 0x1.c1f064p-11f};
constexpr float truncated_terms[] = {0x1.323feep+0f,   0x1.40b482p-2f,  0x1.fe9418p-7f,  -0x1.99ff62p-9f,
                                     -0x1.af6478p-13f, 0x1.6aee6ep-14f, -0x1.973e1ep-18f};
constexpr float exp2_terms[] = {0x1.62e430p-1f, 0x1.ebfbdap-3f,  0x1.c6aed4p-5f,
                                0x1.3b2dbcp-7f, 0x1.5f456ap-10f, 0x1.41d328p-13f};
constexpr float tiny = 0x1p-30f;

template <int n> PK_INLINE F32s<n> signed_words(const U32s<n>& w) { return to_float(as<I32>(w)); }
template <int n> PK_INLINE F32s<n> unit_interval(const U32s<n>& w) {
  return fma(signed_words(w >> 1), 0x1p-31f, 0x1p-32f);
}
template <int n> PK_INLINE F32s<n> uniforms(const U32s<n>& w) { return fma(signed_words(w), 0x1p-31f, 0x1p-32f); }
template <int n> PK_INLINE F32s<n> minus_two_log(const F32s<n>& u) {
  const I32s<n> b = as<I32>(u) - 0x3F3504F3;
  const F32s<n> f = as<F32>((b & 0x7FFFFF) + 0x3F3504F3) - 1.0f;
  return fma(to_float(b >> 23), -1.3862943611198906f, f * polynomial(log_terms, f));
}
template <int n> PK_INLINE F32s<n> cosine(const F32s<n>& t) { return polynomial(cos_terms, t * t); }
template <int n> PK_INLINE F32s<n> sine(const F32s<n>& t) { return t * polynomial(sin_terms, t * t); }
template <int n> PK_INLINE F32s<n> half_turns(const U32s<n>& w) { return signed_words(w) * 0x1p-31f; }
template <int n> PK_INLINE F32s<n> with_sign(const F32s<n>& x, const U32s<n>& w) {
  return as<F32>(as<U32>(x) ^ (w << 31));
}
template <int n>
PK_INLINE void exp2_minus_1(const F32s<n>& x, F32s<n>& power, F32s<n>& rest) {  // 2^x = power + power * rest
  const F32s<n> f = x - round_even(x);
  power = as<F32>((round_to_int(x) + 127) << 23);
  rest = f * polynomial(exp2_terms, f);
}

template <int n> PK_INLINE void normal_pair(const U32s<n>& first, const U32s<n>& second, F32s<n>& a, F32s<n>& b) {
  const F32s<n> radius = with_sign(sqrt(minus_two_log(unit_interval(first))), first), t = half_turns(second);
  a = radius * cosine(t);
  b = radius * sine(t);
}

// What a distribution is, by its name in pykernel/distributions.py; `parameter`: what its number is and may be.
template <Distribution> struct Drawn;
struct Simple {
  static constexpr ParameterRange parameter = {};
  static constexpr bool masked = false;
  void set(double) {}
};

template <> struct Drawn<Distribution::normal> : Simple {
  static constexpr int inputs = 2, outputs = 2;
  void operator()(const U32s<>& first, const U32s<>& second, F32s<>* out) const __attribute__((always_inline)) {
    normal_pair(first, second, out[0], out[1]);
  }
};

typedef Drawn<Distribution::normal> Normal;

template <>
struct Drawn<Distribution::sparse> : Normal {  // lives where the mask's word, halved, is below density * 2^31
  static constexpr ParameterRange parameter = {"density", 0, 1, true};
  static constexpr bool masked = true;
  uint32_t bound;
  void set(double density) {
    const double scaled = (density * 0x1p31 + 0x1p52) - 0x1p52;  // rounds to even
    bound = scaled < 1 ? 1 : (uint32_t)scaled;
  }
  F32 mask(U32 w, F32 draw) const __attribute__((always_inline)) {
    return bound >> 31 ? draw : select((I32)(w >> 1) < broadcast((int32_t)bound), draw, F32{});
  }
};

template <> struct Drawn<Distribution::uniform> : Simple {
  static constexpr int inputs = 1, outputs = 1;
  void operator()(const U32s<>& word, F32s<>* out) const __attribute__((always_inline)) { out[0] = uniforms(word); }
};

template <> struct Drawn<Distribution::truncated> : Simple {
  static constexpr int inputs = 1, outputs = 1;
  void operator()(const U32s<>& word, F32s<>* out) const __attribute__((always_inline)) {
    const F32s<> u = uniforms(word), v = u * 0.9544997361036416f, minus_v = u * -0.9544997361036416f;
    out[0] = u * polynomial(truncated_terms, minus_two_log(fma(minus_v, v, 1.0f)) * 0.5f);
  }
};

template <> struct Drawn<Distribution::student> {
  static constexpr ParameterRange parameter = {"degrees of freedom", 1, 1e6};
  static constexpr int inputs = 2, outputs = 1;
  static constexpr bool masked = false;
  float degrees, exponent;
  void set(double nu) { degrees = (float)nu, exponent = (float)(log2_e / nu); }
  void operator()(const U32s<>& first, const U32s<>& second, F32s<>* out) const __attribute__((always_inline)) {
    F32s<> power, rest;
    exp2_minus_1(minus_two_log(unit_interval(first)) * exponent, power, rest);
    const F32s<> radius = sqrt(fma(power, rest, power - 1.0f) * degrees);
    out[0] = with_sign(radius, first) * cosine(half_turns(second));
  }
};

template <> struct Drawn<Distribution::stable> {
  static constexpr ParameterRange parameter = {"alpha", .5, 2};
  static constexpr int inputs = 2, outputs = 1;
  static constexpr bool masked = false;
  float alpha, other, exponent, cosine_exponent;
  void set(double a) {
    alpha = (float)a, other = (float)(1 - a);
    exponent = (float)(log2_e * (1 - a) / (2 * a)), cosine_exponent = (float)(log2_e / (2 * a));
  }
  void operator()(const U32s<>& first, const U32s<>& second, F32s<>* out) const __attribute__((always_inline)) {
    const F32s<> v = at_least(minus_two_log(unit_interval(first)) * 0.5f, tiny), t = half_turns(second);
    const F32s<> turn = t * alpha, log_c = minus_two_log(at_least(cosine(t), tiny));
    const F32s<> log_d = minus_two_log(at_least(cosine(t * other), tiny));
    const F32s<> x = fma(log_c, cosine_exponent, (minus_two_log(v) - log_d) * exponent);
    F32s<> folded, power, rest;
    constexpr int n = bundle_size;
    PK_EACH folded.v[i] = select(abs(turn.v[i]) > 1.0f, copysign(broadcast(2.0f), turn.v[i]) - turn.v[i], turn.v[i]);
    exp2_minus_1(clamp(x, -126.0f, 126.0f), power, rest);
    out[0] = sine(folded) * fma(power, rest, power);
  }
};

// use.operator()<D>() with the struct of a distribution.
template <class Use> PK_INLINE void with_distribution(Distribution distribution, Use use) {
#define PK_CASE(name)      \
  case Distribution::name: \
    return use.template operator()<Drawn<Distribution::name>>();
  switch (distribution) { PK_DISTRIBUTIONS(PK_CASE) }
#undef PK_CASE
}

#define PK_PARAMETER(name) Drawn<Distribution::name>::parameter,
constexpr ParameterRange parameter_ranges[] = {PK_DISTRIBUTIONS(PK_PARAMETER)};
#undef PK_PARAMETER

template <class D> struct MatrixDraws {
  MatrixStream stream, mask;
  D distribution;
};
template <class T, class D> PK_INLINE void open(MatrixDraws<D>& draws, const Weights<T>& w) {
  open(draws.stream, w.seed, w.layer, w.replica, (uint32_t)Purpose::weight);
  if constexpr (D::masked) open(draws.mask, w.seed, w.layer, w.replica, (uint32_t)Purpose::mask);
  draws.distribution.set(w.parameter);
}

// One matrix's draws: use(i, j, next, part, v) is called for `count` panels from `panel`, column j + next of the n from
// `first` (a multiple of 4), next < 8 and j a multiple of what a bundle makes, and the rows 16 (panel + i) + part +
// lane of v. Words go through a buffer in L1: rounds and polynomials each fill the pipes by themselves.
template <class D, class Use>
PK_INLINE void draw(const MatrixDraws<D>& draws, int64_t panel, int count, int64_t first, int n, Use use) {
  constexpr int per = D::inputs == D::outputs ? 4 : 2;  // columns in a block
  constexpr int parts = panel_vectors<float>, width = lanes<float>;
  constexpr int rows = bundle_size / parts,
                step = rows * D::outputs;  // rows of words (of each input) and columns in a bundle
  constexpr int block_words = 4 * panel_lanes;
  alignas(64) uint32_t words[(buffer_blocks + 4) * block_words],
      masks[D::masked ? (buffer_blocks + 4) * block_words : 1];
  for (int j = 0; j < n; j += buffer_blocks * per) {
    const int columns = n - j < buffer_blocks * per ? n - j : buffer_blocks * per, blocks = (columns + per - 1) / per;
    const int fit = buffer_blocks / blocks;  // panels that share the buffer
    BlockWords of[buffer_blocks], mask_of[D::masked ? buffer_blocks : 1];
    for (int block = 0; block < blocks; block++) {
      of[block] = of_block(draws.stream, (uint32_t)((first + j) / per + block));
      if constexpr (D::masked) mask_of[block] = of_block(draws.mask, (uint32_t)((first + j) / per + block));
    }
    for (int i = 0; i < count; i += fit) {
      const int end = count - i < fit ? count : i + fit;
      for (int q = i; q < end; q++) {
        panel_words(draws.stream, panel + q, of, blocks, words + (q - i) * blocks * block_words);
        if constexpr (D::masked)
          panel_words(draws.mask, panel + q, mask_of, blocks, masks + (q - i) * blocks * block_words);
      }
      for (int q = i; q < end; q++) {
        const uint32_t* w = words + (q - i) * blocks * block_words;
        for (int c = 0; c < columns; c += step, w += bundle_size * D::inputs * width) {
          F32s<> out[D::outputs];
          U32s<> in[D::inputs];
#pragma GCC unroll 2
          for (int h = 0; h < D::inputs; h++)
#pragma GCC unroll 8
            for (int g = 0; g < bundle_size; g++)
              in[h].v[g] = load(w + (g / parts * D::inputs + h) * panel_lanes + g % parts * width);
          if constexpr (D::inputs == 1)
            draws.distribution(in[0], out);
          else
            draws.distribution(in[0], in[1], out);
          const bool whole = c + step <= columns;
#pragma GCC unroll 8
          for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
            for (int h = 0; h < D::outputs; h++) {
              const int next = row * D::outputs + h, column = c + next;
              if (whole || column < columns)
#pragma GCC unroll 4
                for (int part = 0; part < parts; part++) {
                  F32 v = out[h].v[row * parts + part];
                  if constexpr (D::masked)
                    v = draws.distribution.mask(
                        load(masks + (q - i) * blocks * block_words + column * panel_lanes + part * width), v);
                  use(q, j + c, next, part * width, v);
                }
            }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
