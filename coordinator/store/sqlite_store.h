// The Store of a single-process coordinator: one SQLite database in WAL mode
// with synchronous=FULL (a commit is on disk before it returns), foreign keys
// and secure_delete (what is overwritten is gone from the file).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/file_lock.h"
#include "base/mutex.h"
#include "base/random.h"
#include "coordinator/store.h"
#include "coordinator/store/monotone_clock.h"

namespace selvage::coordinator {

class SqliteConnection;

// In a coordinator's data directory: held while a process works in it.
inline constexpr char kLockFile[] = "LOCK";

struct SqliteStoreOptions {
  Path path;  // of the database file; its directory must exist
  // Locks the directory against a second process. Off only where the file lives
  // in a VFS that no second process can see.
  bool lock_directory = true;
  std::string vfs{};  // empty: the default
  Duration busy_timeout = std::chrono::seconds(5);
};

class SqliteStore final : public Store {
 public:
  // Opens or creates the database and brings its schema up to date.
  // FAILED_PRECONDITION: another process has it, it is not a Selvage database,
  // or its schema is newer than this program's. DATA_LOSS: SQLite finds it
  // malformed. `clock` must outlive the store.
  static Result<std::unique_ptr<SqliteStore>> Open(
      const SqliteStoreOptions& options, Clock& clock, RandomSource& random);
  ~SqliteStore() override;

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

  // Copies the rows as of one moment to a new database file, durably and a
  // stretch at a time, so that others wait little; without the keys of rounds.
  // Returns the artefacts it names. CANCELLED once `stop` says so; then, and
  // after another error, the file is of no use.
  Result<std::vector<crypto::Digest>> Snapshot(
      const Path& to, const std::function<bool()>& stop) SELVAGE_EXCLUDES(mu_);

  // For an older state that was put back, before anybody works on it, in one
  // transaction (docs/decisions/0013): the instance gets a new `epoch`
  // ([a-z0-9]{1,32}); open rounds are ABANDONED; enrolment tokens are revoked;
  // running tasks go on with numbers of rounds and versions that nobody has
  // seen, beginning with a version of the same model. Returns the new
  // instance id; this object keeps saying the old one.
  Result<std::string> BeginEpoch(const std::string& epoch, Time at);

 private:
  using Body = std::function<Status(SqliteConnection& db)>;

  SqliteStore(std::unique_ptr<FileLock> lock,
              std::unique_ptr<SqliteConnection> db, Clock& clock, Time floor,
              std::string instance_id, uint32_t schema_version);

  // Runs `body` and turns SQLite's exceptions into a Status.
  Status Read(const Body& body) SELVAGE_EXCLUDES(mu_);
  // The same in one immediate transaction, which also saves the high-water mark
  // of Now(). Rolled back unless `body` returns OK.
  Status Write(const Body& body) SELVAGE_EXCLUDES(mu_);
  // After a key was overwritten: no copy of it stays in the log.
  void TruncateLog() SELVAGE_EXCLUDES(mu_);

  const std::unique_ptr<FileLock> lock_;
  const std::unique_ptr<SqliteConnection> db_;
  MonotoneClock clock_;
  const std::string instance_id_;
  const uint32_t schema_version_;
  Mutex mu_;  // one connection, one user at a time
};

}  // namespace selvage::coordinator
