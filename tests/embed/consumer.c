/* SPDX-License-Identifier: BSD-3-Clause */
/* A C program on the shared library. */
#include <pykernel/pykernel.h>
#include <stdio.h>

int main(void) {
  if (pk_abi_version() != PK_ABI_VERSION) {
    fprintf(stderr, "the library has ABI version %d, the header %d\n", pk_abi_version(), PK_ABI_VERSION);
    return 1;
  }
  printf("%s\n", pk_version());
  return 0;
}
