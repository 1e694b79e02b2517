/* clang-format off */
/* Selvage on a device: adapts a model to its owner and takes part in federated
 * rounds when the host says so. C99; the ABI is stable within a SONAME.
 *
 *   selvage_options options = {.struct_size = sizeof options};
 *   options.state_dir = "/var/lib/my-app/selvage";
 *   options.cache_dir = "/var/cache/my-app/selvage";
 *   options.population = "my-app";
 *   options.enrolment_bundle = bundle;
 *   selvage_client* client = NULL;
 *   if (selvage_open(&options, &client) != SELVAGE_OK) {
 *     puts(selvage_last_error());
 *   }
 *
 * Rules, for every function here:
 *
 * - Scheduling. The library never schedules itself, has no timers, and starts no
 *   thread of its own (gRPC has some while there is a connection).
 *   selvage_run_once does one session at most and says when to call again.
 *
 * - Threads. One call at a time for each client; a second one beside it is
 *   FAILED_PRECONDITION and changes nothing. Exceptions: selvage_predict from
 *   any number of threads beside any call, and selvage_cancel_now from anywhere.
 *   Clients are independent of each other. selvage_close waits for the calls of
 *   other threads (cancel them first) and lets no more in; nobody may use the
 *   handle once it has returned.
 *
 * - Callbacks arrive on the thread that made the call, during it, and never
 *   while the library holds a lock that selvage_predict needs. They may block
 *   (their call waits for them; predictions go on, and selvage_cancel_now ends
 *   the call once they return) and may fail where they return a code. They must
 *   not call back into the same client, except selvage_cancel_now: that is
 *   FAILED_PRECONDITION, and selvage_close does nothing then. They must not throw
 *   C++ exceptions or longjmp.
 *
 * - Errors. Functions return a selvage_code. If it is not SELVAGE_OK,
 *   selvage_last_error() is a sentence about it, for the same thread, until its
 *   next call into the library; output arguments are as they were. A NULL where
 *   an object is required, a handle of another kind, or a struct_size that makes
 *   no sense is INVALID_ARGUMENT. Using a handle after its destruction is a bug
 *   of the host, as with free(). Everything that happens in the world (no
 *   network, a late round) is an outcome, not an error.
 *
 * - Ownership. Arguments are borrowed for the call and copied if kept, except
 *   those that say "must outlive". Results given through a T** are one
 *   allocation, the caller's, with everything they point to: give them to
 *   selvage_free. Handles have functions of their own.
 *
 * - Text is UTF-8 and ends with a zero byte. In options, NULL stands for "".
 *
 * - Structs begin with struct_size: sizeof what you compiled against. Zero every
 *   byte you do not set; a zero means the default. A newer library reads an
 *   older struct, and an older library refuses a newer one whose new bytes are
 *   not all zero (INVALID_ARGUMENT) instead of ignoring what you asked for. In
 *   arrays of structs all elements have the struct_size of the first; step
 *   through arrays that the library gives by it. Enums only ever grow: treat a
 *   value you do not know as "other".
 *
 * - Processes. fork() while no client is open: the child may open its own. While
 *   one is open: in the child every call on it is FAILED_PRECONDITION, and
 *   selvage_close does nothing; the parent is not disturbed. If that client had
 *   a session, other clients in the child cannot have one (gRPC's threads stay
 *   with the parent): FAILED, with that reason, until exec. Do not fork during a
 *   call of another thread, but for exec. The library cannot be unloaded:
 *   dlclose leaves it where it is.
 *
 * - TLS. The first selvage_open limits every TLS connection that this process
 *   opens through OpenSSL afterwards to TLS 1.3 (gRPC has no setter for it): call
 *   it before other threads use OpenSSL.
 */
/* clang-format on */
#ifndef SELVAGE_SELVAGE_H_
#define SELVAGE_SELVAGE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SELVAGE_API
#else
#define SELVAGE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Versions, errors, memory ---------------------------------------------
 */

/* Major in the upper 16 bits (the SONAME's), minor in the lower: the minor
 * grows with what is added. */
#define SELVAGE_ABI_VERSION 0x00000002u
SELVAGE_API uint32_t selvage_abi_version(void);
/* "0.1.0"; lives for ever. */
SELVAGE_API const char* selvage_version(void);

/* gRPC's canonical codes, number for number. */
typedef int32_t selvage_code;
enum {
  SELVAGE_OK = 0,
  SELVAGE_CANCELLED = 1,
  SELVAGE_UNKNOWN = 2,
  SELVAGE_INVALID_ARGUMENT = 3,
  SELVAGE_DEADLINE_EXCEEDED = 4,
  SELVAGE_NOT_FOUND = 5,
  SELVAGE_ALREADY_EXISTS = 6,
  SELVAGE_PERMISSION_DENIED = 7,
  SELVAGE_RESOURCE_EXHAUSTED = 8,
  SELVAGE_FAILED_PRECONDITION = 9,
  SELVAGE_ABORTED = 10,
  SELVAGE_OUT_OF_RANGE = 11,
  SELVAGE_UNIMPLEMENTED = 12,
  SELVAGE_INTERNAL = 13,
  SELVAGE_UNAVAILABLE = 14,
  SELVAGE_DATA_LOSS = 15,
  SELVAGE_UNAUTHENTICATED = 16
};
/* "INVALID_ARGUMENT"; lives for ever. Any thread. */
SELVAGE_API const char* selvage_code_name(selvage_code code);

