// SPDX-License-Identifier: BSD-3-Clause
// The version of the library, for those who link it.
#pragma once

namespace pykernel {

// "major.minor.patch", as in pyproject.toml.
const char* version();

}  // namespace pykernel
