#include "coordinator/telemetry/metered_store.h"

#include <string_view>

namespace selvage::coordinator {
namespace {

// Tells how long it lived.
class Meter {
 public:
  Meter(Telemetry& telemetry, Clock& steady, std::string_view name)
      : telemetry_(telemetry),
        steady_(steady),
        name_(name),
        begun_(steady.Now()) {}
  ~Meter() { telemetry_.DatabaseCalled(name_, steady_.Now() - begun_); }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

 private:
  Telemetry& telemetry_;
  Clock& steady_;
  const std::string_view name_;
  const Time begun_;
};

}  // namespace

Time MeteredStore::Now() { return inner_.Now(); }

uint32_t MeteredStore::schema_version() const {
  return inner_.schema_version();
}

std::string MeteredStore::instance_id() const { return inner_.instance_id(); }

Result<uint64_t> MeteredStore::CertificatesIssued() {
  const Meter meter(telemetry_, steady_, "certificates_issued");
  return inner_.CertificatesIssued();
}

Result<std::optional<RequestRow>> MeteredStore::FindRequest(
    const std::string& id) {
  const Meter meter(telemetry_, steady_, "find_request");
  return inner_.FindRequest(id);
}

Status MeteredStore::CreatePopulation(const PopulationRow& row,
                                      const RequestRow& request) {
  const Meter meter(telemetry_, steady_, "create_population");
  return inner_.CreatePopulation(row, request);
}

Result<PopulationRow> MeteredStore::GetPopulation(const std::string& name) {
  const Meter meter(telemetry_, steady_, "get_population");
  return inner_.GetPopulation(name);
}

Result<std::vector<PopulationRow>> MeteredStore::ListPopulations(
    const std::string& after, uint32_t limit) {
  const Meter meter(telemetry_, steady_, "list_populations");
  return inner_.ListPopulations(after, limit);
}

Status MeteredStore::InsertToken(const TokenRow& row,
                                 const RequestRow& request) {
  const Meter meter(telemetry_, steady_, "insert_token");
  return inner_.InsertToken(row, request);
}

Result<TokenRow> MeteredStore::GetToken(const std::string& id) {
  const Meter meter(telemetry_, steady_, "get_token");
  return inner_.GetToken(id);
}

Result<std::vector<TokenRow>> MeteredStore::ListTokens(
    const std::string& population, const std::string& after, uint32_t limit) {
  const Meter meter(telemetry_, steady_, "list_tokens");
  return inner_.ListTokens(population, after, limit);
}

Result<TokenRow> MeteredStore::RevokeToken(const std::string& id) {
  const Meter meter(telemetry_, steady_, "revoke_token");
  return inner_.RevokeToken(id);
}

Result<DeviceRow> MeteredStore::EnrollDevice(const DeviceRow& row, Time now) {
  const Meter meter(telemetry_, steady_, "enroll_device");
  return inner_.EnrollDevice(row, now);
}

Status MeteredStore::RenewDevice(const DeviceRow& row) {
  const Meter meter(telemetry_, steady_, "renew_device");
  return inner_.RenewDevice(row);
}

Result<DeviceRow> MeteredStore::GetDevice(const std::string& population,
                                          const std::string& device_id) {
  const Meter meter(telemetry_, steady_, "get_device");
  return inner_.GetDevice(population, device_id);
}

Result<std::vector<DeviceIdentity>> MeteredStore::ListDevices() {
  const Meter meter(telemetry_, steady_, "list_devices");
  return inner_.ListDevices();
}

Status MeteredStore::PutArtefact(const crypto::Digest& digest, uint64_t size) {
  const Meter meter(telemetry_, steady_, "put_artefact");
  return inner_.PutArtefact(digest, size);
}

Result<bool> MeteredStore::HasArtefact(const crypto::Digest& digest) {
  const Meter meter(telemetry_, steady_, "has_artefact");
  return inner_.HasArtefact(digest);
}

Result<std::vector<crypto::Digest>> MeteredStore::ListArtefacts() {
  const Meter meter(telemetry_, steady_, "list_artefacts");
  return inner_.ListArtefacts();
}

Result<bool> MeteredStore::IsReferenced(const std::string& population,
                                        const crypto::Digest& digest) {
  const Meter meter(telemetry_, steady_, "is_referenced");
  return inner_.IsReferenced(population, digest);
}

Result<TaskRow> MeteredStore::CreateTask(const NewTask& task,
                                         const RequestRow& request) {
  const Meter meter(telemetry_, steady_, "create_task");
  return inner_.CreateTask(task, request);
}

Result<TaskRow> MeteredStore::GetTask(const std::string& name) {
  const Meter meter(telemetry_, steady_, "get_task");
  return inner_.GetTask(name);
}

Result<TaskRow> MeteredStore::GetTaskById(uint64_t id) {
  const Meter meter(telemetry_, steady_, "get_task_by_id");
  return inner_.GetTaskById(id);
}

Result<std::vector<TaskRow>> MeteredStore::ListTasks(
    const std::string& population, uint64_t after, uint32_t limit) {
  const Meter meter(telemetry_, steady_, "list_tasks");
  return inner_.ListTasks(population, after, limit);
}

Result<TaskRow> MeteredStore::StopTask(const std::string& name,
                                       std::optional<uint64_t> revision,
                                       Time at, const RequestRow& request) {
  const Meter meter(telemetry_, steady_, "stop_task");
  return inner_.StopTask(name, revision, at, request);
}

Result<TaskRow> MeteredStore::FinishTask(uint64_t task_id, Time at,
                                         const std::string& reason) {
  const Meter meter(telemetry_, steady_, "finish_task");
  return inner_.FinishTask(task_id, at, reason);
}

Result<VersionRow> MeteredStore::GetVersion(uint64_t task_id,
                                            uint64_t version) {
  const Meter meter(telemetry_, steady_, "get_version");
  return inner_.GetVersion(task_id, version);
}

Result<std::vector<VersionRow>> MeteredStore::ListVersions(uint64_t task_id,
                                                           uint64_t first,
                                                           uint32_t limit) {
  const Meter meter(telemetry_, steady_, "list_versions");
  return inner_.ListVersions(task_id, first, limit);
}

Status MeteredStore::AddEvaluation(const EvaluationRow& row,
                                   const std::optional<TaskProgress>& progress,
                                   uint64_t revision) {
  const Meter meter(telemetry_, steady_, "add_evaluation");
  return inner_.AddEvaluation(row, progress, revision);
}

Result<std::vector<EvaluationRow>> MeteredStore::ListEvaluations(
    uint64_t task_id, uint64_t version) {
  const Meter meter(telemetry_, steady_, "list_evaluations");
  return inner_.ListEvaluations(task_id, version);
}

Status MeteredStore::OpenRound(const RoundRow& row) {
  const Meter meter(telemetry_, steady_, "open_round");
  return inner_.OpenRound(row);
}

Result<TaskClaim> MeteredStore::ClaimTask(uint64_t task_id,
                                          const std::string& holder,
                                          Duration ttl) {
  const Meter meter(telemetry_, steady_, "claim_task");
  return inner_.ClaimTask(task_id, holder, ttl);
}

Status MeteredStore::ReleaseTask(const TaskClaim& claim) {
  const Meter meter(telemetry_, steady_, "release_task");
  return inner_.ReleaseTask(claim);
}

Result<RoundLease> MeteredStore::TakeRound(const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "take_round");
  return inner_.TakeRound(key);
}

