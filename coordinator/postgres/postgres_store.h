// The Store of a coordinator that runs as several replicas: PostgreSQL 13 or
// newer. A commit is as durable as the server's commits are: acknowledged
// updates survive a failover only with a synchronous standby.
//
// Works through PgBouncer in transaction mode: no state of a session is used,
// and everything a transaction needs is set with SET LOCAL.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "coordinator/postgres/connection_pool.h"
#include "coordinator/store.h"
#include "coordinator/store/monotone_clock.h"

namespace selvage::coordinator {

// The channel of NOTIFY; the payload is "TASK_ID/ROUND". A hint to look, sent
// when a round changes its state; it may get lost.
inline constexpr char kRoundChannel[] = "selvage_round";

struct PostgresStoreOptions {
  ConnectOptions connect;
  size_t pool_size = 8;
  // Bound on one statement, on waiting for one lock, and on a whole call with
  // its retries and its wait for a connection. What is left of the last bounds
  // the others.
  Duration statement_timeout = std::chrono::seconds(5);
  Duration lock_timeout = std::chrono::seconds(3);
  Duration operation_timeout = std::chrono::seconds(15);
  // Brings an older or missing schema up to date; otherwise it is refused.
  bool migrate = false;
};

// A coordinator process that has the database open.
struct ReplicaRow {
  std::string name;     // of its place: another process there is its successor
  std::string session;  // of the process
  bool shared = false;  // tolerates others that do, too
  std::string keys;     // a fingerprint of what all of them must share
};

// Thread-safe; at most `pool_size` calls are in the database at once.
class PostgresStore final : public Store {
 public:
  // UNAVAILABLE: no connection. FAILED_PRECONDITION: the schema is newer than
  // this program's, or older and not to be migrated; the server is too old or
  // does not make commits durable (synchronous_commit, fsync off).
  // Of `clock` only differences matter; it should be steady, and must outlive
  // the store.
  static Result<std::unique_ptr<PostgresStore>> Open(
      const PostgresStoreOptions& options, Clock& clock, RandomSource& random);

  Time Now() override;
  uint32_t schema_version() const override;
  std::string instance_id() const override;
  Result<uint64_t> CertificatesIssued() override;
  Result<std::optional<RequestRow>> FindRequest(const std::string& id) override;
  Status CreatePopulation(const PopulationRow& row,
                          const RequestRow& request) override;
  Result<PopulationRow> GetPopulation(const std::string& name) override;
  Result<std::vector<PopulationRow>> ListPopulations(const std::string& after,
                                                     uint32_t limit) override;
  Status InsertToken(const TokenRow& row, const RequestRow& request) override;
  Result<TokenRow> GetToken(const std::string& id) override;
  Result<std::vector<TokenRow>> ListTokens(const std::string& population,
                                           const std::string& after,
                                           uint32_t limit) override;
  Result<TokenRow> RevokeToken(const std::string& id) override;
  Result<DeviceRow> EnrollDevice(const DeviceRow& row, Time now) override;
  Status RenewDevice(const DeviceRow& row) override;
  Result<DeviceRow> GetDevice(const std::string& population,
                              const std::string& device_id) override;
  Result<std::vector<DeviceIdentity>> ListDevices() override;
  Status PutArtefact(const crypto::Digest& digest, uint64_t size) override;
  Result<bool> HasArtefact(const crypto::Digest& digest) override;
  Result<std::vector<crypto::Digest>> ListArtefacts() override;
  Result<bool> IsReferenced(const std::string& population,
                            const crypto::Digest& digest) override;
  Result<TaskRow> CreateTask(const NewTask& task,
                             const RequestRow& request) override;
  Result<TaskRow> GetTask(const std::string& name) override;
  Result<TaskRow> GetTaskById(uint64_t id) override;
  Result<std::vector<TaskRow>> ListTasks(const std::string& population,
                                         uint64_t after,
                                         uint32_t limit) override;
  Result<TaskRow> StopTask(const std::string& name,
                           std::optional<uint64_t> revision, Time at,
                           const RequestRow& request) override;
  Result<TaskRow> FinishTask(uint64_t task_id, Time at,
                             const std::string& reason) override;
  Status AddEvaluation(const EvaluationRow& row,
                       const std::optional<TaskProgress>& progress,
                       uint64_t revision) override;
  Result<std::vector<EvaluationRow>> ListEvaluations(uint64_t task_id,
                                                     uint64_t version) override;
  Result<VersionRow> GetVersion(uint64_t task_id, uint64_t version) override;
  Result<std::vector<VersionRow>> ListVersions(uint64_t task_id, uint64_t first,
                                               uint32_t limit) override;
  Status OpenRound(const RoundRow& row) override;
  Result<TaskClaim> ClaimTask(uint64_t task_id, const std::string& holder,
                              Duration ttl) override;
  Status ReleaseTask(const TaskClaim& claim) override;
  Result<RoundLease> TakeRound(const RoundKey& key) override;
  Result<RoundRow> GetRound(const RoundKey& key) override;
  Result<std::vector<RoundRow>> ListRounds(uint64_t task_id, uint64_t first,
                                           uint32_t limit) override;
  Result<std::optional<RoundRow>> LatestRound(uint64_t task_id) override;
  Result<std::optional<RoundRow>> RoundMeasuring(uint64_t task_id,
                                                 uint64_t version) override;
  Status Transition(const RoundLease& lease, RoundState from, RoundState to,
                    Time at, uint64_t checked_in) override;
  Status CommitRound(const RoundLease& lease, const CommittedRound& result,
                     Time at) override;
  Status CommitEvaluation(const RoundLease& lease, const EvaluatedRound& result,
                          Time at) override;
  Status AbandonRound(const RoundLease& lease, RoundState from, Time at,
                      const std::string& reason) override;
  Result<std::vector<HistoryRow>> History(const RoundKey& key) override;
  Status PutCandidates(const RoundKey& key,
                       std::span<const CandidateRow> rows) override;
  Result<Candidates> ListCandidates(const RoundKey& key,
                                    uint64_t after) override;
  Result<std::string> RoundPulse(const RoundKey& key) override;
  Status PutAssignments(const RoundLease& lease,
                        std::span<const AssignmentRow> rows) override;
  Status ChangeAssignments(std::span<const AssignmentChange> changes) override;
  Result<std::vector<AssignmentRecord>> ListAssignments(
      const RoundKey& key) override;
  Result<std::optional<AssignmentRecord>> FindAssignment(
      const std::string& id) override;
  Result<std::vector<FunnelCount>> CountAssignments(
      const RoundKey& key) override;
  Result<std::vector<std::string>> CommitPartial(
      const RoundLease& lease, const PartialRow& partial,
      std::span<const ReceiptRow> receipts) override;
  Result<std::vector<PartialRow>> ListPartials(const RoundKey& key) override;
  Result<std::vector<std::string>> LivePartials() override;
  Result<ReceiptRow> RecordRefusal(const ReceiptRow& row) override;
  Status AddReport(const DeviceIdentity& device, const std::string& report_id,
                   Time at,
                   const std::map<std::string, uint64_t>& counters) override;
  Result<std::map<std::string, uint64_t>> ReportTotals(
      const std::string& population) override;
  Status Prune(Time before) override;

