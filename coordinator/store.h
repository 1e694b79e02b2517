// What the coordinator must remember across a crash, and nothing else.
//
// Durability: every method that changes something is one transaction; it is
// durable once the method returns OK and has not happened if it returns an
// error (after an I/O error it may turn out to have happened at the next start:
// nothing was acknowledged, so that is allowed).
//
// Concurrency: all methods are thread-safe and linearizable. A round has an
// `epoch`, the fencing token of whoever drives it: TakeRound() raises it, and
// every write through an older RoundLease is refused with ABORTED and changes
// nothing. State changes are compare-and-set on (epoch, state); each leaves a
// row of history.
//
// Implementations: MemoryStore (tests, simulation), SqliteStore (one process),
// PostgresStore (replicas). All pass tests/contract/store_contract.h; behaviour
// that is not tested there is not promised here.
//
// Errors everywhere: NOT_FOUND, ALREADY_EXISTS, ABORTED (lost a race; nothing
// changed), RESOURCE_EXHAUSTED (disk full), UNAVAILABLE (busy), INTERNAL (I/O),
// each naming the row.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "crypto/digest.h"
#include "crypto/signature.h"
#include "plan/task.h"

namespace selvage::coordinator {

// The answer to a request is found again by what it made: `resource` names it.
// `fingerprint` is the digest of the request's fields, so that one id cannot
// stand for two requests.
struct RequestRow {
  std::string id;
  std::string kind;  // "create_task", ...
  crypto::Digest fingerprint;
  std::string resource;
  Time created{};
};

struct PopulationRow {
  std::string name;
  Time created{};
  uint64_t device_count = 0;  // read only: enrolled devices
};

struct TokenRow {
  std::string id;
  std::string population;
  crypto::Digest secret_digest;  // SHA-256 of the secret, never the secret
  Time created{};
  Time expires{};
  uint32_t uses_max = 0;
  uint32_t uses = 0;
  bool revoked = false;
};

struct DeviceRow {
  std::string population;
  std::string device_id;
  crypto::Digest key_digest;  // of its public key
  std::string token_id;       // that it enrolled with last
  std::string certificate_pem;
  Time certificate_expires{};
  Time enrolled{};
  // Of a device whose key_digest is its identity key's: when the coordinator
  // made the nonce that its last certificate was asked for with. The epoch: of
  // a device whose key_digest is its certificate's.
  Time nonce_made{};
};

// What a task's measured versions have shown so far (coordinator/stopping.h).
struct TaskProgress {
  uint64_t measured = 0;       // versions; the rest means nothing while it is 0
  uint64_t last_measured = 0;  // version
  uint64_t best_version = 0;
  double best_value = 0;
  double reference = 0;  // that a value must better by more than min_delta
  uint64_t stale = 0;    // measured versions since one did
  friend bool operator==(const TaskProgress&, const TaskProgress&) = default;
};

struct TaskRow {
  uint64_t id = 0;  // given by the store, from 1, never reused
  std::string name;
  std::string population;
  TaskState state = TaskState::kRunning;
  std::string task_file;
  crypto::Digest program_digest;
  crypto::Digest plan_digest;
  crypto::Ed25519Signature plan_signature{};
  crypto::Digest initial_digest;  // empty unless `initial: FILE`
  Time created{};
  Time ended{};
  uint64_t committed_rounds = 0;
  uint64_t abandoned_rounds = 0;
  uint64_t latest_version = 0;
  uint64_t revision = 1;          // +1 with every change of the row
  uint64_t evaluated_rounds = 0;  // committed evaluation rounds
  std::string end_reason;
  TaskProgress progress;
};

struct VersionRow {
  uint64_t task_id = 0;
  uint64_t version = 0;
  uint64_t round = 0;                // that made it; 0: the initial model
  crypto::Digest checkpoint_digest;  // of the checkpoint or its parts' list
  plan::CodecName checkpoint_codec = plan::CodecName::kFloat16;
  crypto::Digest master_digest;  // the float32 master as safetensors
  // What the strategy remembers (aggregation::ServerState); empty: nothing.
  crypto::Digest server_state_digest;
  Time created{};
};

struct EvaluationRow {
  uint64_t task_id = 0;
  uint64_t version = 0;
  std::string data_set;
  crypto::Digest data_digest;
  uint64_t example_count = 0;
  std::vector<std::pair<std::string, double>> metrics;  // by name
  Time created{};
};

struct RoundKey {
  uint64_t task_id = 0;
  uint64_t number = 0;
  friend auto operator<=>(const RoundKey&, const RoundKey&) = default;
};
// The right to drive a round.
struct RoundLease {
  RoundKey key;
  uint64_t epoch = 0;
};

// The right to drive a task: to open, draw, close and apply its rounds. One of
// several coordinators over one store has it, for as long as it renews it.
struct TaskClaim {
  uint64_t task_id = 0;
  std::string holder;  // empty: nobody
  uint64_t token = 0;  // from 1; +1 whenever the holder changes
  Time expires{};      // by Store::Now()
};

// A device that checked in with a coordinator that does not drive the task.
struct CandidateRow {
  std::string device_id;
  std::string device_class = {};  // of evaluation rounds
};
struct Candidates {
  std::vector<CandidateRow> rows;
  uint64_t last = 0;  // the place of the last of them; `after` if there is none
};

struct RoundRow {
  RoundKey key;
  RoundState state = RoundState::kSelecting;
  uint64_t epoch = 1;
  uint64_t base_version = 0;
  uint64_t result_version = 0;
  Time opened{};
  Time ended{};
  std::string reason;
  // The round key under the wrapping key; overwritten when the round ends.
  Bytes wrapped_key;
  uint64_t checked_in = 0;  // devices, so far as persisted
  uint64_t bytes_up = 0;    // of accepted updates
  Bytes metrics;  // MetricSums of a committed round; empty if suppressed
  RoundMode mode = RoundMode::kTrain;
  Bytes class_metrics;  // EvaluationSums of a committed evaluation round
  std::string figures;  // of a committed round (FiguresText); empty: none
  // Only for OpenRound(), not kept: the token of the TaskClaim that allows it;
  // 0: no claim is asked for.
  uint64_t claim = 0;
  // Likewise: ids of assignments of earlier rounds of the task. Those that are
  // kLeased belong to this round from now on.
  std::vector<std::string> carried = {};
};

struct HistoryRow {
  RoundKey key;
  std::optional<RoundState> from;  // nullopt: the round was opened
  RoundState to = RoundState::kSelecting;
  uint64_t epoch = 0;
  Time at{};
  std::string reason;
};

enum class AssignmentState {
  kLeased = 1,
  kExpired = 2,  // vanished; an upload is still welcome
  kAccepted = 3,
  kRejected = 4,
  kLate = 5,
  kAbandoned = 6,
};
struct AssignmentRow {
  std::string id;
  RoundKey round;  // that its update would count in
  std::string device_id;
  Time lease_deadline{};  // for its computation
  Time expires{};         // the round's deadline
  AssignmentState state = AssignmentState::kLeased;
  std::string reason;             // of kRejected and kAbandoned: for the funnel
  std::string device_class = {};  // of evaluation rounds
};

struct ReceiptRow {
  std::string assignment_id;
  crypto::Digest digest;
  ReceiptStatus status = ReceiptStatus::kAccepted;
  RejectReason reason = RejectReason::kNone;
  std::string message;
  std::string partial_id;  // kAccepted
  Time created{};
};

struct PartialRow {
  std::string id;  // also the name of the sealed blob
  RoundKey round;
  uint64_t update_count = 0;
  uint64_t bytes_up = 0;
};

struct AssignmentRecord {
  AssignmentRow assignment;
  std::optional<ReceiptRow> receipt;
};

struct CommittedRound {
  VersionRow version;  // .version must be the task's latest + 1
  Bytes metrics;       // empty: suppressed
  std::string figures;
  // With the version: artefacts it needs and its population may fetch.
  std::vector<std::pair<crypto::Digest, uint64_t>> artefacts;  // digest, size
  std::vector<crypto::Digest> references;
  bool finish_task = false;
  std::string end_reason = {};  // with finish_task
  std::optional<TaskProgress> progress = {};
};

struct EvaluatedRound {
  Bytes metrics;        // empty: suppressed
  Bytes class_metrics;  // likewise
  bool finish_task = false;
  std::string end_reason = {};  // with finish_task
  std::optional<TaskProgress> progress = {};
};

// How many assignments of a round are in a state for a reason.
struct FunnelCount {
  AssignmentState state = AssignmentState::kLeased;
  std::string reason;
  uint64_t count = 0;
};

class Store {
 public:
  virtual ~Store() = default;