Result<RoundRow> MeteredStore::GetRound(const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "get_round");
  return inner_.GetRound(key);
}

Result<std::vector<RoundRow>> MeteredStore::ListRounds(uint64_t task_id,
                                                       uint64_t first,
                                                       uint32_t limit) {
  const Meter meter(telemetry_, steady_, "list_rounds");
  return inner_.ListRounds(task_id, first, limit);
}

Result<std::optional<RoundRow>> MeteredStore::LatestRound(uint64_t task_id) {
  const Meter meter(telemetry_, steady_, "latest_round");
  return inner_.LatestRound(task_id);
}

Result<std::optional<RoundRow>> MeteredStore::RoundMeasuring(uint64_t task_id,
                                                             uint64_t version) {
  const Meter meter(telemetry_, steady_, "round_measuring");
  return inner_.RoundMeasuring(task_id, version);
}

Status MeteredStore::Transition(const RoundLease& lease, RoundState from,
                                RoundState to, Time at, uint64_t checked_in) {
  const Meter meter(telemetry_, steady_, "transition");
  return inner_.Transition(lease, from, to, at, checked_in);
}

Status MeteredStore::CommitRound(const RoundLease& lease,
                                 const CommittedRound& result, Time at) {
  const Meter meter(telemetry_, steady_, "commit_round");
  return inner_.CommitRound(lease, result, at);
}

