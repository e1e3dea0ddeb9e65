// The dense engine: every weight drawn by address (or kept), or the caller's own, or one of the few that need no product.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "run.hpp"

namespace pykernel {

// keep_bytes: for draws kept between the passes, of all workers together; half as many where a whole network does not fit
template <class T> MakeLinear<T> make_dense(int64_t keep_bytes);

}  // namespace pykernel
