// The device library: one object that keeps an owner's examples, adapts a model
// to them, and takes part in federated rounds when the host says so.
//
// The host owns scheduling: RunOnce() does at most one session and says when to
// call again. Nothing runs in the background. Raw examples and personal tensors
// never leave the device.
//
//   auto client = Client::Open(options, dependencies);
//   client->AddExample("clothing", {{pixels, label}});
//   RunOutcome outcome = *client->RunOnce({}, cancel);   // now and then
//   auto prediction = client->Predict("fashion-personal", pixels, 1);
//
// Exactly these calls are what the C API wraps.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_clock.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/conditions.h"
#include "client/core/host_data.h"
#include "client/core/identity_key.h"
#include "client/core/privacy_floor.h"
#include "client/core/run_result.h"
#include "client/core/trainer.h"
#include "client/core/transport.h"

namespace selvage::client {

// What sessions may use in a UTC day, counted durably whatever the clock does
// (client/core/usage_ledger.h). 0: no limit.
struct DailyLimits {
  uint64_t metered_bytes = 0;    // while the host says that the network costs
  uint64_t unmetered_bytes = 0;  // while it does not
  Duration cpu{};                // processor time
};

struct ClientOptions {
  Path state_dir;  // created 0700; holds keys, examples, model slots, outbox
  Path cache_dir;  // deletable at any time: programs and checkpoints by digest
  // Of the cache; what was unused the longest goes. What a model being fetched
  // needs stays, so a larger one is above this.
  uint64_t cache_bytes_max = uint64_t{256} << 20;
  std::string population;
  // JSON as `selvage token create` prints it. Needed until the first successful
  // enrolment; then kept in the state directory.
  std::string enrolment_bundle;
  std::string device_name;   // wished id; empty: the coordinator chooses
  std::string device_class;  // e.g. "gateway"
  std::string app_version;
  bool allow_insecure_loopback = false;
  std::string sqlite_vfs;  // for tests that fail the disk; empty: SQLite's own
  // Of the whole store, models included. When examples do not fit, the oldest
  // of all collections go.
  uint64_t store_bytes_max = uint64_t{1} << 30;
  // Of a DataSource: what comes after so many examples of a collection, or so
  // many bytes of inputs, is not read.
  uint64_t source_count_max = 1'000'000;
  uint64_t source_bytes_max = uint64_t{256} << 20;
  PrivacyFloor floor;
  DailyLimits daily;
  // Training whose estimate (client/core/memory_estimate.h) is above this is
  // refused; 0: any.
  uint64_t memory_bytes_max = 0;
  int threads_max = 0;  // of one operator while training; 0: the engine's own
};

// Asked once per session and task before the examples of `collection` are used.
struct ConsentRequest {
  std::string task;
  std::string collection;
  // True: to make an update that is sent. False: to fine-tune the model that
  // stays here.
  bool upload = false;
};

enum class Phase {
  kEnrolling,
  kCheckingIn,
  kFetching,
  kTraining,  // also while a checkpoint is evaluated
  kUploading,
  kPersonalizing
};
std::string_view PhaseName(Phase phase);  // "enrolling", ...

struct Progress {
  Phase phase = Phase::kCheckingIn;
  std::string task;  // empty before there is work
  // Training steps begun, of how many; 0 and 0 in phases that do not count.
  uint64_t step = 0;
  uint64_t steps = 0;
};

// All must outlive the client.
struct ClientDependencies {
  Clock& clock;
  RandomSource& random;
  EventSink& events;
  FileSystem& files;
  Trainer& trainer;
  TransportFactory transport;  // client/rpc's GrpcTransport in production
  // nullptr: the storage key is a 0600 file in the state directory, which keeps
  // out nobody who can read that directory (docs/privacy.md).
  StorageKeySource* storage_key = nullptr;
  // nullptr: the device is the key of a file in the state directory. Otherwise
  // it is this key, and the file holds a TLS key that is good for a day.
  IdentityKey* identity_key = nullptr;
  // nullptr: what is trained on is what AddExample() stored. Otherwise it is
  // what the host's source gives, and nothing else.
  DataSource* data_source = nullptr;
  // The host's callbacks; each may be empty. They are called by the thread that
  // is in RunOnce() or TrainLocally(), often (conditions: before every training
  // step and between chunks), and must not call the client.
  std::function<Conditions()> conditions =
      {};  // empty: nothing ever holds back
  std::function<bool(const ConsentRequest&)> consent = {};  // empty: yes
  std::function<void(const Progress&)> progress = {};
  CpuClock* cpu = nullptr;  // nullptr: the system's
};

enum class EnergyClass { kAny, kChargingOnly };

struct RunBudget {
  Duration time = std::chrono::minutes(10);
  uint64_t bytes = 0;  // sent and received together; 0: no limit
  // kChargingOnly: nothing happens, and nothing goes on, off the charger.
  EnergyClass energy = EnergyClass::kAny;
};

// Thread-safe: Cancel() from any thread stops a call within one training step.
class CancelToken {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// What one session used.
struct RunUsage {
  // Of artefacts, updates and messages, without what TLS and HTTP/2 add.
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  // Of the calling thread, and of the whole process while it trained with
  // several threads.
  Duration cpu{};
  uint64_t memory_peak_bytes = 0;      // of the process since it started
  uint64_t memory_estimate_bytes = 0;  // of the training; 0: there was none
};

struct RunOutcome {
  RunResult result = RunResult::kNothingToDo;
  std::string reason;  // for people; empty when there is nothing to add
  std::string task;
  uint64_t round = 0;
  // When to call RunOnce() again: drawn from the coordinator's window, kept
  // across restarts. Calling earlier is allowed and does nothing but wait its
  // turn.
  Time next_run{};
  bool enrolled = false;
  RunUsage usage;
};

enum class Slot { kServing, kGlobal, kPersonal, kAlone };
std::string_view SlotName(Slot slot);

struct ModelInfo {
  std::string task;
  uint64_t version = 0;  // global version installed
  bool personal_serving = false;
  std::vector<std::string> metrics;
  // Means on the local hold-out, in the order of `metrics`; empty if the slot
  // or the hold-out does not exist.
  std::vector<double> global_scores;
  std::vector<double> personal_scores;
  // Of local-only training, where the plan asks for that baseline; on the same
  // hold-out, by a model that did not see it.
  std::vector<double> alone_scores;
  uint64_t holdout_count = 0;
  // After repeated crashes the device trains nothing until then; what serves
  // goes on, and new global models are still installed.
  bool training_paused = false;
  Time paused_until{};
};

struct LocalOutcome {
  ModelInfo model;
  uint64_t steps = 0;
};

// Thread-compatible, except Predict(), which may be called from any thread
// while another call runs.
class Client {
 public:
  // Creates or opens the state directory; never touches the network.
  // FAILED_PRECONDITION: another process has it open, it belongs to another
  // population, a newer version made it, or the storage key is missing or not
  // the one it was sealed with. INVALID_ARGUMENT: options. A damaged store is
  // no error: it is set aside (client.db.damaged-N, the last two are kept) with
  // an event, and a new one is made; the device's key survives, so enrolling
  // again gives the same identity.
  static Result<std::unique_ptr<Client>> Open(ClientOptions options,
                                              ClientDependencies dependencies);
  ~Client();

