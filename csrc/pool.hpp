// The one room where threads live: parked between calls, safe after fork and from several callers.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <functional>

namespace pykernel {

// body(0) .. body(threads - 1) at the same time, each on its own thread. The caller waits and runs `poll` about thirty
// times a second; what it throws is thrown here after all bodies have ended (it is the caller's part to make them end),
// as is the first exception of a body.
void run_on_threads(int threads, const std::function<void(int)>& body, const std::function<void()>& poll);

}  // namespace pykernel