/* Why the last call of this thread failed: lower case, no full stop, "" if it
 * did not fail. Valid until this thread's next call into the library. */
SELVAGE_API const char* selvage_last_error(void);

/* Frees a result of this library (never a handle); NULL is allowed. Any
 * thread. */
SELVAGE_API void selvage_free(void* result);

/* ---- Cancelling -----------------------------------------------------------
 */

typedef struct selvage_cancel selvage_cancel;

/* One token may serve many calls, one after the other or at once. */
SELVAGE_API selvage_code selvage_cancel_create(selvage_cancel** out);
/* Stops the calls that were given `cancel`, and every later one: training
 * within one step, a transfer within 20 ms. Thread-safe, also from callbacks;
 * not from a signal handler. NULL is INVALID_ARGUMENT. */
SELVAGE_API selvage_code selvage_cancel_now(selvage_cancel* cancel);
/* No call may be using it any more. NULL is allowed. */
SELVAGE_API void selvage_cancel_destroy(selvage_cancel* cancel);

/* ---- Tensors and programs -------------------------------------------------
 */

enum {
  SELVAGE_DTYPE_ANY = 0, /* bytes as they are; the program says what they are */
  SELVAGE_F32 = 1,
  SELVAGE_I64 = 2,
  SELVAGE_U8 = 3
};

/* Little-endian, row-major, without padding. */
typedef struct selvage_tensor {
  uint32_t struct_size;
  int32_t dtype;
  const void* data;
  uint64_t size; /* bytes */
  /* With a dtype other than ANY: `size` must be what dtype and shape say. */
  const int64_t* shape;
  uint32_t rank;
} selvage_tensor;

enum {
  SELVAGE_ROLE_SHARED = 1,       /* averaged */
  SELVAGE_ROLE_BUFFER_FLOAT = 2, /* averaged, e.g. BatchNorm statistics */
  SELVAGE_ROLE_BUFFER_INT = 3,   /* not averaged */
  SELVAGE_ROLE_PERSONAL = 4,     /* never leaves the device */
  SELVAGE_ROLE_FROZEN = 5        /* never changes */
};

/* One tensor of a model. Values travel as two flat arrays: every f32 tensor,
 * then every i64 tensor, each in table order. */
typedef struct selvage_tensor_spec {
  uint32_t struct_size;
  int32_t dtype; /* SELVAGE_F32 or SELVAGE_I64 */
  int32_t role;
  uint32_t rank;
  const int64_t* shape;
  const char* name;
  uint64_t count;  /* elements */
  uint64_t offset; /* first element in its flat array */
} selvage_tensor_spec;

/* One input, without the batch dimension. */
typedef struct selvage_input_spec {
  uint32_t struct_size;
  int32_t dtype;
  const char* name;
  const int64_t* shape;
  uint32_t rank;
  uint64_t size; /* bytes of one example */
} selvage_input_spec;

enum {
  SELVAGE_PROGRAM_SOURCE = 1,  /* TorchScript source */
  SELVAGE_PROGRAM_ARCHIVE = 2, /* a TorchScript archive */
  SELVAGE_PROGRAM_NATIVE = 3   /* an architecture of the engine's, by name */
};

typedef struct selvage_program {
  uint32_t struct_size;
  int32_t kind;
  const char* source;      /* SOURCE */
  const char* native_name; /* NATIVE */
  const void* archive;     /* ARCHIVE; its digest has not been checked */
  uint64_t archive_size;
  const char* json; /* all of it, as the plan's digest covers it */
  uint64_t json_size;
  const selvage_tensor_spec* tensors;
  uint64_t tensor_count;
  uint64_t float_count; /* elements of the flat arrays */
  uint64_t int_count;
  const selvage_input_spec* inputs;
  const char* const* metrics; /* columns of the scores */
  uint32_t input_count;
  uint32_t metric_count;
} selvage_program;

/* ---- Engines --------------------------------------------------------------
 *
 * What computes. LibTorch comes in libselvage-torch.so and is loaded when it is
 * first needed; a host that brings its own engine fills in this table.
 *
 * Functions return a selvage_code and say why in `error`. The codes that
 * matter: CANCELLED (keep_going said no), DEADLINE_EXCEEDED (a step took too
 * long), OUT_OF_RANGE (a loss or score is not finite), RESOURCE_EXHAUSTED
 * (memory), PERMISSION_DENIED (the program does what is not permitted),
 * INVALID_ARGUMENT (the program or the values make no sense), NOT_FOUND (no
 * such native architecture); all others: INTERNAL.
 */

