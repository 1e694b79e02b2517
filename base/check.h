// SELVAGE_CHECK: for bugs, never for input. Stays on in release builds.
#pragma once

#include <cstdio>
#include <cstdlib>

#define SELVAGE_CHECK(condition)                                          \
  do {                                                                    \
    if (!(condition)) [[unlikely]] {                                      \
      std::fprintf(stderr, "%s:%d: SELVAGE_CHECK(%s) failed\n", __FILE__, \
                   __LINE__, #condition);                                 \
      std::abort();                                                       \
    }                                                                     \
  } while (false)