  // The only time that leases and deadlines see. Never goes back, not even
  // across a restart, whatever the machine's clock does. Microseconds since the
  // Unix epoch as long as that clock behaves.
  virtual Time Now() = 0;
  virtual uint32_t schema_version() const = 0;
  // Random text made when the store was created.
  virtual std::string instance_id() const = 0;
  virtual Result<uint64_t> CertificatesIssued() = 0;

  // ------------------------------------------------------------ requests
  // Where a method takes a RequestRow, it is inserted in the same transaction
  // unless its id is empty; ALREADY_EXISTS, and nothing changed, if the id is
  // taken.
  virtual Result<std::optional<RequestRow>> FindRequest(
      const std::string& id) = 0;

  // --------------------------------------------- populations and identities
  virtual Status CreatePopulation(const PopulationRow& row,
                                  const RequestRow& request) = 0;
  virtual Result<PopulationRow> GetPopulation(const std::string& name) = 0;
  // By name, names after `after` only.
  virtual Result<std::vector<PopulationRow>> ListPopulations(
      const std::string& after, uint32_t limit) = 0;

  virtual Status InsertToken(const TokenRow& row,
                             const RequestRow& request) = 0;
  virtual Result<TokenRow> GetToken(const std::string& id) = 0;
  virtual Result<std::vector<TokenRow>> ListTokens(
      const std::string& population, const std::string& after,
      uint32_t limit) = 0;
  virtual Result<TokenRow> RevokeToken(const std::string& id) = 0;

