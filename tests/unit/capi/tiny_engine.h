/* An engine of a host's own, in C99: linear regression by stochastic gradient
 * descent. Programs: `native: linear` with tensors weight f32 [n] and bias f32
 * [1], inputs x f32 [n] and y f32 [], metric squared_error. */
#ifndef SELVAGE_TESTS_UNIT_CAPI_TINY_ENGINE_H_
#define SELVAGE_TESTS_UNIT_CAPI_TINY_ENGINE_H_

#include "client/capi/selvage.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tiny_engine {
  int models;           /* loaded and not yet unloaded */
  int closed;           /* times */
  selvage_code fail_at; /* what train returns, unless it is OK */
  int bad_prediction;   /* 1: nothing, 2: another shape */
} tiny_engine;

selvage_engine tiny_engine_table(tiny_engine* state);

#ifdef __cplusplus
}
#endif

#endif
