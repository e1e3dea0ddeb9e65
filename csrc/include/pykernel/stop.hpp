// How a long call learns that it should end: it asks, on the calling thread, between layers and within long products.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace pykernel {

struct Stop {
  bool (*ask)(void* user) = nullptr;  // true: end soon. Null: never.
  void* user = nullptr;
};

}  // namespace pykernel