  // Enrols, or returns what an earlier call with the same token, device and key
  // stored (then nothing changes). Otherwise uses the token once.
  // ALREADY_EXISTS: the id belongs to another key, or to a key of the other
  // kind. FAILED_PRECONDITION: the token is unknown, revoked, expired at `now`
  // or used up.
  virtual Result<DeviceRow> EnrollDevice(const DeviceRow& row, Time now) = 0;
  // A new certificate for an enrolled device. NOT_FOUND; ALREADY_EXISTS if the
  // key is another, or of the other kind. ABORTED, for an identity key, unless
  // its nonce was made after that of the certificate before: a nonce is good
  // for one.
  virtual Status RenewDevice(const DeviceRow& row) = 0;
  virtual Result<DeviceRow> GetDevice(const std::string& population,
                                      const std::string& device_id) = 0;
  virtual Result<std::vector<DeviceIdentity>> ListDevices() = 0;

  // ------------------------------------------------------------ artefacts
  virtual Status PutArtefact(const crypto::Digest& digest, uint64_t size) = 0;
  virtual Result<bool> HasArtefact(const crypto::Digest& digest) = 0;
  virtual Result<std::vector<crypto::Digest>> ListArtefacts() = 0;
  // Whether devices of `population` may fetch it.
  virtual Result<bool> IsReferenced(const std::string& population,
                                    const crypto::Digest& digest) = 0;

