// Vectors of one instruction set, and the only place with intrinsics: files compiled once per instruction set include
// it. SPDX-License-Identifier: BSD-3-Clause
//
// Compile with -DPYKERNEL_ISA_NAMESPACE=avx512|avx2|baseline, -ffp-contract=off and that set's -m flags. F32, I32, U32
// (and F64, I64, U64) are compiler vector types: + - * / & | ^ ~ << >> < <= == and m ? a : b work lane by lane and
// round as IEEE says; a comparison gives I32 (I64) lanes of 0 or -1. The functions below add what operators lack. Every
// function gives the same bits on every set. A virtual vector has 16 lanes: 16 / lanes<T> native ones in order. So a
// panel of 16 units is 1, 2 or 4 vectors, with the same results. All in an unnamed namespace, so that nothing compiled
// for one set can be linked into another.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <utility>  // integer_sequence: a type, no code
#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#ifndef PYKERNEL_ISA_NAMESPACE
#error "compile per instruction set: define PYKERNEL_ISA_NAMESPACE"
#endif
#define PK_INLINE static inline __attribute__((always_inline))

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define PK_AVX512 1
constexpr int vector_bytes = 64;
#elif defined(__AVX2__) && defined(__FMA__)
#define PK_AVX2 1
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

typedef float F32 __attribute__((vector_size(vector_bytes)));
typedef int32_t I32 __attribute__((vector_size(vector_bytes)));
typedef uint32_t U32 __attribute__((vector_size(vector_bytes)));
typedef double F64 __attribute__((vector_size(vector_bytes)));
typedef int64_t I64 __attribute__((vector_size(vector_bytes)));
typedef uint64_t U64 __attribute__((vector_size(vector_bytes)));

constexpr int panel_lanes = 16;
template <class T> struct VectorOf;
template <> struct VectorOf<float> {
  typedef F32 type;
  typedef I32 bits;
  typedef int32_t integer;
};
template <> struct VectorOf<double> {
  typedef F64 type;
  typedef I64 bits;
  typedef int64_t integer;
};
template <class T> using Vec = typename VectorOf<T>::type;
template <class T> using Bits = typename VectorOf<T>::bits;
template <class T> constexpr int lanes = vector_bytes / (int)sizeof(T);
template <class T> constexpr int panel_vectors = panel_lanes / lanes<T>;

// -- memory (no alignment needed; aligned data is faster) and broadcast

