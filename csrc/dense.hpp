// The dense engine: every weight drawn by address (or kept), or the caller's own, or one of the few that need no product.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "run.hpp"

namespace pykernel {

template <class T> MakeLinear<T> make_dense();

}  // namespace pykernel
