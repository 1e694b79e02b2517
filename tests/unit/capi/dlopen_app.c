/* Opens and closes libselvage.so at run time, with a client in between each
 * time. usage: dlopen_app LIBRARY STATE_DIR */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "client/capi/selvage.h"

typedef selvage_code (*open_function)(const selvage_options*, selvage_client**);
typedef void (*close_function)(selvage_client*);

/* ISO C has no conversion from data to function pointers. */
static int find(void* library, const char* name, void* function) {
  void* symbol = dlsym(library, name);
  memcpy(function, &symbol, sizeof symbol);
  return symbol != NULL;
}

int main(int argc, char** argv) {
  int i;
  char cache[4096];
  void* first = NULL;
  if (argc != 3) return 2;
  snprintf(cache, sizeof cache, "%s/cache", argv[2]);
  for (i = 0; i < 100; ++i) {
    open_function open_client;
    close_function close_client;
    selvage_client* client = NULL;
    selvage_options options = {.struct_size = sizeof options};
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
      fprintf(stderr, "%s\n", dlerror());
      return 1;
    }
    if (!find(library, "selvage_open", &open_client) ||
        !find(library, "selvage_close", &close_client)) {
      fprintf(stderr, "no selvage_open, selvage_close\n");
      return 1;
    }
    options.state_dir = argv[2];
    options.cache_dir = cache;
    options.population = "demo";
    if (open_client(&options, &client) != SELVAGE_OK) {
      fprintf(stderr, "round %d: it does not open\n", i);
      return 1;
    }
    close_client(client);
    if (dlclose(library) != 0) return 1;
    /* Still there, where it was. */
    library = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
    if (library == NULL || (first != NULL && library != first)) {
      fprintf(stderr, "round %d: dlclose unloaded it\n", i);
      return 1;
    }
    first = library;
    dlclose(library);
  }
  return 0;
}
