// What unit tests (*.test.cpp, each beside what it tests) say where something does not hold.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdio.h>
#include <stdlib.h>

#define EXPECT(holds)                                                     \
  do {                                                                    \
    if (!(holds)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #holds); \
      exit(1);                                                            \
    }                                                                     \
  } while (0)
#define EXPECT_THROWS(type, what) \
  do {                            \
    bool thrown = false;          \
    try {                         \
      what;                       \
    } catch (const type&) {       \
      thrown = true;              \
    }                             \
    EXPECT(thrown);               \
  } while (0)
