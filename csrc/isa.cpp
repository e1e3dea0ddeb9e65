// Asks the processor once.
// SPDX-License-Identifier: BSD-3-Clause
#include "isa.hpp"

#include <stdlib.h>
#include <string.h>

namespace pykernel {

#define PYKERNEL_DECLARE(isa)                     \
  namespace isa {                                 \
  const Elementwise<float>& elementwise(float);   \
  const Elementwise<double>& elementwise(double); \
  const Products<float>& products(float);         \
  const Products<double>& products(double);       \
  }
PYKERNEL_DECLARE(baseline)
#ifdef PYKERNEL_X86
PYKERNEL_DECLARE(avx2)
PYKERNEL_DECLARE(avx512)
#endif

namespace {

struct Isa {
  const char* name;
  const Elementwise<float>& (*floats)(float);
  const Elementwise<double>& (*doubles)(double);
  const Products<float>& (*float_products)(float);
  const Products<double>& (*double_products)(double);
};

Isa choose() {
#ifdef PYKERNEL_X86
  const char* wanted = getenv("PYKERNEL_ISA");
  const auto takes = [&](const char* name) { return !wanted || !*wanted || !strcmp(wanted, name); };
  if (takes("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return {"avx512", avx512::elementwise, avx512::elementwise, avx512::products, avx512::products};
  if ((takes("avx2") || takes("avx512")) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {"avx2", avx2::elementwise, avx2::elementwise, avx2::products, avx2::products};
#endif
  return {"baseline", baseline::elementwise, baseline::elementwise, baseline::products, baseline::products};
}
const Isa& chosen() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace

const char* isa_name() { return chosen().name; }
template <> const Elementwise<float>& elementwise_table<float>() { return chosen().floats(0); }
template <> const Elementwise<double>& elementwise_table<double>() { return chosen().doubles(0); }
template <> const Products<float>& product_table<float>() { return chosen().float_products(0); }
template <> const Products<double>& product_table<double>() { return chosen().double_products(0); }

}  // namespace pykernel
