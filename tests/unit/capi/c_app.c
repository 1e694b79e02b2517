/* A host in C99: opens a client with an engine of its own, installs a model,
 * adds examples, trains offline and predicts. usage: c_app MODEL_DIR STATE_DIR
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/capi/tiny_engine.h"

static void check(selvage_code code, const char* what) {
  if (code == SELVAGE_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, selvage_code_name(code),
          selvage_last_error());
  exit(1);
}

static void* read_file(const char* directory, const char* name,
                       uint64_t* size) {
  char path[1024];
  FILE* file;
  char* data = malloc(1 << 16);
  snprintf(path, sizeof path, "%s/%s", directory, name);
  file = fopen(path, "rb");
  if (file == NULL || data == NULL) {
    fprintf(stderr, "cannot read %s\n", path);
    exit(1);
  }
  *size = fread(data, 1, 1 << 16, file);
  fclose(file);
  return data;
}

int main(int argc, char** argv) {
  tiny_engine state = {0};
  selvage_engine engine = tiny_engine_table(&state);
  selvage_options options = {.struct_size = sizeof options};
  selvage_model_files files = {.struct_size = sizeof files};
  selvage_client* client = NULL;
  selvage_prediction* prediction = NULL;
  selvage_model* model = NULL;
  uint64_t steps = 0;
  uint64_t count = 0;
  char cache[1024];
  const float input[4] = {1, 1, 2, 0.5F};

  if (argc != 3) return 2;
  snprintf(cache, sizeof cache, "%s-cache", argv[2]);
  options.state_dir = argv[2];
  options.cache_dir = cache;
  options.population = "demo";
  options.engine = &engine;
  check(selvage_open(&options, &client), "open");

  files.plan = read_file(argv[1], "plan.json", &files.plan_size);
  files.program = read_file(argv[1], "program.json", &files.program_size);
  files.checkpoint =
      read_file(argv[1], "model.safetensors", &files.checkpoint_size);
  check(selvage_install_model(client, &files), "install_model");
  check(selvage_install_model(client, &files), "install_model again");

  /* y = 3 x0 - 2 x1 + 1 */
  for (int i = 0; i < 60; ++i) {
    const float x[2] = {(float)(i % 7) / 7.0F, (float)(i % 5) / 5.0F};
    const float y = 3 * x[0] - 2 * x[1] + 1;
    const int64_t shape[1] = {2};
    selvage_tensor inputs[2] = {{.struct_size = sizeof inputs[0]},
                                {.struct_size = sizeof inputs[0]}};
    selvage_example example = {.struct_size = sizeof example};
    int64_t id = 0;
    inputs[0].dtype = SELVAGE_F32;
    inputs[0].data = x;
    inputs[0].size = sizeof x;
    inputs[0].shape = shape;
    inputs[0].rank = 1;
    inputs[1].data = &y; /* dtype ANY: just bytes */
    inputs[1].size = sizeof y;
    example.inputs = inputs;
    example.input_count = 2;
    check(selvage_add_example(client, "readings", &example, &id), "add");
  }
  check(selvage_count_examples(client, "readings", &count), "count");
  check(selvage_train_locally(client, "tiny", NULL, NULL, &steps), "train");
  check(selvage_get_model(client, "tiny", &model), "get_model");
  check(selvage_predict(client, "tiny", input, sizeof input, 2, &prediction),
        "predict");
  printf("examples %d, steps %s, personal %d, metric %s\n", (int)count,
         steps > 0 ? "some" : "none", (int)model->personal_serving,
         model->metrics[0]);
  for (uint64_t i = 0; i < prediction->value_count; ++i) {
    printf("prediction %.1f\n", (double)prediction->values[i]);
  }
  selvage_free(model);
  selvage_free(prediction);
  selvage_free(NULL);
  free((void*)files.plan);
  free((void*)files.program);
  free((void*)files.checkpoint);
  selvage_close(client);
  if (state.models != 0 || state.closed != 1) {
    fprintf(stderr, "%d models left, closed %d times\n", state.models,
            state.closed);
    return 1;
  }
  return 0;
}