typedef struct selvage_engine_error {
  uint32_t struct_size;
  char text[1020]; /* ends with a zero byte; empty when called */
} selvage_engine_error;

/* `count` examples: inputs[i] holds those of program.inputs[i], one after
 * another. */
typedef struct selvage_example_set {
  uint32_t struct_size;
  uint32_t input_count;
  uint64_t count;
  const void* const* inputs;
  const uint64_t* input_sizes; /* bytes */
} selvage_example_set;

/* Where an interrupted training goes on; understood by its engine alone. */
typedef struct selvage_training_checkpoint {
  uint32_t struct_size;
  uint64_t steps; /* done */
  const void* state;
  uint64_t state_size; /* bytes */
} selvage_training_checkpoint;

enum { SELVAGE_SGD = 1, SELVAGE_ADAM = 2, SELVAGE_ADAMW = 3 };

/* What an engine's train can do besides the least (selvage_engine.
 * training_features). A plan that needs what is not declared is refused before
 * train is called. */
enum {
  SELVAGE_TRAINS_NESTEROV = 1,          /* nesterov */
  SELVAGE_TRAINS_ADAMW = 2,             /* optimizer ADAMW */
  SELVAGE_TRAINS_CLIP = 4,              /* clip_norm */
  SELVAGE_TRAINS_RATE_FACTOR = 8,       /* rate_factor */
  SELVAGE_TRAINS_STEP_COUNT = 16,       /* step_count */
  SELVAGE_TRAINS_EARLY_STOP = 32,       /* stop_patience, stop_min_delta */
  SELVAGE_TRAINS_SHARED_PROXIMAL = 64,  /* proximal_shared_only */
  SELVAGE_TRAINS_OPTIMIZER_STATE = 128, /* optimizer_state, save_optimizer */
  SELVAGE_TRAINS_CORRECTION = 256       /* correction */
};

typedef struct selvage_training {
  uint32_t struct_size;
  int32_t epochs;
  int32_t batch_size; /* the last batch of an epoch may be smaller */
  int32_t optimizer;
  double learning_rate;
  double momentum; /* SGD */
  double beta1;    /* Adam */
  double beta2;
  double epsilon;
  double weight_decay;
  uint64_t seed; /* same seed, values and examples: the same result */
  /* Indices into program.tensors of what to train; the rest stays as it is. */
  const uint64_t* trainable;
  uint64_t trainable_count;
  int32_t update_buffers; /* else the BUFFER tensors stay as they are too */
  /* Adds mu/2 ||w - w_start||^2 to the loss over what is trained; w_start: the
   * values when train is called. An engine that cannot must refuse mu > 0. */
  double proximal_mu;
  int64_t step_time_max_us;
  int32_t threads; /* of one operator; 0: the engine's choice */
  void* user;      /* first argument of the functions below */
  /* Ask it before every step; 0: stop with CANCELLED. */
  int32_t (*keep_going)(void* user);
  /* Not NULL: go on after it, so that the result is that of a training which
   * nothing interrupted. FAILED_PRECONDITION if it is no checkpoint of this
   * training. An engine without checkpoints never gets one. */
  const selvage_training_checkpoint* resume;
  /* May be NULL, and may be ignored. Before every step but the first, ask
   * `checkpoint_due`; if it is not 0, and before a stop by `keep_going`, give a
   * checkpoint to `save_checkpoint`, which copies it. */
  int32_t (*checkpoint_due)(void* user);
  void (*save_checkpoint)(void* user,
                          const selvage_training_checkpoint* checkpoint);
  /* From here on: zero unless the engine declared that it can. */
  /* Not NULL: the learning rate of step `step`, from 0, is learning_rate times
   * this. */
  double (*rate_factor)(void* user, uint64_t step);
  /* > 0: the gradient of a step, over all that is trained together and with the
   * proximal term, before weight decay and momentum, is scaled by
   * min(1, clip_norm / its L2 norm). */
  double clip_norm;
  /* > 0: so many steps, over as many passes as it takes, instead of epochs. */
  uint64_t step_count;
  /* > 0: stop when this many epochs in a row did not bring the mean loss of an
   * epoch below the least one before by more than stop_min_delta; say so in
   * stopped_early. */
  double stop_min_delta;
  int32_t stop_patience;
  int32_t nesterov; /* 1: SGD with Nesterov's momentum */
  /* 1: the proximal term is over trained tensors of role SHARED alone. */
  int32_t proximal_shared_only;
  int32_t reserved;
  /* Not NULL: the optimizer begins with this, which save_optimizer got from an
   * earlier training, maybe of another process, with the same kind of optimizer
   * and the same trained tensors; FAILED_PRECONDITION, and nothing is trained,
   * if it is none of that. Look at it not at all with `resume`. */
  const void* optimizer_state;
  uint64_t optimizer_state_size; /* bytes */
  /* Not NULL: give it the optimizer's state after the last step, once, unless
   * the training fails. Copies. */
  void (*save_optimizer)(void* user, const void* state, uint64_t size);
  /* Not NULL: program.float_count numbers, each added to the gradient of that
   * element in every step, before everything else (SCAFFOLD). */
  const float* correction;
  uint64_t correction_count;
} selvage_training;

