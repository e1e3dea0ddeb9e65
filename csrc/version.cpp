// SPDX-License-Identifier: BSD-3-Clause
// Hands out the version that the build read from pyproject.toml.
#include "pykernel/version.hpp"

namespace pykernel {

const char* version() { return PYKERNEL_VERSION; }

}  // namespace pykernel