  // ---------------------------------------------------------------- tasks
  struct NewTask {
    TaskRow task;        // id and revision are ignored
    VersionRow initial;  // version 0; task_id is ignored
    std::vector<std::pair<crypto::Digest, uint64_t>> artefacts;
    std::vector<crypto::Digest> references;
  };
  // Returns the task as stored. ALREADY_EXISTS: the name, or the request.
  virtual Result<TaskRow> CreateTask(const NewTask& task,
                                     const RequestRow& request) = 0;
  virtual Result<TaskRow> GetTask(const std::string& name) = 0;
  virtual Result<TaskRow> GetTaskById(uint64_t id) = 0;
  // By id, ids above `after` only. population empty: all.
  virtual Result<std::vector<TaskRow>> ListTasks(const std::string& population,
                                                 uint64_t after,
                                                 uint32_t limit) = 0;
  // RUNNING -> STOPPED, its open round -> ABANDONED (whatever its epoch), the
  // round's key overwritten. ABORTED if `revision` is given and not the task's;
  // FAILED_PRECONDITION if the task is not RUNNING.
  virtual Result<TaskRow> StopTask(const std::string& name,
                                   std::optional<uint64_t> revision, Time at,
                                   const RequestRow& request) = 0;

  // RUNNING -> FINISHED, its open round -> ABANDONED (whatever its epoch), the
  // round's key overwritten. FAILED_PRECONDITION if the task is not RUNNING.
  virtual Result<TaskRow> FinishTask(uint64_t task_id, Time at,
                                     const std::string& reason) = 0;

  virtual Result<VersionRow> GetVersion(uint64_t task_id, uint64_t version) = 0;
  // By version, from `first` on.
  virtual Result<std::vector<VersionRow>> ListVersions(uint64_t task_id,
                                                       uint64_t first,
                                                       uint32_t limit) = 0;

  // Attaches an evaluation to a version and stores the task's progress, if
  // given, in one transaction. ALREADY_EXISTS: this version has one on this
  // data set; ABORTED unless the task has `revision`.
  virtual Status AddEvaluation(const EvaluationRow& row,
                               const std::optional<TaskProgress>& progress,
                               uint64_t revision) = 0;
  // Of one version, by data set.
  virtual Result<std::vector<EvaluationRow>> ListEvaluations(
      uint64_t task_id, uint64_t version) = 0;

  // --------------------------------------------------------------- rounds
  // Inserts a round in SELECTING. FAILED_PRECONDITION unless the task is
  // RUNNING; ALREADY_EXISTS; ABORTED if row.claim is given and not the token of
  // the task's claim.
  virtual Status OpenRound(const RoundRow& row) = 0;
  // Claims the task for `holder` until Now() + ttl if nobody holds it, its
  // claim has expired, or `holder` has it (the same token then: a renewal, also
  // after it expired as long as nobody else came). Returns whose claim stands,
  // not `holder`'s if another takes it right now. A new token raises the epochs
  // of the task's rounds that have not ended, in the same transaction: whoever
  // read an epoch before is fenced off. NOT_FOUND.
  virtual Result<TaskClaim> ClaimTask(uint64_t task_id,
                                      const std::string& holder,
                                      Duration ttl) = 0;
  // Gives it back before it expires. Nothing happens unless it stands.
  virtual Status ReleaseTask(const TaskClaim& claim) = 0;
  // Raises the epoch: earlier leases are fenced off from now on.
  virtual Result<RoundLease> TakeRound(const RoundKey& key) = 0;
  virtual Result<RoundRow> GetRound(const RoundKey& key) = 0;
  // By number, from `first` on.
  virtual Result<std::vector<RoundRow>> ListRounds(uint64_t task_id,
                                                   uint64_t first,
                                                   uint32_t limit) = 0;
  // The round with the highest number, if there is one.
  virtual Result<std::optional<RoundRow>> LatestRound(uint64_t task_id) = 0;
  // The committed round that measured a version: base_version == version; the
  // first evaluation round, if there was one.
  virtual Result<std::optional<RoundRow>> RoundMeasuring(uint64_t task_id,
                                                         uint64_t version) = 0;

