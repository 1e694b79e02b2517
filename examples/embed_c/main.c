/* Sensor readings in, prediction out. usage: embed_c MODEL_DIR STATE_DIR */
#include <selvage/selvage.h>
#include <stdio.h>
#include <stdlib.h>

static void check(selvage_code code) {
  if (code == SELVAGE_OK) return;
  fprintf(stderr, "%s: %s\n", selvage_code_name(code), selvage_last_error());
  exit(1);
}

static void* load(const char* directory, const char* name, uint64_t* size) {
  char path[512];
  void* data = calloc(1, 1 << 16);
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE* file = fopen(path, "rb");
  if (file != NULL) *size = fread(data, 1, 1 << 16, file);
  return data;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  char cache[512];
  snprintf(cache, sizeof cache, "%s/cache", argv[2]);
  selvage_options options = {.struct_size = sizeof options, .cache_dir = cache};
  options.state_dir = argv[2];
  options.population = "wearables";
  selvage_client* client = NULL;
  check(selvage_open(&options, &client));

  selvage_model_files files = {.struct_size = sizeof files};
  files.plan = load(argv[1], "plan.json", &files.plan_size);
  files.program = load(argv[1], "program.json", &files.program_size);
  files.checkpoint = load(argv[1], "model.safetensors", &files.checkpoint_size);
  check(selvage_install_model(client, &files));

  for (int i = 0; i < 90; ++i) { /* how this owner rests, walks and runs */
    const int64_t what = i % 3;
    const float r = (float)(i % 10) / 20, reading[4] = {(float)what - 1 + r, r, -r, r - (float)what};
    const selvage_tensor inputs[2] = {
        {.struct_size = sizeof inputs[0], .data = reading, .size = sizeof reading},
        {.struct_size = sizeof inputs[0], .data = &what, .size = sizeof what}};
    const selvage_example example = {.struct_size = sizeof example, .inputs = inputs, .input_count = 2};
    check(selvage_add_example(client, "motion", &example, NULL));
  }
  check(selvage_train_locally(client, "activity", NULL, NULL, NULL)); /* or selvage_run_once */

  static const char* const names[3] = {"resting", "walking", "running"};
  const float now[4] = {1.2F, 0.2F, -0.2F, -1.8F};
  selvage_prediction* answer = NULL;
  check(selvage_predict(client, "activity", now, sizeof now, 1, &answer));
  for (int i = 0; i < 3; ++i) printf("%s %.2f\n", names[i], (double)answer->values[i]);
  selvage_free(answer);
  selvage_close(client);
  return 0;
}
