// SPDX-License-Identifier: BSD-3-Clause
// A C++ program on the static library.
#include <cstdio>
#include <pykernel/version.hpp>

int main() {
  std::printf("%s\n", pykernel::version());
  return 0;
}