typedef struct selvage_training_report {
  uint32_t struct_size;
  uint64_t steps;
  double mean_loss;      /* over the steps of the last epoch */
  int32_t stopped_early; /* 1: before its epochs or steps were done */
  int32_t reserved;
} selvage_training_report;

/* Takes a prediction; `shape` has `rank` dimensions, the first of them
 * examples. Call it once. Copies. */
typedef selvage_code (*selvage_prediction_sink)(void* sink_user,
                                                const int64_t* shape,
                                                uint32_t rank,
                                                const float* values);

/* engines, load: from any thread, at once too. The others: one at a time for
 * each model. */
typedef struct selvage_engine {
  uint32_t struct_size;
  void* user; /* first argument of close, engines and load */
  /* Calls `add` with every engine and architecture, e.g. "libtorch/1.13",
   * "native:lenet5": what the coordinator matches tasks against. */
  void (*engines)(void* user, void (*add)(void* list, const char* name),
                  void* list);
  /* Checks a program and gives a model of it, its values all zero. Nothing of
   * the program may run before it was checked. */
  selvage_code (*load)(void* user, const selvage_program* program, void** model,
                       selvage_engine_error* error);
  void (*unload)(void* model);
  /* Arrays of program.float_count and program.int_count. */
  selvage_code (*set_values)(void* model, const float* floats,
                             const int64_t* ints, selvage_engine_error* error);
  selvage_code (*get_values)(void* model, float* floats, int64_t* ints,
                             selvage_engine_error* error);
  /* At least one example. After an error the values are unspecified. */
  selvage_code (*train)(void* model, const selvage_example_set* examples,
                        const selvage_training* training,
                        selvage_training_report* report,
                        selvage_engine_error* error);
  /* scores: [count, program.metric_count], row-major; evaluation mode. */
  selvage_code (*score)(void* model, const selvage_example_set* examples,
                        float* scores, selvage_engine_error* error);
  /* forward() of `count` first inputs, `size` bytes; evaluation mode. */
  selvage_code (*predict)(void* model, uint64_t count, const void* input,
                          uint64_t size, selvage_prediction_sink sink,
                          void* sink_user, selvage_engine_error* error);
  /* May be NULL. After every model was unloaded; `user` is not used again. */
  void (*close)(void* user);
  uint64_t training_features; /* SELVAGE_TRAINS_... bits */
} selvage_engine;

/* What an engine in a shared object of its own exports: the function
 * `selvage_engine_plugin`. `abi_version` is that of the library which loads it.
 * `engine` arrives zeroed but for struct_size. */
typedef selvage_code (*selvage_engine_plugin_function)(
    uint32_t abi_version, selvage_engine* engine, selvage_engine_error* error);

/* ---- Opening --------------------------------------------------------------
 */

enum {
  SELVAGE_LOG_DEBUG = 1,
  SELVAGE_LOG_INFO = 2,
  SELVAGE_LOG_WARNING = 3,
  SELVAGE_LOG_ERROR = 4
};

enum {
  SELVAGE_THERMAL_NOMINAL = 0,
  SELVAGE_THERMAL_FAIR = 1,
  SELVAGE_THERMAL_SERIOUS = 2,
  SELVAGE_THERMAL_CRITICAL = 3
};

/* The state of the device. */
typedef struct selvage_conditions {
  uint32_t struct_size;
  int32_t charging;
  int32_t unmetered; /* the network costs nothing */
  int32_t idle;      /* nobody uses the device */
  double battery;    /* 0..1 */
  int32_t thermal;
} selvage_conditions;

/* "May the examples of `collection` be used for `task`?" Asked once for each
 * session and task; not by selvage_train_locally, which the host asked for. */
typedef struct selvage_consent_request {
  uint32_t struct_size;
  int32_t upload; /* 1: for an update that is sent; 0: for what stays here */
  const char* task;
  const char* collection;
} selvage_consent_request;

enum {
  SELVAGE_PHASE_ENROLLING = 0,
  SELVAGE_PHASE_CHECKING_IN = 1,
  SELVAGE_PHASE_FETCHING = 2,
  SELVAGE_PHASE_TRAINING = 3, /* also while a checkpoint is evaluated */
  SELVAGE_PHASE_UPLOADING = 4,
  SELVAGE_PHASE_PERSONALIZING = 5
};
typedef struct selvage_progress {
  uint32_t struct_size;
  int32_t phase;
  const char* task; /* "" before there is work */
  uint64_t step;    /* training steps begun, of how many; 0 in other phases */
  uint64_t steps;
} selvage_progress;

