// One input through a matrix-free layer, both ways at once: all that a layer contributes is a handful of sums over its
// units. SPDX-License-Identifier: BSD-3-Clause
//
// Node l of the chain holds z = sigma g + bias and a = phi(z); what comes back to it is alpha a + beta h, with g and h
// drawn by address and alpha, beta known only later. Every observable is a polynomial in alpha and beta whose
// coefficients are these sums (docs/matrix-free.md).
#pragma once
#include <stdint.h>

#include "kernels/elementwise.hpp"

namespace pykernel {

struct Single {
  uint64_t seed;
  uint32_t replica;
  uint32_t g, h, bias;                // layer | purpose << 24 of each
  double sigma, h_scale, bias_scale;  // no bias where bias_scale is 0
  bool uniform_bias;
  double threshold;          // slopes below count as saturated
  const double* parameters;  // of the activation
};

// Sums over units of z, z^2, ... : A = a phi'(z), H = h phi'(z); gA is the sum of g A, and so on.
struct SingleSums {
  enum Name { z, zz, a, aa, ah, hh, AA, AH, HH, gA, gH, saturated, dead, count };
  double of[count];
  double operator[](Name name) const { return of[name]; }
};

// Sums over chunk `chunk` (64 panels) of n units.
template <class T>
using SingleKernel = SingleSums (*)(const Single& node, const Activation<T>& phi, int64_t chunk, int64_t n);

#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
SingleSums single(const Single& node, const Activation<float>& phi, int64_t chunk, int64_t n);
SingleSums single(const Single& node, const Activation<double>& phi, int64_t chunk, int64_t n);
}  // namespace PYKERNEL_ISA_NAMESPACE
#endif

}  // namespace pykernel
