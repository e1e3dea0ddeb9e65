// Asks the processor once.
// SPDX-License-Identifier: BSD-3-Clause
#include "isa.hpp"

#include <stdlib.h>
#include <string.h>

#include <stdexcept>
#include <string>

namespace pykernel {

#define PYKERNEL_DECLARE(isa)                                                    \
  namespace isa {                                                                \
  const Elementwise<float>& elementwise(float);                                  \
  const Elementwise<double>& elementwise(double);                                \
  const Products<float>& products(float);                                        \
  const Products<double>& products(double);                                      \
  const MatrixFree<float>& matrix_free(float);                                   \
  const MatrixFree<double>& matrix_free(double);                                 \
  const Algebra& algebra();                                                      \
  const Mixing<float>& mixing(float);                                            \
  const Mixing<double>& mixing(double);                                          \
  SingleSums single(const Single&, const Activation<float>&, int64_t, int64_t);  \
  SingleSums single(const Single&, const Activation<double>&, int64_t, int64_t); \
  }
PYKERNEL_DECLARE(baseline)
#ifdef PYKERNEL_HAS_avx2
PYKERNEL_DECLARE(avx2)
#endif
#ifdef PYKERNEL_HAS_avx512
PYKERNEL_DECLARE(avx512)
#endif

namespace {

#define PYKERNEL_ISA_OF(isa)                                                                                    \
  Isa {                                                                                                         \
    #isa, isa::elementwise, isa::elementwise, isa::products, isa::products, isa::matrix_free, isa::matrix_free, \
        isa::algebra, isa::mixing, isa::mixing, isa::single, isa::single                                        \
  }

std::vector<Isa> ask() {
  std::vector<Isa> usable;
#ifdef PYKERNEL_HAS_avx512
  // GCC's answer is no also where the system does not save the wide registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    usable.push_back(PYKERNEL_ISA_OF(avx512));
#endif
#ifdef PYKERNEL_HAS_avx2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) usable.push_back(PYKERNEL_ISA_OF(avx2));
#endif
  usable.push_back(PYKERNEL_ISA_OF(baseline));
  return usable;
}

const Isa& choose() {
  const char* wanted = getenv("PYKERNEL_ISA");
  if (!wanted || !*wanted) return usable_isas().front();
  std::string names;
  for (const Isa& isa : usable_isas()) {
    if (!strcmp(wanted, isa.name)) return isa;
    names += names.empty() ? isa.name : std::string(", ") + isa.name;
  }
  throw std::invalid_argument("PYKERNEL_ISA must be one of " + names + " on this machine, got " + wanted);
}
const Isa& chosen() {
  static const Isa& isa = choose();
  return isa;
}

}  // namespace

const std::vector<Isa>& usable_isas() {
  static const std::vector<Isa> usable = ask();
  return usable;
}
const char* isa_name() { return chosen().name; }
template <> const Elementwise<float>& elementwise_table<float>() { return chosen().floats(0); }
template <> const Elementwise<double>& elementwise_table<double>() { return chosen().doubles(0); }
template <> const Products<float>& product_table<float>() { return chosen().float_products(0); }
template <> const Products<double>& product_table<double>() { return chosen().double_products(0); }
template <> const MatrixFree<float>& matrix_free_table<float>() { return chosen().float_matrix_free(0); }
template <> const MatrixFree<double>& matrix_free_table<double>() { return chosen().double_matrix_free(0); }
const Algebra& algebra_table() { return chosen().algebra(); }
template <> const Mixing<float>& mixing_table<float>() { return chosen().float_mixing(0); }
template <> const Mixing<double>& mixing_table<double>() { return chosen().double_mixing(0); }
template <> SingleKernel<float> single_kernel<float>() { return chosen().float_single; }
template <> SingleKernel<double> single_kernel<double>() { return chosen().double_single; }

}  // namespace pykernel