/* Every one may be NULL; `user` is the first argument of each. Copied;
 * whatever `user` points to must outlive the client. */
typedef struct selvage_callbacks {
  uint32_t struct_size;
  int32_t log_level; /* events below are not reported; 0: INFO */
  void* user;
  /* Fills in `out`, which arrives describing a device that nothing
   * holds back.
   * Asked before every training step and between chunks of a transfer. Anything
   * but SELVAGE_OK is taken for a device that is too hot: nothing goes on.
   * NULL: nothing ever holds the device back. */
  selvage_code (*conditions)(void* user, selvage_conditions* out);
  /* 1: yes; anything else: no. NULL: yes. */
  int32_t (*consent)(void* user, const selvage_consent_request* request);
  void (*progress)(void* user, const selvage_progress* progress);
  /* The key that seals the store, from a keystore of the platform: 32 bytes,
   * the same every time. Called by selvage_open; an error fails it. NULL: a
   * 0600 file in state_dir, which keeps out nobody who can read that directory.
   */
  selvage_code (*storage_key)(void* user, uint8_t key[32]);
  /* One event as one line without its end: `event=... key=value`. Control
   * characters are escaped. Never holds examples, tensors, tokens or keys. */
  void (*log)(void* user, int32_t level, const char* line);
  /* For tests: microseconds since 1970, and random bytes. Asked from
   * selvage_predict's threads too. */
  int64_t (*now_us)(void* user);
  void (*random)(void* user, uint8_t* out, size_t size);

  /* Since ABI 0.2: a P-256 key of the platform's keystore that is who this
   * device is. Both or neither. With it the library makes a TLS key for one day
   * at a time, in state_dir, and has its certificate asked for with a signature
   * of this key: what is stolen from state_dir is worth a day.
   *
   * ECDSA over `digest` (SHA-256, not to be hashed again): r and s, 32 bytes
   * each, big-endian, not DER. Called by selvage_run_once, about once a day; it
   * may block, for a minute at most: what comes later is not used. Anything but
   * SELVAGE_OK ends the session with SELVAGE_FAILED and its name: UNAVAILABLE
   * (the keystore is locked) keeps its work and is tried again, and so is what
   * is not worth a code of its own, as INTERNAL. */
  selvage_code (*sign)(void* user, const uint8_t digest[32],
                       uint8_t signature[64]);
  /* Its public key, copied: DER SubjectPublicKeyInfo (91 bytes), or the
   * uncompressed point (65). The same every time: under another key, or none,
   * the enrolment is not used, sessions say so, and only a new bundle makes the
   * device enrol again, as another one. */
  const uint8_t* identity_public_key;
  uint64_t identity_public_key_size;
} selvage_callbacks;

/* Examples that stay where the host has them, instead of the library's store:
 * then only these are trained on. The ids say what is held out: the same
 * example has the same id every time, and no other example has it ever. */
typedef struct selvage_sourced_example {
  uint32_t struct_size;
  uint32_t input_count;
  const selvage_tensor* inputs; /* yours until the next call */
  uint64_t id;
  int64_t timestamp_us; /* as in selvage_example */
  uint32_t flags;
} selvage_sourced_example;
typedef struct selvage_data_source {
  uint32_t struct_size;
  void* user;
  /* Begins with the first example of `collection`, in any order. */
  selvage_code (*open)(void* user, const char* collection, void** iterator);
  /* The next one. OUT_OF_RANGE: there are no more; CANCELLED interrupts the
   * session, every other error fails it. */
  selvage_code (*next)(void* iterator, selvage_sourced_example* out);
  void (*close)(void* iterator);
} selvage_data_source;

/* What this device demands of every plan that asks for an update, whatever the
 * coordinator says; zero demands nothing. What is below the floor is declined,
 * with a reason that both sides can read. */
typedef struct selvage_privacy_floor {
  uint32_t struct_size;
  int32_t min_cohort;                 /* updates in a sum, at least */
  int32_t require_secure_aggregation; /* 1: no plan of this version has it */
  int32_t epochs_max;
  double clip_norm_max;        /* updates are clipped to this norm, or less */
  int32_t uploads_per_day_max; /* counted durably */
  uint32_t collection_count;
  const char* const* collections; /* that may train updates; none: all */
  /* Ed25519 keys, 32 bytes each, one after another: those of the enrolment that
   * may sign plans; none: all of them. */
  const uint8_t* plan_keys;
  uint32_t plan_key_count;
} selvage_privacy_floor;

