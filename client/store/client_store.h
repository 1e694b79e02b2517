// What a device remembers: identity, examples, model slots, the session and the
// outbox, in one SQLite file (WAL, synchronous=FULL, secure_delete). Durable
// once a call returned OK; a transaction is all or nothing through any kill or
// power cut.
//
// What was learned from the owner is sealed (value_seal.h): inputs of examples,
// personal and alone slots, the optimizer's state, interrupted trainings,
// personal tensors, residuals, scores, the outbox, the session, the audit, and
// the enrolment bundle. Names, counts, sizes and
// times are not.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/host_data.h"
#include "client/core/trainer.h"
#include "client/core/transport.h"
#include "client/core/update_builder.h"
#include "client/store/storage_keys.h"
#include "crypto/digest.h"
#include "crypto/signature.h"

namespace selvage::client {

// Examples that stay with the host, and how many of a collection are read.
struct ExampleSource {
  DataSource* host = nullptr;  // nullptr: the examples are in the store
  uint64_t count_max = 0;
  uint64_t bytes_max = 0;
};

struct ClientStoreOptions {
  Path path;             // the database file; its directory exists
  std::string vfs = {};  // SQLite VFS; empty: the default
  // Used by Open() only.
  StorageKeys& keys;
  // These must outlive the store.
  Clock& clock;
  EventSink& events;
  // Of the whole file; enforced where examples are added. 0: no bound.
  uint64_t bytes_max = 0;
  ExampleSource source = {};  // what source() gives
};

struct Enrolment {
  std::string device_id;
  std::string certificate_pem;
  std::vector<crypto::Ed25519PublicKey> plan_keys;
  // Digest of the identity key that it is for; empty: of none, the key of the
  // certificate is the device's.
  crypto::Digest identity_key = {};
};

// Who the store belongs to, written when it is created.
struct StoreOwner {
  std::string population;
  uint64_t holdout_salt = 0;
};

// The one update that was recorded and not yet answered.
struct OutboxEntry {
  std::string assignment_id;
  std::string task = {};
  uint64_t round = 0;
  uint64_t version = 0;
  Time expires = kNever;
  BuiltUpdate update;
};

// Personal-role tensors as federated training left them, in a whole checkpoint
// of the program's table (the other roles are whatever they were).
struct PersonalTensors {
  std::string task;
  crypto::Digest program_digest;
  Bytes master_values;
};

// What top_k left out of a task's updates, by element of the update, or the
// control variate of a scaffold task, by element of its shared tensors; or by
// how much one update's commit changes that.
struct ResidualChange {
  std::string task;
  crypto::Digest program_digest;
  std::vector<float> values;
};

// Changes that become durable together.
struct SessionChange {
  Bytes session;
  bool drop_outbox = false;
  // What became of the update that is dropped, for the audit.
  AuditResult dropped = AuditResult::kWithdrawn;
  std::vector<std::string> counters = {};  // each plus one
  const OutboxEntry* outbox = nullptr;
  const PersonalTensors* tensors = nullptr;
  // Staged with `outbox`, until the outcome of its assignment is known.
  const ResidualChange* residual = nullptr;
  // A commit applies what was staged for the assignment, another outcome but
  // PENDING drops it; so does dropping the outbox without a receipt ACCEPTED.
  std::span<const AssignmentOutcome> outcomes = {};
  const Bytes* crashes = nullptr;  // as SaveCrashes()
};

// Of an update that is written a piece at a time (outbox_payload.h): all of
// them but the last have this size.
inline constexpr size_t kOutboxPieceBytes = size_t{4} << 20;

struct StoredModel {
  std::string task;
  uint64_t version = 0;
  std::string plan_json;
  crypto::Digest program_digest;
  crypto::Digest archive_digest;  // empty: none
  Bytes global_values;            // plan::SerializeMaster
  std::optional<Bytes> personal_values;
  std::optional<Bytes> alone_values;
  bool personal_serving = false;
  uint64_t holdout_count = 0;
  std::vector<double> global_scores;  // means on the hold-out, by metric
  std::vector<double> personal_scores;
  std::vector<double> alone_scores = {};
  // Global version that the personal slot was made for.
  uint64_t personal_version = 0;
  // LocalTraining's, after the training that made the personal slot. For
  // InstallModel() alone: who serves does not need it, so LoadModel() leaves it
  // to LoadOptimizer().
  std::optional<Bytes> personal_optimizer = {};
  // What LoadModel() found beside the values: the SHA-256 that they had when
  // they were installed, for whoever loads them to check. Empty: not known.
  // InstallModel() computes them.
  crypto::Digest global_digest = {};
  crypto::Digest personal_digest = {};
};

// What served before the active model did: the last known good one.
struct GoodModel {
  std::string task;
  uint64_t version = 0;
  std::string plan_json;
  crypto::Digest program_digest;
  crypto::Digest archive_digest;  // empty: none
  Bytes values;                   // plan::SerializeMaster
  bool personal = false;          // they were the personal slot's
};

// A TrainingCheckpoint, and what it is one of.
struct StoredTraining {
  crypto::Digest fingerprint;  // of everything that the result depends on
  uint64_t steps = 0;
  Bytes state;

