// How a driver shares its task with those of other coordinators over the same
// store (docs/decisions/0011-rounds-across-replicas.md).
#include <utility>

#include "coordinator/task_driver.h"

namespace selvage::coordinator {

Status TaskDriver::Sync(Time now, bool drain) {
  if (now < next_sync_) return OkStatus();
  next_sync_ = now + context_.options.replicas.poll;
  if (!drain) SELVAGE_RETURN_IF_ERROR(Claim(now));
  return drives_ ? Hear(now) : Mirror();
}

Status TaskDriver::Claim(Time now) {
  const Duration ttl = context_.options.replicas.claim_ttl;
  if (drives_ && now < claim_.expires - ttl * 2 / 3) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(
      TaskClaim claim,
      context_.deps.store.ClaimTask(task_id_, context_.replica, ttl));
  const bool drives = claim.holder == context_.replica;
  if (context_.deps.telemetry != nullptr) {
    const bool another = claim.token != claim_.token;
    if (drives_ && (!drives || another)) context_.deps.telemetry->LeaseLost();
    if (drives && (!drives_ || another)) {
      context_.deps.telemetry->LeaseAcquired();
    }
  }
  if (drives != drives_ || claim.token != claim_.token) {
    context_.deps.events.Write(LogLevel::kInfo, "task_claim",
                               {{"task", row_.name},
                                {"holder", claim.holder},
                                {"token", claim.token},
                                {"here", drives ? "yes" : "no"}});
    if (drives || drives_) {
      SetRound(std::nullopt);
      content_.reset();
    }
    pulse_.clear();
  }
  claim_ = std::move(claim);
  drives_ = drives;
  if (drives_) {
    context_.claims->Hold(claim_);
  } else {
    context_.claims->Drop(task_id_);
  }
  return OkStatus();
}

Status TaskDriver::ConfirmClaim() {
  SELVAGE_ASSIGN_OR_RETURN(
      TaskClaim claim,
      context_.deps.store.ClaimTask(task_id_, context_.replica,
                                    context_.options.replicas.claim_ttl));
  if (claim.holder != context_.replica || claim.token != claim_.token) {
    drives_ = false;
    if (context_.deps.telemetry != nullptr) {
      context_.deps.telemetry->LeaseLost();
    }
    return Aborted("task " + row_.name + " is driven by " + claim.holder +
                   " now");
  }
  claim_ = std::move(claim);
  context_.claims->Hold(claim_);
  return OkStatus();
}

void TaskDriver::GiveBackClaim() {
  context_.claims->Drop(task_id_);
  // If it cannot be given back, it expires.
  (void)context_.deps.store.ReleaseTask(claim_);
  drives_ = false;
  pulse_.clear();
  next_sync_ = Time{};
}

Status TaskDriver::Hear(Time now) {
  if (!round().has_value() || !round()->open()) return OkStatus();
  Store& store = context_.deps.store;
  SELVAGE_ASSIGN_OR_RETURN(std::string pulse, store.RoundPulse(lease_.key));
  if (pulse == pulse_) return OkStatus();
  // What changes while it is read changes the pulse again.
  pulse_ = std::move(pulse);
  changed_ = true;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<AssignmentRecord> records,
                           store.ListAssignments(lease_.key));
  UpdatesAccepted accepted;
  for (const AssignmentRecord& record : records) {
    const std::string& device = record.assignment.device_id;
    const Round::Member* member = round()->Find(device);
    if (member == nullptr || member->state == Round::MemberState::kAccepted ||
        member->state == Round::MemberState::kDone) {
      continue;
    }
    switch (record.assignment.state) {
      case AssignmentState::kAccepted:
        accepted.devices.push_back(device);
        break;
      case AssignmentState::kRejected:
        Step(UpdateRefused{device}, now);
        break;
      case AssignmentState::kAbandoned:
      case AssignmentState::kLate:
        Step(GaveUp{device}, now);
        break;
      case AssignmentState::kLeased:
      case AssignmentState::kExpired:
        break;
    }
  }
  if (!accepted.devices.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<PartialRow> partials,
                             store.ListPartials(lease_.key));
    partials_.clear();
    for (const PartialRow& partial : partials) partials_.push_back(partial.id);
    Step(std::move(accepted), now);
  }
  SELVAGE_ASSIGN_OR_RETURN(const Candidates queue,
                           store.ListCandidates(lease_.key, candidates_read_));
  const bool evaluates = round()->config().mode == RoundMode::kEvaluate;
  for (const CandidateRow& row : queue.rows) {
    if (evaluates) classes_.emplace(row.device_id, row.device_class);
    Step(CheckedIn{row.device_id}, now);
  }
  candidates_read_ = queue.last;
  return Persist(now);
}