PK_INLINE F32 load(const float* p) {
  F32 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PK_INLINE F64 load(const double* p) {
  F64 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PK_INLINE I32 load(const int32_t* p) {
  I32 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PK_INLINE U32 load(const uint32_t* p) {
  U32 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T, class V> PK_INLINE void store(T* p, V v) { __builtin_memcpy(p, &v, sizeof v); }
PK_INLINE F32 broadcast(float x) { return x - F32{}; }
PK_INLINE F64 broadcast(double x) { return x - F64{}; }
PK_INLINE I32 broadcast(int32_t x) { return x - I32{}; }
PK_INLINE U32 broadcast(uint32_t x) { return x - U32{}; }
PK_INLINE I64 broadcast(int64_t x) { return x - I64{}; }
PK_INLINE U64 broadcast(uint64_t x) { return x - U64{}; }

// floats as doubles, and back: GCC 12 takes its own conversion of vectors apart
typedef float HalfF32 __attribute__((vector_size(vector_bytes / 2)));
#if defined(PK_AVX512)
PK_INLINE F64 widen(HalfF32 v) { return (F64)_mm512_cvtps_pd((__m256)v); }
PK_INLINE HalfF32 narrow(F64 v) { return (HalfF32)_mm512_cvtpd_ps((__m512d)v); }
#elif defined(PK_AVX2)
PK_INLINE F64 widen(HalfF32 v) { return (F64)_mm256_cvtps_pd((__m128)v); }
PK_INLINE HalfF32 narrow(F64 v) { return (HalfF32)_mm256_cvtpd_ps((__m256d)v); }
#else
PK_INLINE F64 widen(HalfF32 v) { return __builtin_convertvector(v, F64); }
PK_INLINE HalfF32 narrow(F64 v) { return __builtin_convertvector(v, HalfF32); }
#endif

// as many numbers at p as Vec<T> holds, in T
template <class T> PK_INLINE Vec<T> load_as(const T* p) { return load(p); }
template <class T>
PK_INLINE Vec<T> load_as(const float* p)
  requires(sizeof(T) == sizeof(double))
{
  HalfF32 half;
  __builtin_memcpy(&half, p, sizeof half);
  return widen(half);
}

// the floats of v from `first` on, as many as fit, in Vec<T>
template <class T> PK_INLINE Vec<T> part_of(F32 v, int first) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return v;
  } else {
    HalfF32 half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return widen(half[first / lanes<double>]);
  }
}

// v from now on in a register: the compiler would rather load it again for each use
template <class V> PK_INLINE void hold(V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
}

// -- the same bits seen as another type

PK_INLINE I32 bits(F32 v) { return (I32)v; }
PK_INLINE I64 bits(F64 v) { return (I64)v; }
PK_INLINE F32 from_bits(I32 v) { return (F32)v; }
PK_INLINE F32 from_bits(U32 v) { return (F32)v; }
PK_INLINE F64 from_bits(I64 v) { return (F64)v; }

// -- arithmetic: fma is a true fused multiply-add on every set, fnma that of -a; min and max give b where a lane is nan

#if defined(PK_AVX512)
PK_INLINE F32 fma(F32 a, F32 b, F32 c) { return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
PK_INLINE F64 fma(F64 a, F64 b, F64 c) { return (F64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
PK_INLINE F64 fnma(F64 a, F64 b, F64 c) { return (F64)_mm512_fnmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
PK_INLINE F32 sqrt(F32 a) { return (F32)_mm512_sqrt_ps((__m512)a); }
PK_INLINE F64 sqrt(F64 a) { return (F64)_mm512_sqrt_pd((__m512d)a); }
PK_INLINE F32 min(F32 a, F32 b) { return (F32)_mm512_min_ps((__m512)a, (__m512)b); }
PK_INLINE F64 min(F64 a, F64 b) { return (F64)_mm512_min_pd((__m512d)a, (__m512d)b); }
PK_INLINE F32 max(F32 a, F32 b) { return (F32)_mm512_max_ps((__m512)a, (__m512)b); }
PK_INLINE F64 max(F64 a, F64 b) { return (F64)_mm512_max_pd((__m512d)a, (__m512d)b); }
PK_INLINE I32 round_to_int(F32 a) { return (I32)_mm512_cvtps_epi32((__m512)a); }
PK_INLINE F32 round_even(F32 a) { return (F32)_mm512_roundscale_ps((__m512)a, 8); }
PK_INLINE F64 round_even(F64 a) { return (F64)_mm512_roundscale_pd((__m512d)a, 8); }
PK_INLINE U64 mul_even(U64 a, U64 b) { return (U64)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif defined(PK_AVX2)
PK_INLINE F32 fma(F32 a, F32 b, F32 c) { return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
PK_INLINE F64 fma(F64 a, F64 b, F64 c) { return (F64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
PK_INLINE F64 fnma(F64 a, F64 b, F64 c) { return (F64)_mm256_fnmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
PK_INLINE F32 sqrt(F32 a) { return (F32)_mm256_sqrt_ps((__m256)a); }
PK_INLINE F64 sqrt(F64 a) { return (F64)_mm256_sqrt_pd((__m256d)a); }
PK_INLINE F32 min(F32 a, F32 b) { return (F32)_mm256_min_ps((__m256)a, (__m256)b); }
PK_INLINE F64 min(F64 a, F64 b) { return (F64)_mm256_min_pd((__m256d)a, (__m256d)b); }
PK_INLINE F32 max(F32 a, F32 b) { return (F32)_mm256_max_ps((__m256)a, (__m256)b); }
PK_INLINE F64 max(F64 a, F64 b) { return (F64)_mm256_max_pd((__m256d)a, (__m256d)b); }
PK_INLINE I32 round_to_int(F32 a) { return (I32)_mm256_cvtps_epi32((__m256)a); }
PK_INLINE F32 round_even(F32 a) { return (F32)_mm256_round_ps((__m256)a, 8); }
PK_INLINE F64 round_even(F64 a) { return (F64)_mm256_round_pd((__m256d)a, 8); }
PK_INLINE U64 mul_even(U64 a, U64 b) { return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#else
PK_INLINE F32 fma(F32 a, F32 b, F32 c) {
  F32 r;
  for (int i = 0; i < lanes<float>; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
PK_INLINE F64 fma(F64 a, F64 b, F64 c) {
  F64 r;
  for (int i = 0; i < lanes<double>; i++) r[i] = __builtin_fma(a[i], b[i], c[i]);
  return r;
}
PK_INLINE F64 fnma(F64 a, F64 b, F64 c) { return fma(-a, b, c); }
#if defined(__SSE2__)
PK_INLINE F32 sqrt(F32 a) { return __builtin_ia32_sqrtps(a); }
PK_INLINE F64 sqrt(F64 a) { return __builtin_ia32_sqrtpd(a); }
PK_INLINE U64 mul_even(U64 a, U64 b) {
  typedef int32_t Words __attribute__((vector_size(16)));
  return (U64)__builtin_ia32_pmuludq128((Words)a, (Words)b);
}
#else
PK_INLINE F32 sqrt(F32 a) {
  for (int i = 0; i < lanes<float>; i++) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
PK_INLINE F64 sqrt(F64 a) {
  for (int i = 0; i < lanes<double>; i++) a[i] = __builtin_sqrt(a[i]);
  return a;
}
PK_INLINE U64 mul_even(U64 a, U64 b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif
PK_INLINE F32 min(F32 a, F32 b) { return a < b ? a : b; }
PK_INLINE F64 min(F64 a, F64 b) { return a < b ? a : b; }
PK_INLINE F32 max(F32 a, F32 b) { return a > b ? a : b; }
PK_INLINE F64 max(F64 a, F64 b) { return a > b ? a : b; }
// adding and taking away 1.5 ulp(1) 2^.. leaves the nearest integer, ties to even; the sign is put back for -0
PK_INLINE F32 round_even(F32 a) {
  const I32 sign = (I32)a & INT32_MIN;
  const F32 magnitude = (F32)((I32)a & INT32_MAX);
  const F32 rounded = (magnitude + 0x1p23f) - 0x1p23f;
  return magnitude < 0x1p23f ? (F32)((I32)rounded | sign) : a;
}
PK_INLINE F64 round_even(F64 a) {
  const I64 sign = (I64)a & INT64_MIN;
  const F64 magnitude = (F64)((I64)a & INT64_MAX);
  const F64 rounded = (magnitude + 0x1p52) - 0x1p52;
  return magnitude < 0x1p52 ? (F64)((I64)rounded | sign) : a;
}
PK_INLINE I32 round_to_int(F32 a) { return __builtin_convertvector(round_even(a), I32); }
#endif

PK_INLINE F32 abs(F32 a) { return (F32)((I32)a & INT32_MAX); }
PK_INLINE F64 abs(F64 a) { return (F64)((I64)a & INT64_MAX); }
PK_INLINE F32 copysign(F32 a, F32 sign) { return (F32)(((I32)a & INT32_MAX) | ((I32)sign & INT32_MIN)); }
PK_INLINE F64 copysign(F64 a, F64 sign) { return (F64)(((I64)a & INT64_MAX) | ((I64)sign & INT64_MIN)); }
PK_INLINE F32 select(I32 mask, F32 a, F32 b) { return mask ? a : b; }
PK_INLINE F64 select(I64 mask, F64 a, F64 b) { return mask ? a : b; }

// -- integers and floats. float: the full range of int32; double: |value| < 2^51 (no instruction before AVX-512)

PK_INLINE F32 to_float(I32 a) { return __builtin_convertvector(a, F32); }
PK_INLINE I32 truncate_to_int(F32 a) { return __builtin_convertvector(a, I32); }
PK_INLINE F64 to_float(I64 a) { return (F64)(a + (int64_t)0x4338000000000000) - 0x1.8p52; }
PK_INLINE I64 round_to_int(F64 a) { return (I64)(a + 0x1.8p52) - (int64_t)0x4338000000000000; }

// -- 32-bit words held in 64-bit lanes, even and odd ones apart: back to one vector from the low or the high halves of
// both

#if defined(PK_AVX512)
PK_INLINE U32 interleave_low(U64 even, U64 odd) {
  return (U32)_mm512_mask_shuffle_epi32((__m512i)even, 0xaaaa, (__m512i)odd, _MM_PERM_CCAA);
}
PK_INLINE U32 interleave_high(U64 even, U64 odd) {
  return (U32)_mm512_mask_shuffle_epi32((__m512i)odd, 0x5555, (__m512i)even, _MM_PERM_DDBB);
}
#elif defined(PK_AVX2)
PK_INLINE U32 interleave_low(U64 even, U64 odd) {
  return (U32)_mm256_blend_epi32((__m256i)even, (__m256i)(odd << 32), 0xaa);
}
PK_INLINE U32 interleave_high(U64 even, U64 odd) {
  return (U32)_mm256_blend_epi32((__m256i)(even >> 32), (__m256i)odd, 0xaa);
}
#else
PK_INLINE U32 interleave_low(U64 even, U64 odd) { return (U32)((even & 0xffffffffu) | (odd << 32)); }
PK_INLINE U32 interleave_high(U64 even, U64 odd) { return (U32)((even >> 32) | (odd & 0xffffffff00000000u)); }
#endif

// the numbers of a vector's lanes within a virtual one
template <class T> PK_INLINE Vec<T> lane_numbers(int vector) {
  Vec<T> v;
  for (int i = 0; i < lanes<T>; i++) v[i] = (T)(vector * lanes<T> + i);
  return v;
}

// -- over the lanes of a virtual vector: lane j + lane j+8, then +4, +2, +1; v holds panel_vectors<T> vectors

template <class T> PK_INLINE T sum_lanes(const Vec<T>* v) {
  typedef T Quarter __attribute__((vector_size(16)));
  constexpr int n = panel_lanes * sizeof(T) / 16, per = 16 / sizeof(T);
  Quarter q[n];
  __builtin_memcpy(q, v, sizeof q);
  if constexpr (n == 8) q[0] += q[4], q[1] += q[5], q[2] += q[6], q[3] += q[7];
  q[0] += q[2], q[1] += q[3];
  const Quarter s = q[0] + q[1];
  if constexpr (per == 4) return (s[0] + s[2]) + (s[1] + s[3]);
  return s[0] + s[1];
}
// From a and b, which hold groups of 2 w numbers: the first (high = 0) or last (high = 1) w of each group of a, beside
// those of b's.
template <int w, int high, class V, int... j> PK_INLINE V halves_of_groups(V a, V b, std::integer_sequence<int, j...>) {
  return __builtin_shufflevector(a, b, (j / w % 2 * (int)sizeof...(j) + j / (2 * w) * (2 * w) + high * w + j % w)...);
}
template <class T, int w = lanes<T> / 2> PK_INLINE void transpose(Vec<T>* v) {  // lanes<T> rows of lanes<T> numbers
  constexpr auto sequence = std::make_integer_sequence<int, lanes<T>>();
#pragma GCC unroll 16
  for (int i = 0; i < lanes<T>; i++)
    if (!(i & w)) {
      const Vec<T> a = v[i], b = v[i + w];
      v[i] = halves_of_groups<w, 0>(a, b, sequence), v[i + w] = halves_of_groups<w, 1>(a, b, sequence);
    }
  if constexpr (w > 1) transpose<T, w / 2>(v);
}
template <class T, int w>
PK_INLINE void fold_lanes(Vec<T>* v) {  // v[i] holds 2 w partial sums of row i, of row i + 2 w, ...
  constexpr auto sequence = std::make_integer_sequence<int, lanes<T>>();
#pragma GCC unroll 8
  for (int i = 0; i < w; i++)
    v[i] = halves_of_groups<w, 0>(v[i], v[i + w], sequence) + halves_of_groups<w, 1>(v[i], v[i + w], sequence);
  if constexpr (w > 1) fold_lanes<T, w / 2>(v);
}
// lanes<T> such sums, of the rows r[0], r[stride], ... of 16 (or `width`) numbers: the same tree, transposed
template <class T, int width = panel_lanes> PK_INLINE Vec<T> sum_lanes_of(const T* r, int64_t stride) {
  constexpr int n = lanes<T>, vectors = width / n;
  Vec<T> v[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; i++) {
    Vec<T> part[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++) part[j] = load(r + i * stride + j * n);
#pragma GCC unroll 3
    for (int w = vectors / 2; w; w /= 2)
#pragma GCC unroll 4
      for (int j = 0; j < w; j++) part[j] += part[j + w];
    v[i] = part[0];
  }
  fold_lanes<T, n / 2>(v);
  return v[0];
}
template <class T> PK_INLINE T max_lanes(const Vec<T>* v) {  // of numbers without nan
  Vec<T> m = v[0];
  for (int i = 1; i < panel_vectors<T>; i++) m = max(m, v[i]);
  T best = m[0];
  for (int i = 1; i < lanes<T>; i++) best = best > m[i] ? best : m[i];
  return best;
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
