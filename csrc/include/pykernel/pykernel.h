/* SPDX-License-Identifier: BSD-3-Clause */
/* The C door: plain types, status codes, memory of the caller. For C, Fortran, Julia, ctypes. */
#ifndef PYKERNEL_PYKERNEL_H
#define PYKERNEL_PYKERNEL_H

#if defined(__GNUC__)
#define PK_API __attribute__((visibility("default")))
#else
#define PK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Counts incompatible changes of this header; compare it with what pk_abi_version() of the loaded library says. */
#define PK_ABI_VERSION 0

PK_API int pk_abi_version(void);

/* "major.minor.patch" of the library; static storage. */
PK_API const char* pk_version(void);

#ifdef __cplusplus
}
#endif

#endif
