// What a device remembers: identity, examples, model slots, the session and the
// outbox, in one SQLite file (WAL, synchronous=FULL, secure_delete). Durable
// once a call returned OK; a transaction is all or nothing through any kill or
// power cut.
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
#include "base/mutex.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/trainer.h"
#include "client/core/update_builder.h"
#include "crypto/digest.h"
#include "crypto/signature.h"

namespace selvage::client {

struct ClientStoreOptions {
  Path path;        // the database file; its directory exists
  std::string vfs;  // SQLite VFS; empty: the default
};

struct Enrolment {
  std::string device_id;
  std::string certificate_pem;
  std::vector<crypto::Ed25519PublicKey> plan_keys;
};

// Who the store belongs to, written when it is created.
struct StoreOwner {
  std::string population;
  uint64_t holdout_salt = 0;
};

// The one update that was recorded and not yet answered.
struct OutboxEntry {
  std::string assignment_id;
  BuiltUpdate update;
};

// Personal-role tensors as federated training left them, in a whole checkpoint
// of the program's table (the other roles are whatever they were).
struct PersonalTensors {
  std::string task;
  crypto::Digest program_digest;
  Bytes master_values;
};

// Changes that become durable together.
struct SessionChange {
  Bytes session;
  bool drop_outbox = false;
  std::vector<std::string> counters = {};  // each plus one
  const OutboxEntry* outbox = nullptr;
  const PersonalTensors* tensors = nullptr;
};

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
  // Creates or opens. FAILED_PRECONDITION if a newer version made it.
  static Result<std::unique_ptr<ClientStore>> Open(
      const ClientStoreOptions& options);
  ~ClientStore();

  // Releases the file; every call after it is FAILED_PRECONDITION. Idempotent.
  void Close();

  Result<std::optional<StoreOwner>> Owner();
  Status SetOwner(const StoreOwner& owner);

  Result<std::optional<std::string>> Bundle();
  Status SetBundle(const std::string& bundle_json);
  Result<std::optional<Enrolment>> LoadEnrolment();
  // Replaces certificate and plan keys as one.
  Status SaveEnrolment(const Enrolment& enrolment);

  // -- examples
  // All or none, in one transaction; their ids, in order.
  Result<std::vector<int64_t>> AddExamples(
      std::string_view collection,
      std::span<const std::vector<Bytes>> examples);
  // The bytes are overwritten on disk, also in the log. NOT_FOUND.
  Status DeleteExample(int64_t id);
  Result<uint64_t> CountExamples(std::string_view collection);
  // Ascending ids of the examples whose inputs have exactly these sizes.
  Result<std::vector<int64_t>> ExampleIds(std::string_view collection,
                                          std::span<const size_t> input_sizes);
  // In the order of `ids`. NOT_FOUND if one is gone, DATA_LOSS if one has other
  // sizes.
  Result<ExampleSet> LoadExamples(std::span<const int64_t> ids,
                                  std::span<const size_t> input_sizes);

  // -- the session
  Result<std::optional<Bytes>> LoadSession();
  Status SaveSession(const SessionChange& change);
  Result<std::optional<OutboxEntry>> LoadOutbox();
  Result<std::optional<PersonalTensors>> LoadTensors(std::string_view task);

  // -- models
  // The model, its program and its archive (empty: none) become active as one;
  // artefacts that no model needs any more are removed.
  Status InstallModel(const StoredModel& model, ByteSpan program,
                      ByteSpan archive);
  Result<std::optional<StoredModel>> LoadModel(std::string_view task);
  Result<std::vector<ModelVersion>> ListModels();  // by task
  // DATA_LOSS if the bytes do not have the digest, NOT_FOUND.
  Result<Bytes> LoadArtefact(const crypto::Digest& digest);

  // -- telemetry
  // The report that was not answered yet, or a new one named `new_id` over all
  // counters (which start again from zero); nullopt if there is nothing to say.
  Result<std::optional<PendingReport>> TakeReport(const std::string& new_id);
  Status ForgetReport(const std::string& report_id);
  Result<Time> NextReport();  // the epoch if it was never set
  Status SetNextReport(Time when);

 private:
  struct Impl;
  explicit ClientStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace selvage::client
