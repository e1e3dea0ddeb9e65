// SPDX-License-Identifier: BSD-3-Clause
// The C door over the C++ one.
#include "pykernel/pykernel.h"
#include "pykernel/version.hpp"

int pk_abi_version(void) { return PK_ABI_VERSION; }

const char* pk_version(void) { return pykernel::version(); }