  friend bool operator==(const StoredTraining&,
                         const StoredTraining&) = default;
};

// The trainings that a personalisation may have.
enum class TuningPart {
  kPersonal,
  kAlone,         // the local-only baseline
  kAloneHoldout,  // ... and the one that its scores are of
};

// One of them: interrupted, or done while another is not.
struct StoredTuning {
  crypto::Digest fingerprint;  // of everything that the result depends on
  uint64_t examples = 0;       // it trains on the first so many
  uint64_t steps = 0;
  bool done = false;
  Bytes state;      // a TrainingCheckpoint's; if done: plan::SerializeMaster
  Bytes optimizer;  // if done, and kept: LocalTraining's state

  friend bool operator==(const StoredTuning&, const StoredTuning&) = default;
};

struct ModelVersion {
  std::string task;
  uint64_t version = 0;
};

struct PendingReport {
  std::string report_id;
  std::vector<std::pair<std::string, uint64_t>> counters;
};

// Errors of every call: DATA_LOSS if the file is damaged, RESOURCE_EXHAUSTED if
// the disk is full or a value is too large for SQLite, INTERNAL otherwise.
//
// Thread-safe: one call at a time, the others wait.
class ClientStore {
 public:
  // Creates or opens, and checks the file (PRAGMA quick_check): at every call
  // up to 32 MiB; a larger one once a week, after the process died, and after
  // a call was DATA_LOSS.
  // FAILED_PRECONDITION if a newer version made it, or the storage key is
  // missing or another than it was sealed with. DATA_LOSS if it is damaged.
  // A store whose values lie open is sealed; one that is sealed under the key
  // of a file is sealed under the host's key, if the host gives one now, and
  // the file is removed.
  static Result<std::unique_ptr<ClientStore>> Open(
      const ClientStoreOptions& options);
  ~ClientStore();

  // Releases the file; every call after it is FAILED_PRECONDITION. Idempotent.
  void Close();

  // Where examples to train on come from.
  const ExampleSource& source() const;

  // One more of a counter of the next report.
  Status Count(const std::string& counter);

  Result<std::optional<StoreOwner>> Owner();
  Status SetOwner(const StoreOwner& owner);

  Result<std::optional<std::string>> Bundle();
  Status SetBundle(const std::string& bundle_json);
  Result<std::optional<Enrolment>> LoadEnrolment();
  // Replaces certificate and plan keys as one.
  Status SaveEnrolment(const Enrolment& enrolment);
  // The bundle stays.
  Status ForgetEnrolment();

  // -- examples
  // As Client::DeclareCollection(); the name was checked.
  Status DeclareCollection(const std::string& name,
                           const CollectionOptions& options);
  // All or none, in one transaction; their ids, in order. One whose key the
  // collection has already is not added: its id is that of the one that is
  // there. What does not fit the
  // bounds of the collection or of the store is evicted, oldest first, with a
  // counter (examples_expired, examples_evicted) and an event. Errors as
  // Client::AddExample().
  Result<std::vector<int64_t>> AddExamples(std::string_view collection,
                                           std::span<const Example> examples);
  // The bytes are overwritten on disk, also in the log. NOT_FOUND.
  Status DeleteExample(int64_t id);
  // Those that have not expired; so everywhere below.
  Result<uint64_t> CountExamples(std::string_view collection);
  // Ascending ids of the examples whose inputs have exactly these sizes;
  // `consented`: only those with the owner's consent.
  Result<std::vector<int64_t>> ExampleIds(std::string_view collection,
                                          std::span<const size_t> input_sizes,
                                          bool consented = false);
  // In the order of `ids`. One that is damaged is left out, removed, counted
  // (values_damaged) and told as an event. NOT_FOUND if one is gone, DATA_LOSS
  // if one has other sizes.
  Result<ExampleSet> LoadExamples(std::span<const int64_t> ids,
                                  std::span<const size_t> input_sizes);