/* 0: no limit. A day is a UTC day; counted durably. */
typedef struct selvage_limits {
  uint32_t struct_size;
  int32_t threads_max;          /* of one operator while training */
  uint64_t metered_bytes_daily; /* while the network costs */
  uint64_t unmetered_bytes_daily;
  uint64_t cpu_ms_daily;
  /* Training whose estimate is above it is refused before it starts. */
  uint64_t memory_bytes;
  uint64_t store_bytes; /* of state_dir's store, models included; 0: 1 GiB */
  /* Of cache_dir; 0: 256 MiB. What a model being fetched needs stays. */
  uint64_t cache_bytes;
} selvage_limits;

enum {
  /* Accept a coordinator without TLS on this machine. For tests. */
  SELVAGE_OPEN_INSECURE_LOOPBACK = 1
};

typedef struct selvage_options {
  uint32_t struct_size;
  uint32_t flags; /* SELVAGE_OPEN_... */
  /* Keys, examples, model slots, what is to be sent. Created 0700. Keep it. */
  const char* state_dir;
  /* May be deleted at any time. Not state_dir. */
  const char* cache_dir;
  const char* population; /* [a-z0-9-]{1,64} */
  /* JSON as `selvage token create` prints it: endpoint, the CA to trust, and
   * credentials. Needed until the first enrolment; then kept in state_dir. */
  const char* enrolment_bundle;
  const char* device_name;  /* wished id; "": the coordinator chooses */
  const char* device_class; /* told to the coordinator, e.g. "gateway" */
  const char* app_version;  /* likewise */
  const selvage_callbacks* callbacks;
  /* The host's own engine; copied, but what it points to must outlive the
   * client. Its close is called by selvage_close, not if selvage_open fails.
   * NULL: the plug-in. */
  const selvage_engine* engine;
  /* File of an engine plug-in. "": libselvage-torch.so, beside this library or
   * where the loader finds it. Opened when first needed; until then its absence
   * is no error. */
  const char* engine_library;
  const selvage_privacy_floor* floor;     /* NULL: demands nothing */
  const selvage_limits* limits;           /* NULL: none */
  const selvage_data_source* data_source; /* NULL: the library's store */
} selvage_options;

typedef struct selvage_client selvage_client;

/* Creates or opens the state directory; never touches the network, and does
 * not load the engine. *out is for selvage_close.
 * FAILED_PRECONDITION: another process (or client) has it open, it belongs to
 * another population, a newer version made it, or the storage key is not the
 * one it was sealed with. INVALID_ARGUMENT names the option. A damaged store is
 * set aside, with an event, and a new one is made. */
SELVAGE_API selvage_code selvage_open(const selvage_options* options,
                                      selvage_client** out);
/* Ends the connection and lets go of the state directory. NULL is allowed.
 * Waits for calls of other threads. In a callback of this client's, and in a
 * forked child, it does nothing and selvage_last_error() says so. */
SELVAGE_API void selvage_close(selvage_client* client);

/* ---- Models ---------------------------------------------------------------
 */

/* What `selvage pull` writes, and the plan. Sizes in bytes. */
typedef struct selvage_model_files {
  uint32_t struct_size;
  const char* plan; /* JSON */
  uint64_t plan_size;
  const char* program; /* JSON */
  uint64_t program_size;
  const void* archive; /* only if the program is an archive */
  uint64_t archive_size;
  const void* checkpoint; /* safetensors */
  uint64_t checkpoint_size;
} selvage_model_files;

/* A model that ships with the app, so that selvage_predict and
 * selvage_train_locally work before the first contact. Trusted, because the
 * host gives it. A newer version that came from the coordinator stays.
 * INVALID_ARGUMENT: malformed, or for another population; DATA_LOSS: the
 * digests do not fit together; FAILED_PRECONDITION: the engine refuses it. */
SELVAGE_API selvage_code
selvage_install_model(selvage_client* client, const selvage_model_files* files);

/* forward() of the serving model on `count` first inputs; wait-free beside
 * training. NOT_FOUND if no model of `task` is installed, INVALID_ARGUMENT if
 * `size` is not what `count` examples have. */
typedef struct selvage_prediction {
  uint32_t struct_size;
  uint32_t rank;
  const int64_t* shape; /* first dimension: examples */
  const float* values;
  uint64_t value_count;
  /* Since ABI 0.2: whose answer it is. */
  uint64_t version; /* of the global model; 0: the one the app installed */
  int32_t personal; /* 1: the personal model, 0: the global one */
} selvage_prediction;
SELVAGE_API selvage_code selvage_predict(selvage_client* client,
                                         const char* task, const void* input,
                                         uint64_t size, uint64_t count,
                                         selvage_prediction** out);

typedef struct selvage_model {
  uint32_t struct_size;
  int32_t
      personal_serving; /* 1: the personal model serves, 0: the global one */
  const char* task;
  uint64_t version; /* of the global model; 0: the one the app installed */
  uint64_t holdout_count; /* examples kept aside for the scores */
  const char* const* metrics;
  uint64_t metric_count;
  /* Means over the hold-out, metric_count each; NULL: no such model or no
   * hold-out. */
  const double* global_scores;
  const double* personal_scores;
  const double* alone_scores; /* local-only training, if the plan asks for it */
  /* After repeated crashes nothing is trained until then; what serves goes on.
   */
  int32_t training_paused;
  int64_t paused_until_us;
} selvage_model;
/* FAILED_PRECONDITION if no model of `task` is installed. */
SELVAGE_API selvage_code selvage_get_model(selvage_client* client,
                                           const char* task,
                                           selvage_model** out);

