#include "coordinator/store/memory_store.h"

#include <algorithm>

#include "coordinator/device_keys.h"
#include "coordinator/store/row_text.h"

namespace selvage::coordinator {

MemoryStore::MemoryStore(Clock& clock, RandomSource& random)
    : clock_(clock, Time{}), instance_id_(NewInstanceId(random)) {}

Time MemoryStore::Now() { return clock_.Now(); }

std::string MemoryStore::instance_id() const { return instance_id_; }

Result<uint64_t> MemoryStore::CertificatesIssued() {
  MutexLock lock(mu_);
  return certificates_;
}

// ---------------------------------------------------------------- requests

bool MemoryStore::RequestIsTaken(const RequestRow& request) const {
  return !request.id.empty() && requests_.contains(request.id);
}

void MemoryStore::Record(const RequestRow& request) {
  if (!request.id.empty()) requests_.emplace(request.id, request);
}

Result<std::optional<RequestRow>> MemoryStore::FindRequest(
    const std::string& id) {
  MutexLock lock(mu_);
  const auto it = requests_.find(id);
  if (it == requests_.end()) return std::optional<RequestRow>();
  return std::optional<RequestRow>(it->second);
}

// ------------------------------------------------ populations, identities

PopulationRow MemoryStore::Counted(PopulationRow row) const {
  for (const auto& [identity, device] : devices_) {
    if (identity.population == row.name) ++row.device_count;
  }
  return row;
}

Status MemoryStore::CreatePopulation(const PopulationRow& row,
                                     const RequestRow& request) {
  MutexLock lock(mu_);
  if (RequestIsTaken(request)) return RequestTaken(request.id);
  if (populations_.contains(row.name)) {
    return AlreadyExists("population " + row.name + " exists");
  }
  PopulationRow stored = row;
  stored.device_count = 0;
  populations_.emplace(row.name, stored);
  Record(request);
  return OkStatus();
}

Result<PopulationRow> MemoryStore::GetPopulation(const std::string& name) {
  MutexLock lock(mu_);
  const auto it = populations_.find(name);
  if (it == populations_.end()) return NotFound("no population " + name);
  return Counted(it->second);
}

Result<std::vector<PopulationRow>> MemoryStore::ListPopulations(
    const std::string& after, uint32_t limit) {
  MutexLock lock(mu_);
  std::vector<PopulationRow> rows;
  for (auto it = populations_.upper_bound(after);
       it != populations_.end() && rows.size() < limit; ++it) {
    rows.push_back(Counted(it->second));
  }
  return rows;
}

Status MemoryStore::InsertToken(const TokenRow& row,
                                const RequestRow& request) {
  MutexLock lock(mu_);
  if (RequestIsTaken(request)) return RequestTaken(request.id);
  if (!populations_.contains(row.population)) {
    return NotFound("no population " + row.population);
  }
  if (!tokens_.emplace(row.id, row).second) {
    return AlreadyExists("token " + row.id + " exists");
  }
  Record(request);
  return OkStatus();
}

Result<TokenRow> MemoryStore::GetToken(const std::string& id) {
  MutexLock lock(mu_);
  const auto it = tokens_.find(id);
  if (it == tokens_.end()) return NotFound("no token " + id);
  return it->second;
}

Result<std::vector<TokenRow>> MemoryStore::ListTokens(
    const std::string& population, const std::string& after, uint32_t limit) {
  MutexLock lock(mu_);
  std::vector<TokenRow> rows;
  for (auto it = tokens_.upper_bound(after);
       it != tokens_.end() && rows.size() < limit; ++it) {
    if (it->second.population == population) rows.push_back(it->second);
  }
  return rows;
}

Result<TokenRow> MemoryStore::RevokeToken(const std::string& id) {
  MutexLock lock(mu_);
  const auto it = tokens_.find(id);
  if (it == tokens_.end()) return NotFound("no token " + id);
  it->second.revoked = true;
  return it->second;
}

Result<DeviceRow> MemoryStore::EnrollDevice(const DeviceRow& row, Time now) {
  MutexLock lock(mu_);
  const auto device = devices_.find({row.population, row.device_id});
  if (device != devices_.end()) {
    SELVAGE_RETURN_IF_ERROR(CheckSameKey(device->second, row));
    if (device->second.token_id == row.token_id) return device->second;
  }
  const auto token = tokens_.find(row.token_id);
  if (token == tokens_.end() || token->second.population != row.population ||
      token->second.revoked || token->second.expires <= now ||
      token->second.uses >= token->second.uses_max) {
    return TokenRefused(row.token_id);
  }
  ++token->second.uses;
  ++certificates_;
  devices_[{row.population, row.device_id}] = row;
  return row;
}

Status MemoryStore::RenewDevice(const DeviceRow& row) {
  MutexLock lock(mu_);
  const auto it = devices_.find({row.population, row.device_id});
  if (it == devices_.end()) {
    return NotFound("device " + row.device_id + " is not enrolled");
  }
  SELVAGE_RETURN_IF_ERROR(CheckSameKey(it->second, row));
  SELVAGE_RETURN_IF_ERROR(CheckNewNonce(it->second, row));
  it->second.certificate_pem = row.certificate_pem;
  it->second.certificate_expires = row.certificate_expires;
  it->second.nonce_made = row.nonce_made;
  ++certificates_;
  return OkStatus();
}

Result<DeviceRow> MemoryStore::GetDevice(const std::string& population,
                                         const std::string& device_id) {
  MutexLock lock(mu_);
  const auto it = devices_.find({population, device_id});
  if (it == devices_.end()) {
    return NotFound("device " + device_id + " is not enrolled");
  }
  return it->second;
}

Result<std::vector<DeviceIdentity>> MemoryStore::ListDevices() {
  MutexLock lock(mu_);
  std::vector<DeviceIdentity> all;
  for (const auto& [identity, row] : devices_) all.push_back(identity);
  return all;
}

// --------------------------------------------------------------- artefacts

Status MemoryStore::PutArtefact(const crypto::Digest& digest, uint64_t size) {
  MutexLock lock(mu_);
  artefacts_.emplace(digest, size);
  return OkStatus();
}

Result<bool> MemoryStore::HasArtefact(const crypto::Digest& digest) {
  MutexLock lock(mu_);
  return artefacts_.contains(digest);
}

Result<std::vector<crypto::Digest>> MemoryStore::ListArtefacts() {
  MutexLock lock(mu_);
  std::vector<crypto::Digest> all;
  for (const auto& [digest, size] : artefacts_) all.push_back(digest);
  return all;
}

Result<bool> MemoryStore::IsReferenced(const std::string& population,
                                       const crypto::Digest& digest) {
  MutexLock lock(mu_);
  return references_.contains({population, digest});
}

// ------------------------------------------------------------------- tasks

TaskRow* MemoryStore::FindTask(uint64_t id) {
  const auto it = tasks_.find(id);
  return it == tasks_.end() ? nullptr : &it->second;
}

TaskRow* MemoryStore::FindTask(const std::string& name) {
  for (auto& [id, task] : tasks_) {
    if (task.name == name) return &task;
  }
  return nullptr;
}

Result<TaskRow> MemoryStore::CreateTask(const NewTask& task,
                                        const RequestRow& request) {
  MutexLock lock(mu_);
  if (RequestIsTaken(request)) return RequestTaken(request.id);
  if (!populations_.contains(task.task.population)) {
    return NotFound("no population " + task.task.population);
  }
  if (FindTask(task.task.name) != nullptr) {
    return AlreadyExists("task " + task.task.name + " exists");
  }
  TaskRow row = task.task;
  row.id = tasks_.empty() ? 1 : tasks_.rbegin()->first + 1;
  row.revision = 1;
  VersionRow initial = task.initial;
  initial.task_id = row.id;
  versions_.emplace(RowId{row.id, initial.version}, initial);
  for (const auto& [digest, size] : task.artefacts) {
    artefacts_.emplace(digest, size);
  }
  for (const crypto::Digest& digest : task.references) {
    references_.emplace(row.population, digest);
  }
  tasks_.emplace(row.id, row);
  Record(request);
  return row;
}

Result<TaskRow> MemoryStore::GetTask(const std::string& name) {
  MutexLock lock(mu_);
  const TaskRow* task = FindTask(name);
  if (task == nullptr) return NotFound("no task " + name);
  return *task;
}

Result<TaskRow> MemoryStore::GetTaskById(uint64_t id) {
  MutexLock lock(mu_);
  const TaskRow* task = FindTask(id);
  if (task == nullptr) return NotFound("no task " + std::to_string(id));
  return *task;
}

Result<std::vector<TaskRow>> MemoryStore::ListTasks(
    const std::string& population, uint64_t after, uint32_t limit) {
  MutexLock lock(mu_);
  std::vector<TaskRow> rows;
  for (auto it = tasks_.upper_bound(after);
       it != tasks_.end() && rows.size() < limit; ++it) {
    if (population.empty() || it->second.population == population) {
      rows.push_back(it->second);
    }
  }
  return rows;
}

Result<TaskRow> MemoryStore::StopTask(const std::string& name,
                                      std::optional<uint64_t> revision, Time at,
                                      const RequestRow& request) {
  MutexLock lock(mu_);
  if (RequestIsTaken(request)) return RequestTaken(request.id);
  TaskRow* task = FindTask(name);
  if (task == nullptr) return NotFound("no task " + name);
  if (revision.has_value() && *revision != task->revision) {
    return WrongRevision(name, task->revision, *revision);
  }
  if (task->state != TaskState::kRunning) {
    return FailedPrecondition("task " + name + " is not running");
  }
  EndOpenRounds(*task, at, "the task was stopped");
  task->state = TaskState::kStopped;
  task->ended = at;
  task->end_reason = "the task was stopped";
  ++task->revision;
  Record(request);
  return *task;
}

void MemoryStore::EndOpenRounds(TaskRow& task, Time at,
                                const std::string& reason) {
  for (auto& [key, round] : rounds_) {
    if (key.task_id != task.id || IsTerminal(round.state)) continue;
    End(round, RoundState::kAbandoned, at, reason);
    if (round.mode == RoundMode::kTrain) ++task.abandoned_rounds;
  }
}

void MemoryStore::Finish(TaskRow& task, Time at, const std::string& reason) {
  task.state = TaskState::kFinished;
  task.ended = at;
  task.end_reason = reason;
}

Result<TaskRow> MemoryStore::FinishTask(uint64_t task_id, Time at,
                                        const std::string& reason) {
  MutexLock lock(mu_);
  TaskRow* task = FindTask(task_id);
  if (task == nullptr) return NotFound("no task " + std::to_string(task_id));
  if (task->state != TaskState::kRunning) {
    return FailedPrecondition("task " + task->name + " is not running");
  }
  EndOpenRounds(*task, at, reason);
  Finish(*task, at, reason);
  ++task->revision;
  return *task;
}

Status MemoryStore::AddEvaluation(const EvaluationRow& row,
                                  const std::optional<TaskProgress>& progress,
                                  uint64_t revision) {
  MutexLock lock(mu_);
  TaskRow* task = FindTask(row.task_id);
  const RowId id{row.task_id, row.version};
  if (task == nullptr || !versions_.contains(id)) {
    return NoVersion(row.task_id, row.version);
  }
  if (evaluations_.contains({id, row.data_set})) {
    return EvaluationExists(row);
  }
  if (task->revision != revision) {
    return WrongRevision(task->name, task->revision, revision);
  }
  evaluations_.emplace(std::pair(id, row.data_set), row);
  if (progress.has_value()) task->progress = *progress;
  ++task->revision;
  return OkStatus();
}

Result<std::vector<EvaluationRow>> MemoryStore::ListEvaluations(
    uint64_t task_id, uint64_t version) {
  MutexLock lock(mu_);
  std::vector<EvaluationRow> rows;
  for (const auto& [key, row] : evaluations_) {
    if (key.first == RowId{task_id, version}) rows.push_back(row);
  }
  return rows;
}

Result<VersionRow> MemoryStore::GetVersion(uint64_t task_id, uint64_t version) {
  MutexLock lock(mu_);
  const auto it = versions_.find({task_id, version});
  if (it == versions_.end()) {
    return NoVersion(task_id, version);
  }
  return it->second;
}

Result<std::vector<VersionRow>> MemoryStore::ListVersions(uint64_t task_id,
                                                          uint64_t first,
                                                          uint32_t limit) {
  MutexLock lock(mu_);
  std::vector<VersionRow> rows;
  for (auto it = versions_.lower_bound({task_id, first});
       it != versions_.end() && it->first.first == task_id &&
       rows.size() < limit;
       ++it) {
    rows.push_back(it->second);
  }
  return rows;
}

// ------------------------------------------------------------------ rounds

Result<RoundRow*> MemoryStore::Held(const RoundLease& lease) {
  const auto it = rounds_.find(lease.key);
  if (it == rounds_.end()) return NotFound("no " + Text(lease.key));
  if (it->second.epoch != lease.epoch) {
    return StaleEpoch(lease, it->second.epoch);
  }
  return &it->second;
}

Result<RoundRow*> MemoryStore::HeldIn(const RoundLease& lease,
                                      RoundState from) {
  SELVAGE_ASSIGN_OR_RETURN(RoundRow * round, Held(lease));
  if (round->state != from) return WrongState(lease.key, round->state, from);
  return round;
}

void MemoryStore::Move(RoundRow& round, RoundState to, Time at,
                       const std::string& reason) {
  history_.push_back(
      HistoryRow{round.key, round.state, to, round.epoch, at, reason});
  round.state = to;
}

void MemoryStore::End(RoundRow& round, RoundState to, Time at,
                      const std::string& reason) {
  Move(round, to, at, reason);
  round.ended = at;
  round.reason = reason;
  std::fill(round.wrapped_key.begin(), round.wrapped_key.end(), uint8_t{0});
  candidates_.erase(round.key);
}

Status MemoryStore::OpenRound(const RoundRow& row) {
  MutexLock lock(mu_);
  const TaskRow* task = FindTask(row.key.task_id);
  if (task == nullptr) {
    return NotFound("no task " + std::to_string(row.key.task_id));
  }
  if (task->state != TaskState::kRunning) {
    return FailedPrecondition("task " + task->name + " is not running");
  }
  if (const auto claim = claims_.find(row.key.task_id);
      row.claim != 0 &&
      (claim == claims_.end() || claim->second.token != row.claim)) {
    return StaleClaim(row.key.task_id, row.claim);
  }
  const auto [it, is_new] = rounds_.emplace(row.key, row);
  if (!is_new) return AlreadyExists(Text(row.key) + " exists");
  it->second.claim = 0;
  it->second.carried.clear();
  for (const std::string& id : row.carried) {
    const auto assignment = assignments_.find(id);
    if (assignment == assignments_.end()) continue;
    AssignmentRow& carried = assignment->second;
    if (carried.round.task_id == row.key.task_id &&
        carried.round.number < row.key.number &&
        carried.state == AssignmentState::kLeased) {
      carried.round = row.key;
    }
  }
  history_.push_back(
      HistoryRow{row.key, std::nullopt, row.state, row.epoch, row.opened, ""});
  return OkStatus();
}

Result<TaskClaim> MemoryStore::ClaimTask(uint64_t task_id,
                                         const std::string& holder,
                                         Duration ttl) {
  const Time now = Now();
  MutexLock lock(mu_);
  if (FindTask(task_id) == nullptr) {
    return NotFound("no task " + std::to_string(task_id));
  }
  TaskClaim& claim = claims_[task_id];
  if (claim.holder != holder) {
    if (!claim.holder.empty() && now < claim.expires) return claim;
    claim.task_id = task_id;
    claim.holder = holder;
    ++claim.token;
    for (auto& [key, round] : rounds_) {
      if (key.task_id == task_id && !IsTerminal(round.state)) ++round.epoch;
    }
  }
  claim.expires = now + ttl;
  return claim;
}

Status MemoryStore::ReleaseTask(const TaskClaim& claim) {
  MutexLock lock(mu_);
  const auto it = claims_.find(claim.task_id);
  if (it == claims_.end() || it->second.token != claim.token) {
    return OkStatus();
  }
  it->second.holder.clear();
  return OkStatus();
}

Result<RoundLease> MemoryStore::TakeRound(const RoundKey& key) {
  MutexLock lock(mu_);
  const auto it = rounds_.find(key);
  if (it == rounds_.end()) return NotFound("no " + Text(key));
  return RoundLease{key, ++it->second.epoch};
}

Result<RoundRow> MemoryStore::GetRound(const RoundKey& key) {
  MutexLock lock(mu_);
  const auto it = rounds_.find(key);
  if (it == rounds_.end()) return NotFound("no " + Text(key));
  return it->second;
}

Result<std::vector<RoundRow>> MemoryStore::ListRounds(uint64_t task_id,
                                                      uint64_t first,
                                                      uint32_t limit) {
  MutexLock lock(mu_);
  std::vector<RoundRow> rows;
  for (auto it = rounds_.lower_bound({task_id, first});
       it != rounds_.end() && it->first.task_id == task_id &&
       rows.size() < limit;
       ++it) {
    rows.push_back(it->second);
  }
  return rows;
}

Result<std::optional<RoundRow>> MemoryStore::LatestRound(uint64_t task_id) {
  MutexLock lock(mu_);
  auto it = rounds_.lower_bound({task_id + 1, 0});
  if (it == rounds_.begin()) return std::optional<RoundRow>();
  --it;
  if (it->first.task_id != task_id) return std::optional<RoundRow>();
  return std::optional<RoundRow>(it->second);
}

Result<std::optional<RoundRow>> MemoryStore::RoundMeasuring(uint64_t task_id,
                                                            uint64_t version) {
  MutexLock lock(mu_);
  std::optional<RoundRow> found;
  for (auto it = rounds_.lower_bound({task_id, 0});
       it != rounds_.end() && it->first.task_id == task_id; ++it) {
    const RoundRow& row = it->second;
    if (row.base_version != version || row.state != RoundState::kCommitted) {
      continue;
    }
    if (!found.has_value() || row.mode > found->mode) found = row;
  }
  return found;
}

Status MemoryStore::Transition(const RoundLease& lease, RoundState from,
                               RoundState to, Time at, uint64_t checked_in) {
  MutexLock lock(mu_);
  SELVAGE_ASSIGN_OR_RETURN(RoundRow * round, HeldIn(lease, from));
  Move(*round, to, at, "");
  round->checked_in = std::max(round->checked_in, checked_in);
  return OkStatus();
}

Status MemoryStore::CommitRound(const RoundLease& lease,
                                const CommittedRound& result, Time at) {
  MutexLock lock(mu_);
  SELVAGE_ASSIGN_OR_RETURN(RoundRow * round,
                           HeldIn(lease, RoundState::kApplying));
  TaskRow* task = FindTask(lease.key.task_id);
  if (result.version.version != task->latest_version + 1) {
    return Aborted("version " + std::to_string(result.version.version) +
                   " does not follow version " +
                   std::to_string(task->latest_version));
  }
  versions_.emplace(RowId{task->id, result.version.version}, result.version);
  for (const auto& [digest, size] : result.artefacts) {
    artefacts_.emplace(digest, size);
  }
  for (const crypto::Digest& digest : result.references) {
    references_.emplace(task->population, digest);
  }
  round->result_version = result.version.version;
  round->metrics = result.metrics;
  round->figures = result.figures;
  End(*round, RoundState::kCommitted, at, "");
  task->latest_version = result.version.version;
  ++task->committed_rounds;
  ++task->revision;
  if (result.progress.has_value()) task->progress = *result.progress;
  if (result.finish_task) Finish(*task, at, result.end_reason);
  return OkStatus();
}

Status MemoryStore::CommitEvaluation(const RoundLease& lease,
                                     const EvaluatedRound& result, Time at) {
  MutexLock lock(mu_);
  SELVAGE_ASSIGN_OR_RETURN(RoundRow * round,
                           HeldIn(lease, RoundState::kApplying));
  round->metrics = result.metrics;
  round->class_metrics = result.class_metrics;
  End(*round, RoundState::kCommitted, at, "");
  TaskRow* task = FindTask(lease.key.task_id);
  ++task->evaluated_rounds;
  ++task->revision;
  if (result.progress.has_value()) task->progress = *result.progress;
  if (result.finish_task) Finish(*task, at, result.end_reason);
  return OkStatus();
}

Status MemoryStore::AbandonRound(const RoundLease& lease, RoundState from,
                                 Time at, const std::string& reason) {
  MutexLock lock(mu_);
  SELVAGE_ASSIGN_OR_RETURN(RoundRow * round, HeldIn(lease, from));
  End(*round, RoundState::kAbandoned, at, reason);
  TaskRow* task = FindTask(lease.key.task_id);
  if (round->mode == RoundMode::kTrain) ++task->abandoned_rounds;
  ++task->revision;
  return OkStatus();
}

Result<std::vector<HistoryRow>> MemoryStore::History(const RoundKey& key) {
  MutexLock lock(mu_);
  std::vector<HistoryRow> rows;
  for (const HistoryRow& row : history_) {
    if (row.key == key) rows.push_back(row);
  }
  return rows;
}

Status MemoryStore::PutCandidates(const RoundKey& key,
                                  std::span<const CandidateRow> rows) {
  MutexLock lock(mu_);
  const auto round = rounds_.find(key);
  if (round == rounds_.end() || !IsOpen(round->second.state)) {
    return OkStatus();
  }
  std::map<uint64_t, CandidateRow>& queue = candidates_[key];
  std::set<std::string> moved;
  for (const CandidateRow& row : rows) moved.insert(row.device_id);
  std::erase_if(queue, [&](const auto& entry) {
    return moved.contains(entry.second.device_id);
  });
  for (const CandidateRow& row : rows) {
    if (moved.erase(row.device_id) == 1) queue.emplace(next_place_++, row);
  }
  return OkStatus();
}

Result<Candidates> MemoryStore::ListCandidates(const RoundKey& key,
                                               uint64_t after) {
  MutexLock lock(mu_);
  Candidates found;
  found.last = after;
  const auto queue = candidates_.find(key);
  if (queue == candidates_.end()) return found;
  for (auto it = queue->second.upper_bound(after); it != queue->second.end();
       ++it) {
    found.rows.push_back(it->second);
    found.last = it->first;
  }
  return found;
}

Result<std::string> MemoryStore::RoundPulse(const RoundKey& key) {
  MutexLock lock(mu_);
  const auto round = rounds_.find(key);
  if (round == rounds_.end()) return NotFound("no " + Text(key));
  std::map<AssignmentState, uint64_t> counts;
  int64_t deadlines = 0;
  for (const auto& [id, row] : assignments_) {
    if (row.round != key) continue;
    ++counts[row.state];
    deadlines += ToMicros(row.lease_deadline) - ToMicros(round->second.opened);
  }
  std::string pulse = std::to_string(static_cast<int>(round->second.state)) +
                      " " + std::to_string(round->second.epoch) + " " +
                      std::to_string(deadlines);
  for (const auto& [state, count] : counts) {
    pulse += " " + std::to_string(static_cast<int>(state)) + "=" +
             std::to_string(count);
  }
  const auto queue = candidates_.find(key);
  if (queue != candidates_.end() && !queue->second.empty()) {
    pulse += " " + std::to_string(queue->second.rbegin()->first);
  }
  return pulse;
}

// ------------------------------------------------ assignments and receipts

Status MemoryStore::PutAssignments(const RoundLease& lease,
                                   std::span<const AssignmentRow> rows) {
  MutexLock lock(mu_);
  SELVAGE_ASSIGN_OR_RETURN(const RoundRow* round, Held(lease));
  if (!IsOpen(round->state)) {
    return WrongState(lease.key, round->state, RoundState::kCollecting);
  }
  for (const AssignmentRow& row : rows) {
    const auto [it, is_new] = assignments_.emplace(row.id, row);
    if (!is_new && IsPending(it->second.state)) {
      it->second.state = AssignmentState::kLeased;
      it->second.lease_deadline = row.lease_deadline;
    }
  }
  return OkStatus();
}

Status MemoryStore::ChangeAssignments(
    std::span<const AssignmentChange> changes) {
  MutexLock lock(mu_);
  for (const AssignmentChange& change : changes) {
    const auto it = assignments_.find(change.id);
    if (it == assignments_.end() || !IsPending(it->second.state)) continue;
    it->second.state = change.state;
    it->second.reason = change.reason;
  }
  return OkStatus();
}

AssignmentRecord MemoryStore::RecordOf(const AssignmentRow& row) const {
  AssignmentRecord record{row, std::nullopt};
  const auto it = receipts_.find(row.id);
  if (it != receipts_.end()) record.receipt = it->second;
  return record;
}

Result<std::vector<AssignmentRecord>> MemoryStore::ListAssignments(
    const RoundKey& key) {
  MutexLock lock(mu_);
  std::vector<AssignmentRecord> records;
  for (const auto& [id, row] : assignments_) {
    if (row.round == key) records.push_back(RecordOf(row));
  }
  return records;
}

Result<std::optional<AssignmentRecord>> MemoryStore::FindAssignment(
    const std::string& id) {
  MutexLock lock(mu_);
  const auto it = assignments_.find(id);
  if (it == assignments_.end()) return std::optional<AssignmentRecord>();
  return std::optional<AssignmentRecord>(RecordOf(it->second));
}

Result<std::vector<FunnelCount>> MemoryStore::CountAssignments(
    const RoundKey& key) {
  MutexLock lock(mu_);
  std::map<std::pair<AssignmentState, std::string>, uint64_t> counts;
  if (const auto it = funnels_.find(key); it != funnels_.end()) {
    counts = it->second;
  }
  for (const auto& [id, row] : assignments_) {
    if (row.round == key) ++counts[{row.state, row.reason}];
  }
  std::vector<FunnelCount> rows;
  for (const auto& [what, count] : counts) {
    rows.push_back(FunnelCount{what.first, what.second, count});
  }
  return rows;
}

Result<std::vector<std::string>> MemoryStore::CommitPartial(
    const RoundLease& lease, const PartialRow& partial,
    std::span<const ReceiptRow> receipts) {
  MutexLock lock(mu_);
  SELVAGE_ASSIGN_OR_RETURN(RoundRow * round, Held(lease));
  if (!IsOpen(round->state)) return RoundClosed(lease.key, round->state);
  std::vector<std::string> conflicts;
  for (const ReceiptRow& receipt : receipts) {
    const auto it = assignments_.find(receipt.assignment_id);
    if (it == assignments_.end() || it->second.round != lease.key) {
      return NotFound("no assignment " + receipt.assignment_id + " in " +
                      Text(lease.key));
    }
    if (!IsPending(it->second.state) ||
        receipts_.contains(receipt.assignment_id)) {
      conflicts.push_back(receipt.assignment_id);
    }
  }
  if (!conflicts.empty()) return conflicts;
  if (!partials_.emplace(partial.id, partial).second) {
    return AlreadyExists("partial " + partial.id + " exists");
  }
  for (const ReceiptRow& receipt : receipts) {
    receipts_.emplace(receipt.assignment_id, receipt);
    AssignmentRow& row = assignments_.find(receipt.assignment_id)->second;
    row.state = AssignmentState::kAccepted;
    row.reason.clear();
  }
  round->bytes_up += partial.bytes_up;
  return conflicts;
}

Result<std::vector<PartialRow>> MemoryStore::ListPartials(const RoundKey& key) {
  MutexLock lock(mu_);
  std::vector<PartialRow> rows;
  for (const auto& [id, row] : partials_) {
    if (row.round == key) rows.push_back(row);
  }
  return rows;
}

Result<std::vector<std::string>> MemoryStore::LivePartials() {
  MutexLock lock(mu_);
  std::vector<std::string> ids;
  for (const auto& [id, row] : partials_) {
    const auto round = rounds_.find(row.round);
    if (round != rounds_.end() && !IsTerminal(round->second.state)) {
      ids.push_back(id);
    }
  }
  return ids;
}

Result<ReceiptRow> MemoryStore::RecordRefusal(const ReceiptRow& row) {
  MutexLock lock(mu_);
  const auto assignment = assignments_.find(row.assignment_id);
  if (assignment == assignments_.end()) {
    return NotFound("no assignment " + row.assignment_id);
  }
  const auto [it, is_new] = receipts_.emplace(row.assignment_id, row);
  if (is_new && IsPending(assignment->second.state)) {
    assignment->second.state = AssignmentState::kRejected;
    assignment->second.reason = RejectReasonName(row.reason);
  }
  return it->second;
}

// ----------------------------------------------------------------- reports

Status MemoryStore::AddReport(const DeviceIdentity& device,
                              const std::string& report_id, Time at,
                              const std::map<std::string, uint64_t>& counters) {
  MutexLock lock(mu_);
  if (!reports_.try_emplace({device, report_id}, at).second) return OkStatus();
  for (const auto& [name, value] : counters) {
    counters_[{device.population, name}] += value;
  }
  return OkStatus();
}

Result<std::map<std::string, uint64_t>> MemoryStore::ReportTotals(
    const std::string& population) {
  MutexLock lock(mu_);
  std::map<std::string, uint64_t> totals;
  for (const auto& [key, value] : counters_) {
    if (key.first == population) totals.emplace(key.second, value);
  }
  return totals;
}

Status MemoryStore::Prune(Time before) {
  MutexLock lock(mu_);
  std::erase_if(assignments_, [&](const auto& entry) SELVAGE_REQUIRES(mu_) {
    const AssignmentRow& row = entry.second;
    const auto round = rounds_.find(row.round);
    if (row.expires >= before || round == rounds_.end() ||
        !IsTerminal(round->second.state)) {
      return false;
    }
    ++funnels_[row.round][{row.state, row.reason}];
    receipts_.erase(row.id);
    return true;
  });
  std::erase_if(requests_,
                [&](const auto& e) { return e.second.created < before; });
  std::erase_if(reports_, [&](const auto& e) { return e.second < before; });
  return OkStatus();
}

}  // namespace selvage::coordinator
