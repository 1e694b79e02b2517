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
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/run_result.h"
#include "client/core/trainer.h"
#include "client/core/transport.h"

namespace selvage::client {

struct ClientOptions {
  Path state_dir;  // created 0700; holds keys, examples, model slots, outbox
  Path cache_dir;  // deletable at any time: programs and checkpoints by digest
  std::string population;
  // JSON as `selvage token create` prints it. Needed until the first successful
  // enrolment; then kept in the state directory.
  std::string enrolment_bundle;
  std::string device_name;   // wished id; empty: the coordinator chooses
  std::string device_class;  // e.g. "gateway"
  std::string app_version;
  bool allow_insecure_loopback = false;
  std::string sqlite_vfs;  // for tests that fail the disk; empty: SQLite's own
};

// All must outlive the client.
struct ClientDependencies {
  Clock& clock;
  RandomSource& random;
  EventSink& events;
  FileSystem& files;
  Trainer& trainer;
  TransportFactory transport;  // client/rpc's GrpcTransport in production
};

// One example: the program's inputs in order, each InputSpec::SizeBytes() long.
struct Example {
  std::vector<Bytes> inputs;
};

struct RunBudget {
  Duration time = std::chrono::minutes(10);
};

// Thread-safe: Cancel() from any thread stops a call within one training step.
class CancelToken {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
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
  uint64_t holdout_count = 0;
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
  // FAILED_PRECONDITION: another process has it open, or it belongs to another
  // population. DATA_LOSS: the store is damaged. INVALID_ARGUMENT: options.
  static Result<std::unique_ptr<Client>> Open(ClientOptions options,
                                              ClientDependencies dependencies);
  ~Client();

  // A model that ships with the app, so that Predict and TrainLocally work
  // before the first contact. `plan_json` is unsigned and trusted because the
  // host gives it. The newest compatible version wins later.
  Status InstallModel(std::string_view plan_json, std::string_view program_json,
                      ByteSpan archive, ByteSpan safetensors);

  // Durable when it returns. Bounds: 16 inputs, 16 MiB an example.
  Result<int64_t> AddExample(std::string_view collection,
                             const Example& example);
  // The same for many at once, all or none: one sync of the disk instead of
  // one each. Their ids, in order.
  Result<std::vector<int64_t>> AddExamples(
      std::string_view collection, const std::vector<Example>& examples);
  Status DeleteExample(int64_t id);
  Result<uint64_t> CountExamples(std::string_view collection);

  // One session at most: enrol if needed, check in, and do what is asked.
  // Errors only for misuse; everything that happens in the world is an outcome.
  Result<RunOutcome> RunOnce(const RunBudget& budget,
                             const CancelToken& cancel);

  // Personalises the installed model of `task` on local examples; no network.
  // FAILED_PRECONDITION: no model, or its plan does not personalise.
  Result<LocalOutcome> TrainLocally(std::string_view task,
                                    const RunBudget& budget,
                                    const CancelToken& cancel);

  // forward() of the serving slot on `count` first inputs. NOT_FOUND if no
  // model of `task` is installed.
  Result<TrainableModel::Prediction> Predict(std::string_view task,
                                             ByteSpan input, size_t count);
  // Mean of each metric of a slot over `examples` (not stored, not sent).
  // NOT_FOUND if the slot does not exist, FAILED_PRECONDITION without a model.
  Result<std::vector<double>> Evaluate(std::string_view task, Slot slot,
                                       const ExampleSet& examples);

  // FAILED_PRECONDITION if no model of `task` is installed.
  Result<ModelInfo> Info(std::string_view task);
  Result<std::vector<std::string>> Tasks();
  std::string device_id() const;  // empty before enrolment

  // Idempotent; the destructor calls it.
  void Close();

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace selvage::client
