// A Store in memory: for tests and simulations, and the plainest statement of
// what a Store does. Durable for as long as the object lives.
#pragma once

#include <map>
#include <set>
#include <utility>

#include "base/mutex.h"
#include "base/random.h"
#include "coordinator/store.h"
#include "coordinator/store/monotone_clock.h"

namespace selvage::coordinator {

class MemoryStore final : public Store {
 public:
  // `clock` must outlive the store.
  MemoryStore(Clock& clock, RandomSource& random);

  Time Now() override;
  uint32_t schema_version() const override { return 0; }
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

 private:
  using RowId = std::pair<uint64_t, uint64_t>;  // (task, version)

  bool RequestIsTaken(const RequestRow& request) const SELVAGE_REQUIRES(mu_);
  void Record(const RequestRow& request) SELVAGE_REQUIRES(mu_);
  TaskRow* FindTask(uint64_t id) SELVAGE_REQUIRES(mu_);
  TaskRow* FindTask(const std::string& name) SELVAGE_REQUIRES(mu_);
  PopulationRow Counted(PopulationRow row) const SELVAGE_REQUIRES(mu_);
  // NOT_FOUND, or ABORTED unless the round has this epoch.
  Result<RoundRow*> Held(const RoundLease& lease) SELVAGE_REQUIRES(mu_);
  // The same, and ABORTED unless it is in `from`.
  Result<RoundRow*> HeldIn(const RoundLease& lease, RoundState from)
      SELVAGE_REQUIRES(mu_);
  void Move(RoundRow& round, RoundState to, Time at, const std::string& reason)
      SELVAGE_REQUIRES(mu_);
  void End(RoundRow& round, RoundState to, Time at, const std::string& reason)
      SELVAGE_REQUIRES(mu_);
  void EndOpenRounds(TaskRow& task, Time at, const std::string& reason)
      SELVAGE_REQUIRES(mu_);
  static void Finish(TaskRow& task, Time at, const std::string& reason);
  AssignmentRecord RecordOf(const AssignmentRow& row) const
      SELVAGE_REQUIRES(mu_);

  MonotoneClock clock_;
  const std::string instance_id_;

  Mutex mu_;
  std::map<std::string, RequestRow> requests_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::string, PopulationRow> populations_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::string, TokenRow> tokens_ SELVAGE_GUARDED_BY(mu_);
  std::map<DeviceIdentity, DeviceRow> devices_ SELVAGE_GUARDED_BY(mu_);
  uint64_t certificates_ SELVAGE_GUARDED_BY(mu_) = 0;
  std::map<crypto::Digest, uint64_t> artefacts_ SELVAGE_GUARDED_BY(mu_);
  std::set<std::pair<std::string, crypto::Digest>> references_
      SELVAGE_GUARDED_BY(mu_);
  std::map<uint64_t, TaskRow> tasks_ SELVAGE_GUARDED_BY(mu_);
  std::map<RowId, VersionRow> versions_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::pair<RowId, std::string>, EvaluationRow> evaluations_
      SELVAGE_GUARDED_BY(mu_);
  std::map<uint64_t, TaskClaim> claims_ SELVAGE_GUARDED_BY(mu_);
  // By the place in the queue.
  std::map<RoundKey, std::map<uint64_t, CandidateRow>> candidates_
      SELVAGE_GUARDED_BY(mu_);
  uint64_t next_place_ SELVAGE_GUARDED_BY(mu_) = 1;
  std::map<RoundKey, RoundRow> rounds_ SELVAGE_GUARDED_BY(mu_);
  std::vector<HistoryRow> history_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::string, AssignmentRow> assignments_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::string, ReceiptRow> receipts_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::string, PartialRow> partials_ SELVAGE_GUARDED_BY(mu_);
  // Counts of pruned assignments.
  std::map<RoundKey,
           std::map<std::pair<AssignmentState, std::string>, uint64_t>>
      funnels_ SELVAGE_GUARDED_BY(mu_);
  std::map<std::pair<DeviceIdentity, std::string>, Time> reports_
      SELVAGE_GUARDED_BY(mu_);
  std::map<std::pair<std::string, std::string>, uint64_t> counters_
      SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator
