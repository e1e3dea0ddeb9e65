// What the machine can do at most, measured with the project's own instructions: the ceilings that bench/ compares
// kernels with. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

namespace pykernel {

// They return a number that depends on all the work, so that none of it can be left out. One thread each.
struct Roofline {
  float (*multiply_add)(int64_t n);  // n fused multiply-adds of 16 lanes, in registers: 32 n operations
  float (*draw)(
      int64_t n);  // n normals, n rounded up to a multiple of 1024, summed in registers: the stream without a product
  float (*read)(const float* x, int64_t n);  // n numbers, n a multiple of 128, read in order and summed
};

const Roofline& roofline_table();  // of the instruction set in use

#ifdef PYKERNEL_ISA_NAMESPACE
namespace PYKERNEL_ISA_NAMESPACE {
const Roofline& roofline();
}
#endif

}  // namespace pykernel