Status MeteredStore::CommitEvaluation(const RoundLease& lease,
                                      const EvaluatedRound& result, Time at) {
  const Meter meter(telemetry_, steady_, "commit_evaluation");
  return inner_.CommitEvaluation(lease, result, at);
}

Status MeteredStore::AbandonRound(const RoundLease& lease, RoundState from,
                                  Time at, const std::string& reason) {
  const Meter meter(telemetry_, steady_, "abandon_round");
  return inner_.AbandonRound(lease, from, at, reason);
}

Result<std::vector<HistoryRow>> MeteredStore::History(const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "history");
  return inner_.History(key);
}

Status MeteredStore::PutCandidates(const RoundKey& key,
                                   std::span<const CandidateRow> rows) {
  const Meter meter(telemetry_, steady_, "put_candidates");
  return inner_.PutCandidates(key, rows);
}

Result<Candidates> MeteredStore::ListCandidates(const RoundKey& key,
                                                uint64_t after) {
  const Meter meter(telemetry_, steady_, "list_candidates");
  return inner_.ListCandidates(key, after);
}

Result<std::string> MeteredStore::RoundPulse(const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "round_pulse");
  return inner_.RoundPulse(key);
}

Status MeteredStore::PutAssignments(const RoundLease& lease,
                                    std::span<const AssignmentRow> rows) {
  const Meter meter(telemetry_, steady_, "put_assignments");
  return inner_.PutAssignments(lease, rows);
}

Status MeteredStore::ChangeAssignments(
    std::span<const AssignmentChange> changes) {
  const Meter meter(telemetry_, steady_, "change_assignments");
  return inner_.ChangeAssignments(changes);
}

Result<std::vector<AssignmentRecord>> MeteredStore::ListAssignments(
    const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "list_assignments");
  return inner_.ListAssignments(key);
}

Result<std::optional<AssignmentRecord>> MeteredStore::FindAssignment(
    const std::string& id) {
  const Meter meter(telemetry_, steady_, "find_assignment");
  return inner_.FindAssignment(id);
}

Result<std::vector<FunnelCount>> MeteredStore::CountAssignments(
    const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "count_assignments");
  return inner_.CountAssignments(key);
}

Result<std::vector<std::string>> MeteredStore::CommitPartial(
    const RoundLease& lease, const PartialRow& partial,
    std::span<const ReceiptRow> receipts) {
  const Meter meter(telemetry_, steady_, "commit_partial");
  return inner_.CommitPartial(lease, partial, receipts);
}

Result<std::vector<PartialRow>> MeteredStore::ListPartials(
    const RoundKey& key) {
  const Meter meter(telemetry_, steady_, "list_partials");
  return inner_.ListPartials(key);
}

Result<std::vector<std::string>> MeteredStore::LivePartials() {
  const Meter meter(telemetry_, steady_, "live_partials");
  return inner_.LivePartials();
}

Result<ReceiptRow> MeteredStore::RecordRefusal(const ReceiptRow& row) {
  const Meter meter(telemetry_, steady_, "record_refusal");
  return inner_.RecordRefusal(row);
}

Status MeteredStore::AddReport(
    const DeviceIdentity& device, const std::string& report_id, Time at,
    const std::map<std::string, uint64_t>& counters) {
  const Meter meter(telemetry_, steady_, "add_report");
  return inner_.AddReport(device, report_id, at, counters);
}

Result<std::map<std::string, uint64_t>> MeteredStore::ReportTotals(
    const std::string& population) {
  const Meter meter(telemetry_, steady_, "report_totals");
  return inner_.ReportTotals(population);
}

Status MeteredStore::Prune(Time before) {
  const Meter meter(telemetry_, steady_, "prune");
  return inner_.Prune(before);
}

}  // namespace selvage::coordinator