Status TaskDriver::Mirror() {
  Store& store = context_.deps.store;
  SELVAGE_ASSIGN_OR_RETURN(TaskRow row, store.GetTaskById(task_id_));
  changed_ = changed_ || row.revision != row_.revision;
  row_ = std::move(row);
  if (row_.state != TaskState::kRunning) {
    End();
    return OkStatus();
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<RoundRow> latest,
                           store.LatestRound(task_id_));
  const bool ended =
      latest.has_value() && (latest->state == RoundState::kCommitted ||
                             latest->state == RoundState::kAbandoned);
  if (ended) {
    RememberOutcome(latest->key, latest->state);
    {
      MutexLock lock(mu_);
      last_ended_ = latest->key.number;
    }
    // Uploads are taken for rounds that are known to be open.
    AnswerUploads(
        asynchronous()
            ? batch_.TakeAll(Unavailable("the next version is being opened"))
            : batch_.CloseOut(store,
                              context_.pace.AfterWork(row_.population, false)));
  }
  if (ended || !latest.has_value()) {
    SetRound(std::nullopt);
    return OkStatus();
  }
  SELVAGE_ASSIGN_OR_RETURN(std::string pulse, store.RoundPulse(latest->key));
  const bool is_new = !round().has_value() || lease_.key != latest->key;
  if (!is_new && pulse == pulse_) return OkStatus();
  if (is_new) {
    announced_.clear();
    MutexLock lock(mu_);
    last_ended_ = latest->key.number - 1;
  }
  SELVAGE_RETURN_IF_ERROR(RestoreRound(*latest));
  // Once there are assignments, a free slot goes to who asks for it then.
  if (round()->state() != RoundState::kSelecting) announced_.clear();
  pulse_ = std::move(pulse);
  changed_ = true;
  return OkStatus();
}

Status TaskDriver::Follow(Time now, bool drain) {
  Store& store = context_.deps.store;
  events_.clear();  // what they say is in the store, or the driver's business
  std::vector<Store::AssignmentChange> changes;
  for (WaitingGaveUp& waiting : std::exchange(gave_up_, {})) {
    changes.push_back(std::move(waiting.change));
  }
  if (!changes.empty()) {
    SELVAGE_RETURN_IF_ERROR(store.ChangeAssignments(changes));
    next_sync_ = Time{};
  }
  if (!round().has_value()) return OkStatus();
  if (FlushIsDue(now, drain)) SELVAGE_RETURN_IF_ERROR(Flush(now));
  const bool evaluates = round()->config().mode == RoundMode::kEvaluate;
  std::vector<CandidateRow> candidates;
  for (WaitingCheckIn& waiting : check_ins_) {
    const std::string& device = waiting.device.device_id;
    if (evaluates && !waiting.traits.evaluates) continue;
    if (!round()->Wants(device)) continue;
    const Round::Member* member = round()->Find(device);
    if (member != nullptr &&
        (member->state == Round::MemberState::kLeased ||
         member->state == Round::MemberState::kUploading)) {
      waiting.verdict = CheckInVerdict::kAssigned;
      continue;
    }
    waiting.verdict = CheckInVerdict::kCandidate;
    if (!announced_.insert(device).second) continue;
    candidates.push_back({device, waiting.traits.device_class.empty()
                                      ? "unknown"
                                      : waiting.traits.device_class});
  }
  if (candidates.empty()) return OkStatus();
  const Status put = store.PutCandidates(lease_.key, candidates);
  if (!put.ok()) announced_.clear();
  return put;
}

}  // namespace selvage::coordinator
