// Several vectors that go through the same arithmetic side by side, so that long chains of dependent operations fill the pipes.
// SPDX-License-Identifier: BSD-3-Clause
//
// A polynomial of one vector after the other waits for each fused multiply-add (4 cycles, two a cycle) as soon as the chains in flight
// outgrow the register file behind the 16 names. Eight vectors in step do not wait: normals cost 2.1 instead of 2.7 cycles (AMD Zen 3).
#pragma once
#include "simd-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr int bundle_size = 8;
#define PK_EACH _Pragma("GCC unroll 8") for (int i = 0; i < bundle_size; i++)
template <class V> struct Bundle {
  V v[bundle_size];
};
using F32s = Bundle<F32>;
using I32s = Bundle<I32>;
using U32s = Bundle<U32>;

#define PK_BINARY(op)                                                                               \
  template <class V> PK_INLINE Bundle<V> operator op(const Bundle<V>& a, const Bundle<V>& b) {      \
    Bundle<V> r;                                                                                    \
    PK_EACH r.v[i] = a.v[i] op b.v[i];                                                              \
    return r;                                                                                       \
  }                                                                                                 \
  template <class V, class S> PK_INLINE Bundle<V> operator op(const Bundle<V>& a, S b) {            \
    Bundle<V> r;                                                                                    \
    PK_EACH r.v[i] = a.v[i] op b;                                                                   \
    return r;                                                                                       \
  }
PK_BINARY(+) PK_BINARY(-) PK_BINARY(*) PK_BINARY(^) PK_BINARY(&) PK_BINARY(>>) PK_BINARY(<<)
#undef PK_BINARY

template <class To, class V> PK_INLINE Bundle<To> as(const Bundle<V>& a) {  // the same bits
  Bundle<To> r;
  PK_EACH r.v[i] = (To)a.v[i];
  return r;
}
#define PK_UNARY(name, From, To)               \
  PK_INLINE Bundle<To> name(const Bundle<From>& a) { \
    Bundle<To> r;                              \
    PK_EACH r.v[i] = name(a.v[i]);             \
    return r;                                  \
  }
PK_UNARY(sqrt, F32, F32) PK_UNARY(abs, F32, F32) PK_UNARY(round_even, F32, F32)
PK_UNARY(to_float, I32, F32) PK_UNARY(round_to_int, F32, I32)
#undef PK_UNARY

PK_INLINE F32s fma(const F32s& a, const F32s& b, float c) {
  F32s r;
  PK_EACH r.v[i] = fma(a.v[i], b.v[i], broadcast(c));
  return r;
}
PK_INLINE F32s fma(const F32s& a, float b, float c) {
  F32s r;
  PK_EACH r.v[i] = fma(a.v[i], broadcast(b), broadcast(c));
  return r;
}
PK_INLINE F32s fma(const F32s& a, float b, const F32s& c) {
  F32s r;
  PK_EACH r.v[i] = fma(a.v[i], broadcast(b), c.v[i]);
  return r;
}
PK_INLINE F32s fma(const F32s& a, const F32s& b, const F32s& c) {
  F32s r;
  PK_EACH r.v[i] = fma(a.v[i], b.v[i], c.v[i]);
  return r;
}
PK_INLINE F32s clamp(const F32s& a, float low, float high) {
  F32s r;
  PK_EACH r.v[i] = min(max(a.v[i], broadcast(low)), broadcast(high));
  return r;
}
PK_INLINE F32s at_least(const F32s& a, float low) {
  F32s r;
  PK_EACH r.v[i] = max(a.v[i], broadcast(low));
  return r;
}
template <int n> PK_INLINE F32s polynomial(const float (&c)[n], const F32s& x) {  // lowest power first
  F32s y;
  PK_EACH y.v[i] = broadcast(c[n - 1]);
#pragma GCC unroll 8
  for (int j = n - 2; j >= 0; j--) y = fma(y, x, c[j]);
  return y;
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