  // ------------------------------------------------------------ replicas
  // Writes down that this process is here until Now() + ttl; again and again,
  // or it is forgotten. Returns the names of the others. FAILED_PRECONDITION
  // if one of them, or this one, is not to be shared with, or has other keys.
  // With `enter` it takes the place of a process of the same name, else
  // ABORTED: another process has taken this one's place.
  Result<std::vector<std::string>> KeepReplica(const ReplicaRow& row,
                                               Duration ttl, bool enter);
  // It is not here any more. Nothing happens if its place was taken.
  Status RemoveReplica(const ReplicaRow& row);

  // Connections that calls hold now.
  size_t connections_in_use() { return pool_.in_use(); }

  // For an older state that the database's own tools put back, before anybody
  // works on it: as SqliteStore::BeginEpoch. Callers see to it with
  // KeepReplica() that nobody does.
  Result<std::string> BeginEpoch(const std::string& epoch, Time at);

 private:
  using Body = std::function<Status(Connection& db)>;
  enum class Mode { kRead, kWrite };

  PostgresStore(const PostgresStoreOptions& options, Clock& clock);

  // Runs `body` in one read-only snapshot. It may run several times, so it must
  // begin by emptying what it fills. `what` names the rows, for errors.
  Status Read(const std::string& what, const Body& body);
  // Runs `body` in one READ COMMITTED transaction, rolled back unless it
  // returns OK, and again if the transaction lost a deadlock or its connection
  // before COMMIT was sent. UNAVAILABLE when the answer to COMMIT was lost:
  // then it may have happened.
  Status Write(const std::string& what, const Body& body);
  Status Run(Mode mode, const std::string& what, const Body& body);
  void Begin(Connection& db, Mode mode, Duration left);

  // FAILED_PRECONDITION as in Open().
  Status CheckServer();
  Status PrepareSchema();
  Status PrepareInstance(RandomSource& random);

  const PostgresStoreOptions options_;
  Clock& steady_;
  // The database's clock: every transaction reads it, and a steady clock counts
  // on from there. A failover to a machine whose clock is slow does not set it
  // back.
  MonotoneClock clock_;
  ConnectionPool pool_;
  std::string instance_id_;
  uint32_t schema_version_ = 0;
};

}  // namespace selvage::coordinator