  // A model that ships with the app, so that Predict and TrainLocally work
  // before the first contact. `plan_json` is unsigned and trusted because the
  // host gives it. The newest compatible version wins later.
  Status InstallModel(std::string_view plan_json, std::string_view program_json,
                      ByteSpan archive, ByteSpan safetensors);

  // Says what the examples of a collection look like and how many are kept.
  // Durable; a later call replaces the declaration, and its bounds apply at
  // once. Examples that were stored under another schema stay until they expire
  // or are evicted; no program sees them whose inputs they do not fit.
  // INVALID_ARGUMENT: a name, shape or bound, or a schema that `bytes_max`
  // could not hold one example of.
  Status DeclareCollection(std::string_view name,
                           const CollectionOptions& options);

  // Durable when it returns. Bounds: 16 inputs, 16 MiB an example.
  // INVALID_ARGUMENT names collection, tensor, value and bound if the example
  // does not fit the collection's schema. RESOURCE_EXHAUSTED if it does not fit
  // the collection's bytes_max, or the store even without all other examples.
  Result<int64_t> AddExample(std::string_view collection,
                             const Example& example);
  // The same for many at once, all or none: one sync of the disk instead of
  // one each. Their ids, in order; of one whose key the collection has already,
  // the id of that one.
  Result<std::vector<int64_t>> AddExamples(
      std::string_view collection, const std::vector<Example>& examples);
  Status DeleteExample(int64_t id);
  Result<uint64_t> CountExamples(std::string_view collection);

  // One session at most: enrol if needed, check in, and do what is asked.
  // Errors only for misuse; everything that happens in the world is an outcome,
  // also an identity key that does not sign, or is not the one of before.
  Result<RunOutcome> RunOnce(const RunBudget& budget,
                             const CancelToken& cancel);

  // Personalises the installed model of `task` on local examples; no network.
  // FAILED_PRECONDITION: no model, or its plan does not personalise.
  Result<LocalOutcome> TrainLocally(std::string_view task,
                                    const RunBudget& budget,
                                    const CancelToken& cancel);

  // forward() of the serving slot on `count` first inputs. NOT_FOUND if no
  // model of `task` is installed.
  Result<ServedPrediction> Predict(std::string_view task, ByteSpan input,
                                   size_t count);
  // Mean of each metric of a slot over `examples` (not stored, not sent).
  // NOT_FOUND if the slot does not exist, FAILED_PRECONDITION without a model.
  Result<std::vector<double>> Evaluate(std::string_view task, Slot slot,
                                       const ExampleSet& examples);

  // FAILED_PRECONDITION if no model of `task` is installed.
  Result<ModelInfo> Info(std::string_view task);
  Result<std::vector<std::string>> Tasks();

  // What waits to be sent; at most one in this version.
  Result<std::vector<OutboxItem>> InspectOutbox();
  // What became of this device's updates, newest first; the last kAuditMax
  // entries are kept. Written together with what they tell of.
  Result<std::vector<AuditEntry>> Audit(size_t count_max);
  // Deletes what was learned from the owner: all examples, personal and alone
  // slots, personal tensors, queued updates, damaged stores set aside. Global
  // models serve at once. Open work is given back to the coordinator at the
  // next session; what was accepted before cannot be taken back. Enrolment,
  // declared collections and counters stay. All or nothing, and overwritten on
  // the disk, as far as the disk overwrites.
  Status ForgetMe(const ForgetOptions& options = {});
  std::string device_id() const;  // empty before enrolment

  // Idempotent; the destructor calls it.
  void Close();

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace selvage::client