typedef struct selvage_names {
  uint32_t struct_size;
  const char* const* names;
  uint64_t count;
} selvage_names;
/* The tasks whose models are installed, sorted. */
SELVAGE_API selvage_code selvage_list_tasks(selvage_client* client,
                                            selvage_names** out);

enum {
  SELVAGE_SLOT_SERVING = 0,
  SELVAGE_SLOT_GLOBAL = 1,
  SELVAGE_SLOT_PERSONAL = 2,
  SELVAGE_SLOT_ALONE = 3 /* trained on this device only; for reports */
};
typedef struct selvage_scores {
  uint32_t struct_size;
  const double* values; /* means, one for each metric of the model */
  uint64_t count;
} selvage_scores;
/* Scores a model on `count` examples that are neither stored nor sent: one
 * tensor for each input of the program, each with all examples. NOT_FOUND if
 * the slot is empty, FAILED_PRECONDITION if no model of `task` is installed. */
SELVAGE_API selvage_code selvage_evaluate(selvage_client* client,
                                          const char* task, int32_t slot,
                                          const selvage_tensor* inputs,
                                          uint32_t input_count, uint64_t count,
                                          selvage_scores** out);

/* ---- Examples -------------------------------------------------------------
 */

/* One tensor of an example of a collection. */
typedef struct selvage_tensor_schema {
  uint32_t struct_size;
  int32_t dtype;    /* not ANY */
  const char* name; /* [A-Za-z0-9_.-]{1,64} */
  const int64_t* shape;
  uint32_t rank; /* 0: one element */
} selvage_tensor_schema;

/* Zero: no bound. What does not fit goes oldest first. */
typedef struct selvage_collection {
  uint32_t struct_size;
  uint32_t tensor_count;
  const selvage_tensor_schema* tensors; /* none: anything is accepted */
  uint64_t ttl_ms;
  uint64_t count_max;
  uint64_t bytes_max;
} selvage_collection;

/* Says what the examples of a collection look like and how many are kept.
 * Durable; a later call replaces it, and its bounds apply at once. `name`:
 * [a-z0-9_-]{1,64}. */
SELVAGE_API selvage_code
selvage_declare_collection(selvage_client* client, const char* name,
                           const selvage_collection* collection);

enum {
  /* Fine-tunes the owner's model; nothing that is computed from it is ever
   * uploaded. */
  SELVAGE_EXAMPLE_LOCAL_ONLY = 1
};

/* One example: the program's inputs in order (labels are inputs too). */
typedef struct selvage_example {
  uint32_t struct_size;
  uint32_t input_count; /* 1..16; together at most 16 MiB */
  const selvage_tensor* inputs;
  int64_t timestamp_us; /* when it was observed, since 1970; 0: now */
  uint32_t flags;       /* SELVAGE_EXAMPLE_... */
  /* Since ABI 0.2, as all that follows. The host's own name of it, at most 256
   * bytes; NULL: none. If the collection has an example of this key, nothing is
   * added and `id` is that one's: an import that was interrupted is repeated
   * without counting anything twice. A keyed hash of it is kept as long as the
   * example is. */
  const char* key;
} selvage_example;

/* Durable when it returns. Examples never leave the device. `id` (may be NULL)
 * names the example from now on. INVALID_ARGUMENT if it does not fit the
 * collection's schema; RESOURCE_EXHAUSTED if it does not fit at all. */
SELVAGE_API selvage_code selvage_add_example(selvage_client* client,
                                             const char* collection,
                                             const selvage_example* example,
                                             int64_t* id);
/* All or none of `count` examples with one sync of the disk. `ids` has room for
 * `count`, or is NULL. */
SELVAGE_API selvage_code selvage_add_examples(selvage_client* client,
                                              const char* collection,
                                              const selvage_example* examples,
                                              uint64_t count, int64_t* ids);
/* NOT_FOUND if there is none. */
SELVAGE_API selvage_code selvage_delete_example(selvage_client* client,
                                                int64_t id);
SELVAGE_API selvage_code selvage_count_examples(selvage_client* client,
                                                const char* collection,
                                                uint64_t* count);

/* ---- Sessions -------------------------------------------------------------
 */

enum {
  SELVAGE_ENERGY_ANY = 0,
  SELVAGE_ENERGY_CHARGING_ONLY = 1 /* nothing goes on off the charger */
};

typedef struct selvage_budget {
  uint32_t struct_size;
  int32_t energy;   /* SELVAGE_ENERGY_... */
  uint64_t time_ms; /* 0: ten minutes */
  uint64_t bytes;   /* sent and received together; 0: no limit */
} selvage_budget;

