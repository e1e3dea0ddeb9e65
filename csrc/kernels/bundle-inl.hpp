// Several vectors that go through the same arithmetic side by side, so that long chains of dependent operations fill
// the pipes. SPDX-License-Identifier: BSD-3-Clause
//
// A polynomial of one vector after the other waits for each fused multiply-add (4 cycles, two a cycle) as soon as the
// chains in flight outgrow the registers behind the 16 names. Four vectors in step wait less and fit those names; eight
// spill (AMD Zen 3: 3.1 against 3.3 cycles a normal with a busy neighbour, one at a time 3.7).
#pragma once
#include "kernels/simd-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr int bundle_size = 4;
#define PK_EACH _Pragma("GCC unroll 8") for (int i = 0; i < n; i++)
template <class V, int n = bundle_size> struct Bundle {
  V v[n];
};
template <int n = bundle_size> using F32s = Bundle<F32, n>;
template <int n = bundle_size> using I32s = Bundle<I32, n>;
template <int n = bundle_size> using U32s = Bundle<U32, n>;

#define PK_BINARY(op)                                                                                          \
  template <class V, int n> PK_INLINE Bundle<V, n> operator op(const Bundle<V, n>& a, const Bundle<V, n>& b) { \
    Bundle<V, n> r;                                                                                            \
    PK_EACH r.v[i] = a.v[i] op b.v[i];                                                                         \
    return r;                                                                                                  \
  }                                                                                                            \
  template <class V, int n, class S> PK_INLINE Bundle<V, n> operator op(const Bundle<V, n>& a, S b) {          \
    Bundle<V, n> r;                                                                                            \
    PK_EACH r.v[i] = a.v[i] op b;                                                                              \
    return r;                                                                                                  \
  }
PK_BINARY(+)
PK_BINARY(-)
PK_BINARY(*)
PK_BINARY(^)
PK_BINARY(&)
PK_BINARY(>>)
PK_BINARY(<<)
#undef PK_BINARY

template <class To, class V, int n> PK_INLINE Bundle<To, n> as(const Bundle<V, n>& a) {  // the same bits
  Bundle<To, n> r;
  PK_EACH r.v[i] = (To)a.v[i];
  return r;
}
#define PK_UNARY(name, From, To)                                            \
  template <int n> PK_INLINE Bundle<To, n> name(const Bundle<From, n>& a) { \
    Bundle<To, n> r;                                                        \
    PK_EACH r.v[i] = name(a.v[i]);                                          \
    return r;                                                               \
  }
PK_UNARY(sqrt, F32, F32)
PK_UNARY(abs, F32, F32)
PK_UNARY(round_even, F32, F32)
PK_UNARY(to_float, I32, F32)
PK_UNARY(round_to_int, F32, I32)
#undef PK_UNARY

template <int n> PK_INLINE F32 part(const F32s<n>& a, int i) { return a.v[i]; }
template <int n> PK_INLINE F32 part(float a, int) { return broadcast(a); }
template <int n, class B, class C>
PK_INLINE F32s<n> fma(const F32s<n>& a, const B& b, const C& c) {  // b and c bundles or numbers
  F32s<n> r;
  PK_EACH r.v[i] = fma(a.v[i], part<n>(b, i), part<n>(c, i));
  return r;
}
template <int n> PK_INLINE F32s<n> clamp(const F32s<n>& a, float low, float high) {
  F32s<n> r;
  PK_EACH r.v[i] = min(max(a.v[i], broadcast(low)), broadcast(high));
  return r;
}
template <int n> PK_INLINE F32s<n> at_least(const F32s<n>& a, float low) {
  F32s<n> r;
  PK_EACH r.v[i] = max(a.v[i], broadcast(low));
  return r;
}
template <int terms, int n>
PK_INLINE F32s<n> polynomial(const float (&c)[terms], const F32s<n>& x) {  // lowest power first
  F32s<n> y;
  PK_EACH y.v[i] = broadcast(c[terms - 1]);
#pragma GCC unroll 8
  for (int j = terms - 2; j >= 0; j--) y = fma(y, x, c[j]);
  return y;
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
