// A Store that tells how long the calls of another one take, by the method's
// name.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "coordinator/store.h"
#include "coordinator/telemetry.h"

namespace selvage::coordinator {

// Thread-safe. `inner`, `steady` and `telemetry` must outlive it; of `steady`
// only differences matter.
class MeteredStore final : public Store {
 public:
  MeteredStore(Store& inner, Clock& steady, Telemetry& telemetry)
      : inner_(inner), steady_(steady), telemetry_(telemetry) {}

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
  Result<VersionRow> GetVersion(uint64_t task_id, uint64_t version) override;
  Result<std::vector<VersionRow>> ListVersions(uint64_t task_id, uint64_t first,
                                               uint32_t limit) override;
  Status AddEvaluation(const EvaluationRow& row,
                       const std::optional<TaskProgress>& progress,
                       uint64_t revision) override;
  Result<std::vector<EvaluationRow>> ListEvaluations(uint64_t task_id,
                                                     uint64_t version) override;
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
  Store& inner_;
  Clock& steady_;
  Telemetry& telemetry_;
};

}  // namespace selvage::coordinator