  // Moves between states that are not terminal. ABORTED unless the round is in
  // `from` with the lease's epoch.
  virtual Status Transition(const RoundLease& lease, RoundState from,
                            RoundState to, Time at, uint64_t checked_in) = 0;
  // APPLYING -> COMMITTED with the new version, in one transaction: version
  // row, artefacts, references, the task's counters, the round key overwritten.
  // ABORTED unless the round is APPLYING with this epoch and the version is the
  // task's next.
  virtual Status CommitRound(const RoundLease& lease,
                             const CommittedRound& result, Time at) = 0;
  // APPLYING -> COMMITTED of an evaluation round, which makes no version: its
  // metrics, the task's evaluated_rounds and progress, the round key
  // overwritten. ABORTED unless the round is APPLYING with this epoch.
  virtual Status CommitEvaluation(const RoundLease& lease,
                                  const EvaluatedRound& result, Time at) = 0;
  // `from` -> ABANDONED. The round key is overwritten. Only training rounds
  // count among the task's abandoned_rounds.
  virtual Status AbandonRound(const RoundLease& lease, RoundState from, Time at,
                              const std::string& reason) = 0;
  // In the order they happened.
  virtual Result<std::vector<HistoryRow>> History(const RoundKey& key) = 0;

  // What others than the round's driver tell it: devices that checked in, each
  // at the end of a queue (again, if it is in it). Nothing happens unless the
  // round is SELECTING or COLLECTING. They are forgotten when it ends.
  virtual Status PutCandidates(const RoundKey& key,
                               std::span<const CandidateRow> rows) = 0;
  // Those behind the place `after` (0: all), in the order of the queue. Places
  // are in the order of the commits: none is added before one that was read.
  virtual Result<Candidates> ListCandidates(const RoundKey& key,
                                            uint64_t after) = 0;
  // Text that differs whenever the round's state or epoch, its assignments, its
  // partials or its queue of candidates do. Cheap: for polling.
  virtual Result<std::string> RoundPulse(const RoundKey& key) = 0;

  // --------------------------------------------- assignments and receipts
  // Inserts, or renews the lease of an expired one. ABORTED unless the round
  // is SELECTING or COLLECTING with this epoch.
  virtual Status PutAssignments(const RoundLease& lease,
                                std::span<const AssignmentRow> rows) = 0;
  struct AssignmentChange {
    std::string id;
    AssignmentState state = AssignmentState::kExpired;  // or kLate, kAbandoned
    std::string reason;
  };
  // Changes assignments that are kLeased or kExpired; others stay as they are.
  // Not fenced: it never touches what a round counts.
  virtual Status ChangeAssignments(
      std::span<const AssignmentChange> changes) = 0;
  // Of one round, by id.
  virtual Result<std::vector<AssignmentRecord>> ListAssignments(
      const RoundKey& key) = 0;
  virtual Result<std::optional<AssignmentRecord>> FindAssignment(
      const std::string& id) = 0;
  virtual Result<std::vector<FunnelCount>> CountAssignments(
      const RoundKey& key) = 0;

  // The group commit. Inserts the partial and a receipt for each of its
  // updates, marks their assignments kAccepted, adds bytes_up to the round.
  // Returns the ids that have a receipt already: if there are any, nothing has
  // changed (sum again without them). FAILED_PRECONDITION, and nothing changed,
  // unless the round is SELECTING or COLLECTING; ABORTED for an old epoch;
  // NOT_FOUND for an assignment that is not of this round.
  virtual Result<std::vector<std::string>> CommitPartial(
      const RoundLease& lease, const PartialRow& partial,
      std::span<const ReceiptRow> receipts) = 0;
  virtual Result<std::vector<PartialRow>> ListPartials(const RoundKey& key) = 0;
  // Ids of the partials of rounds that are still open.
  virtual Result<std::vector<std::string>> LivePartials() = 0;
  // Records a refusal, whatever the state of the round, and returns what is
  // recorded for the assignment: this row, or an earlier one.
  virtual Result<ReceiptRow> RecordRefusal(const ReceiptRow& row) = 0;

  // --------------------------------------------------------------- reports
  // Adds the counters unless this device sent this report before.
  virtual Status AddReport(const DeviceIdentity& device,
                           const std::string& report_id, Time at,
                           const std::map<std::string, uint64_t>& counters) = 0;
  virtual Result<std::map<std::string, uint64_t>> ReportTotals(
      const std::string& population) = 0;

  // Forgets receipts and assignments of ended rounds that expired before
  // `before` (their counts stay), and requests and report ids made before it.
  virtual Status Prune(Time before) = 0;
};

}  // namespace selvage::coordinator