  // -- the session
  // Bytes that Session::Restore() refuses if they are damaged.
  Result<std::optional<Bytes>> LoadSession();
  Status SaveSession(const SessionChange& change);
  // DATA_LOSS if it is damaged. An update that was written in pieces stays
  // where it is, its digest checked: BytesOf() (outbox_payload.h).
  Result<std::optional<OutboxEntry>> LoadOutbox();
  // -- its pieces: see outbox_payload.h
  Status AddOutboxPiece(const std::string& assignment_id, uint64_t number,
                        ByteSpan bytes);
  // DATA_LOSS if it is damaged or not there.
  Result<Bytes> LoadOutboxPiece(const std::string& assignment_id,
                                uint64_t number);
  // Those of updates that were never recorded.
  Status DropLoosePieces();
  Result<std::vector<OutboxItem>> InspectOutbox();
  // Newest first.
  Result<std::vector<AuditEntry>> Audit(size_t count_max);
  // Client::ForgetMe(), as far as it is about this file; `session` replaces
  // what LoadSession() gives.
  Status Forget(ByteSpan session, const ForgetOptions& options);
  // nullopt also if they are damaged, which is counted and told.
  Result<std::optional<PersonalTensors>> LoadTensors(std::string_view task);

  // What is settled of it, for an update of this program; empty: nothing.
  Result<std::vector<float>> LoadResidual(const std::string& task,
                                          const crypto::Digest& program);

  // -- models
  // The model, its program and its archive (empty: none) become active as one,
  // and `good` (nullptr: whatever there is stays) its last known good one; the
  // trainings of the task that were kept, and artefacts that no model needs any
  // more, are removed.
  Status InstallModel(const StoredModel& model, ByteSpan program,
                      ByteSpan archive, const GoodModel* good = nullptr);
  // A personal or alone slot that is damaged is not there, which is counted
  // and told: then the global one serves.
  Result<std::optional<StoredModel>> LoadModel(std::string_view task);
  // nullopt also if it is damaged, which is counted and told.
  Result<std::optional<GoodModel>> LoadGoodModel(std::string_view task);
  Result<std::vector<ModelVersion>> ListModels();  // by task
  // DATA_LOSS if the bytes do not have the digest, NOT_FOUND.
  Result<Bytes> LoadArtefact(const crypto::Digest& digest);

  // The optimizer's state of the personal slot; nullopt: there is none, or it
  // is damaged, which is counted and told.
  Result<std::optional<Bytes>> LoadOptimizer(std::string_view task);

  // -- trainings of a task's slots
  // nullopt also if it is damaged, which is counted and told.
  Result<std::optional<StoredTuning>> LoadTuning(std::string_view task,
                                                 TuningPart part);
  Status SaveTuning(std::string_view task, TuningPart part,
                    const StoredTuning& tuning);

  // -- UsageLedger::Save()
  Result<std::optional<Bytes>> LoadUsage();
  Status SaveUsage(ByteSpan ledger);

  // -- the interrupted training of the open assignment: at most one
  // nullopt also if it is damaged, which is counted and told.
  Result<std::optional<StoredTraining>> LoadTraining();
  Status SaveTraining(const StoredTraining& training);
  Status DropTraining();

  // -- crashes: CrashLedger::Save()
  Result<std::optional<Bytes>> LoadCrashes();
  Status SaveCrashes(ByteSpan ledger);

  // -- telemetry
  // The report that was not answered yet, or a new one named `new_id` over all
  // counters (which start again from zero); nullopt if there is nothing to say.
  Result<std::optional<PendingReport>> TakeReport(const std::string& new_id);
  Status ForgetReport(const std::string& report_id);
  Result<Time> NextReport();  // the epoch if it was never set
  Status SetNextReport(Time when);

  struct Impl;

 private:
  explicit ClientStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace selvage::client
