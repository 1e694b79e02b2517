#include "tests/unit/capi/tiny_engine.h"

#include <stdlib.h>
#include <string.h>

typedef struct model {
  tiny_engine* engine;
  uint64_t width;
  float values[64]; /* weight, then bias */
} model;

static float forward(const model* m, const float* x) {
  float y = m->values[m->width];
  for (uint64_t i = 0; i < m->width; ++i) y += m->values[i] * x[i];
  return y;
}

static void engines(void* user, void (*add)(void* list, const char* name),
                    void* list) {
  (void)user;
  add(list, "native:linear");
}

static selvage_code load(void* user, const selvage_program* program, void** out,
                         selvage_engine_error* error) {
  model* m;
  if (program->kind != SELVAGE_PROGRAM_NATIVE ||
      strcmp(program->native_name, "linear") != 0) {
    strcpy(error->text, "only native:linear is known here");
    return SELVAGE_NOT_FOUND;
  }
  if (program->tensor_count != 2 || program->int_count != 0 ||
      program->float_count > 64 || program->input_count != 2 ||
      program->inputs[0].size != (program->float_count - 1) * sizeof(float) ||
      program->inputs[1].dtype != SELVAGE_F32 || program->metric_count != 1 ||
      strcmp(program->tensors[0].name, "weight") != 0 ||
      program->tensors[1].offset != program->float_count - 1) {
    strcpy(error->text, "this is no linear program");
    return SELVAGE_INVALID_ARGUMENT;
  }
  m = calloc(1, sizeof *m);
  if (m == NULL) return SELVAGE_RESOURCE_EXHAUSTED;
  m->engine = user;
  m->width = program->float_count - 1;
  ++m->engine->models;
  *out = m;
  return SELVAGE_OK;
}

static void unload(void* user) {
  model* m = user;
  --m->engine->models;
  free(m);
}

static selvage_code set_values(void* user, const float* floats,
                               const int64_t* ints,
                               selvage_engine_error* error) {
  model* m = user;
  (void)ints;
  (void)error;
  memcpy(m->values, floats, (m->width + 1) * sizeof *floats);
  return SELVAGE_OK;
}

static selvage_code get_values(void* user, float* floats, int64_t* ints,
                               selvage_engine_error* error) {
  const model* m = user;
  (void)ints;
  (void)error;
  memcpy(floats, m->values, (m->width + 1) * sizeof *floats);
  return SELVAGE_OK;
}

static selvage_code train(void* user, const selvage_example_set* examples,
                          const selvage_training* training,
                          selvage_training_report* report,
                          selvage_engine_error* error) {
  model* m = user;
  const float* x = examples->inputs[0];
  const float* y = examples->inputs[1];
  const float rate = (float)training->learning_rate;
  (void)error;
  if (m->engine->fail_at != SELVAGE_OK) return m->engine->fail_at;
  for (int32_t epoch = 0; epoch < training->epochs; ++epoch) {
    double loss = 0;
    for (uint64_t i = 0; i < examples->count; ++i) {
      const float* row = x + i * m->width;
      const float off = forward(m, row) - y[i];
      if (!training->keep_going(training->user)) {
        return SELVAGE_CANCELLED;
      }
      for (uint64_t k = 0; k < m->width; ++k) {
        m->values[k] -= rate * off * row[k];
      }
      m->values[m->width] -= rate * off;
      loss += (double)(off * off);
      ++report->steps;
    }
    report->mean_loss = loss / (double)examples->count;
  }
  return SELVAGE_OK;
}

static selvage_code score(void* user, const selvage_example_set* examples,
                          float* scores, selvage_engine_error* error) {
  const model* m = user;
  const float* x = examples->inputs[0];
  const float* y = examples->inputs[1];
  (void)error;
  for (uint64_t i = 0; i < examples->count; ++i) {
    const float off = forward(m, x + i * m->width) - y[i];
    scores[i] = off * off;
  }
  return SELVAGE_OK;
}

static selvage_code predict(void* user, uint64_t count, const void* input,
                            uint64_t size, selvage_prediction_sink sink,
                            void* sink_user, selvage_engine_error* error) {
  const model* m = user;
  const float* x = input;
  int64_t shape[1];
  float* values;
  selvage_code code;
  (void)size;
  (void)error;
  if (m->engine->bad_prediction == 1) return SELVAGE_OK;
  values = malloc(count * sizeof *values);
  if (values == NULL) return SELVAGE_RESOURCE_EXHAUSTED;
  for (uint64_t i = 0; i < count; ++i) {
    values[i] = forward(m, x + i * m->width);
  }
  shape[0] = (int64_t)count + (m->engine->bad_prediction == 2 ? 1 : 0);
  code = sink(sink_user, shape, 1, values);
  free(values);
  return code;
}

static void close_engine(void* user) { ++((tiny_engine*)user)->closed; }

selvage_engine tiny_engine_table(tiny_engine* state) {
  selvage_engine table = {.struct_size = sizeof table};
  table.user = state;
  table.engines = engines;
  table.load = load;
  table.unload = unload;
  table.set_values = set_values;
  table.get_values = get_values;
  table.train = train;
  table.score = score;
  table.predict = predict;
  table.close = close_engine;
  return table;
}
