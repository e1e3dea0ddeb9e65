// SPDX-License-Identifier: BSD-3-Clause
// The ceilings of the instruction set in use.
#include "kernels/roofline.hpp"

#include <string.h>

#include "isa.hpp"

namespace pykernel {

namespace baseline {
const Roofline& roofline();
}
#ifdef PYKERNEL_HAS_avx2
namespace avx2 {
const Roofline& roofline();
}
#endif
#ifdef PYKERNEL_HAS_avx512
namespace avx512 {
const Roofline& roofline();
}
#endif

const Roofline& roofline_table() {
#ifdef PYKERNEL_HAS_avx512
  if (!strcmp(isa_name(), "avx512")) return avx512::roofline();
#endif
#ifdef PYKERNEL_HAS_avx2
  if (!strcmp(isa_name(), "avx2")) return avx2::roofline();
#endif
  return baseline::roofline();
}

}  // namespace pykernel