enum {
  SELVAGE_NOTHING_TO_DO = 0, /* or not due yet */
  SELVAGE_CONTRIBUTED = 1,   /* an update was accepted */
  SELVAGE_NOT_ACCEPTED = 2,  /* late or rejected; see reason */
  SELVAGE_INSTALLED = 3,     /* a new model was installed and personalised */
  SELVAGE_DECLINED = 4,      /* this device refused the work; see reason */
  SELVAGE_INTERRUPTED = 5,   /* budget or cancel; goes on next time */
  SELVAGE_FAILED = 6         /* network or engine; goes on next time */
};
/* "CONTRIBUTED"; lives for ever. Any thread. */
SELVAGE_API const char* selvage_outcome_name(int32_t outcome);

typedef struct selvage_run_result {
  uint32_t struct_size;
  int32_t outcome;
  const char* reason; /* for people; "" when there is nothing to add */
  const char* task;
  uint64_t round;
  /* When to call again, microseconds since 1970: drawn from the coordinator's
   * window, kept across restarts. Calling earlier does nothing. */
  int64_t next_run_us;
  int32_t enrolled;
  /* What the session used. Bytes of messages and artefacts, without TLS. */
  uint64_t bytes_sent;
  uint64_t bytes_received;
  uint64_t cpu_us;
  uint64_t memory_peak_bytes;     /* of the process since it started */
  uint64_t memory_estimate_bytes; /* of the training; 0: there was none */
} selvage_run_result;

/* One session at most: enrol if needed, check in, and do what is asked.
 * `budget` and `cancel` may be NULL. */
SELVAGE_API selvage_code selvage_run_once(selvage_client* client,
                                          const selvage_budget* budget,
                                          selvage_cancel* cancel,
                                          selvage_run_result** out);

/* Personalises the installed model of `task` on local examples; no network.
 * `budget`, `cancel` and `steps` may be NULL. FAILED_PRECONDITION: no model, or
 * its plan does not personalise; CANCELLED: budget or `cancel`. */
SELVAGE_API selvage_code selvage_train_locally(selvage_client* client,
                                               const char* task,
                                               const selvage_budget* budget,
                                               selvage_cancel* cancel,
                                               uint64_t* steps);

/* ---- What is sent ---------------------------------------------------------
 */

/* An update that waits to be sent, or for its answer. */
typedef struct selvage_outbox_item {
  uint32_t struct_size;
  uint32_t weight; /* examples it stands for */
  const char* task;
  uint64_t round;
  const char* assignment_id;
  uint64_t size; /* bytes */
  double norm;
  int64_t expires_us;
} selvage_outbox_item;
typedef struct selvage_outbox {
  uint32_t struct_size;
  uint64_t count;
  const selvage_outbox_item* items;
} selvage_outbox;
SELVAGE_API selvage_code selvage_inspect_outbox(selvage_client* client,
                                                selvage_outbox** out);

enum {
  SELVAGE_AUDIT_RECORDED = 0, /* trained; nothing was sent yet */
  SELVAGE_AUDIT_ACCEPTED = 1, /* the coordinator has it */
  SELVAGE_AUDIT_LATE = 2,     /* the coordinator threw it away */
  SELVAGE_AUDIT_REJECTED = 3, /* likewise */
  SELVAGE_AUDIT_WITHDRAWN = 4 /* dropped here: forgotten, expired, given up */
};
typedef struct selvage_audit_entry {
  uint32_t struct_size;
  int32_t result;
  int64_t when_us;
  const char* task;
  uint64_t round;
  uint64_t version; /* of the model it changes */
  uint64_t size;    /* bytes; 0: an evaluation, metrics and nothing else */
  double norm;
  uint32_t weight;
} selvage_audit_entry;
typedef struct selvage_audit_log {
  uint32_t struct_size;
  uint64_t count;
  const selvage_audit_entry* entries; /* newest first */
} selvage_audit_log;
/* What became of this device's updates; the last 1000 entries are kept. */
SELVAGE_API selvage_code selvage_audit(selvage_client* client,
                                       uint64_t count_max,
                                       selvage_audit_log** out);

enum { SELVAGE_FORGET_AUDIT = 1 /* also the record of what was sent */ };
/* Deletes what was learned from the owner: all examples, personal models,
 * queued updates. Global models serve at once; open work is given back to the
 * coordinator at the next session. What was accepted before cannot be taken
 * back. Enrolment and declared collections stay. All or nothing. */
SELVAGE_API selvage_code selvage_forget_me(selvage_client* client,
                                           uint32_t flags);

/* The id that the coordinator knows this device by, "" before enrolment; for
 * selvage_free. */
SELVAGE_API selvage_code selvage_device_id(selvage_client* client, char** out);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SELVAGE_SELVAGE_H_ */
