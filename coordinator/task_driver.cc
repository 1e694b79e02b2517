// The driver's public face and the handling of what happened. How a round is
// opened, restored, finished and ended: task_driver_rounds.cc.
#include "coordinator/task_driver.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/random.h"

namespace selvage::coordinator {
namespace {

constexpr Duration kRecoveryPause = std::chrono::seconds(1);
constexpr Duration kRacePause = std::chrono::milliseconds(10);

}  // namespace

TaskDriver::TaskDriver(const Context& context, TaskRow row,
                       std::shared_ptr<const TaskDefinition> definition)
    : context_(context),
      task_id_(row.id),
      definition_(std::move(definition)),
      row_(std::move(row)),
      batch_({plan::HoldsUpdates(definition_->spec.strategy.name)
                  ? std::min(context.options.batch_updates_max,
                             HeldBatchMax(*definition_))
                  : context.options.batch_updates_max,
              context.options.batch_age_max}),
      sums_(context.sums_room),
      drives_(context.replica.empty()) {}

// -------------------------------------------------------------- any thread

bool TaskDriver::Wants(const std::string& device,
                       const DeviceTraits& traits) const {
  MutexLock lock(mu_);
  if (!round_.has_value()) return false;
  const bool able =
      round_->config().mode == RoundMode::kTrain || traits.evaluates;
  return able && round_->Wants(device);
}

bool TaskDriver::Holds(const std::string& device) const {
  MutexLock lock(mu_);
  if (!round_.has_value()) return false;
  const Round::Member* const member = round_->Find(device);
  return member != nullptr && (member->state == Round::MemberState::kLeased ||
                               member->state == Round::MemberState::kUploading);
}

Gathering TaskDriver::gathering() const {
  MutexLock lock(mu_);
  if (!round_.has_value()) return {};
  const RoundConfig& config = round_->config();
  // A draw that waits for nobody needs no meeting.
  if (config.buffered || config.selection_window <= Duration::zero()) return {};
  return {config.available_min, config.selection_window};
}

UploadSink::Door TaskDriver::DoorOf(uint64_t round) const {
  using Door = UploadSink::Door;
  MutexLock lock(mu_);
  if (closed_) return Door::kClosed;
  if (asynchronous()) {
    // It counts in the next version if this one closes first.
    if (!round_.has_value() || round > round_->config().number) {
      return Door::kUnavailable;
    }
    return round == round_->config().number ? Door::kOpen : Door::kClosed;
  }
  if (round <= last_ended_) return Door::kClosed;
  if (!round_.has_value()) return Door::kUnavailable;
  if (round_->config().number != round) {
    // Of a round that another coordinator opened and this one will hear of.
    return shared() && round > round_->config().number ? Door::kUnavailable
                                                       : Door::kClosed;
  }
  if (!round_->open()) return Door::kClosed;
  return round_->config().mode == RoundMode::kEvaluate ? Door::kEvaluates
                                                       : Door::kOpen;
}

uint64_t TaskDriver::CheckInCount(uint64_t round) const {
  MutexLock lock(mu_);
  if (!round_.has_value() || round_->config().number != round) return 0;
  return round_->checked_in();
}

void TaskDriver::SetRound(std::optional<Round> round) {
  MutexLock lock(mu_);
  round_ = std::move(round);
}

// ------------------------------------------------------------------ inputs

void TaskDriver::OnCheckIn(const DeviceIdentity& device, DeviceTraits traits,
                           CheckInAnswer answer, CheckInCallback done) {
  check_ins_.push_back(
      {device, std::move(traits), std::move(answer), std::move(done)});
}

void TaskDriver::OnUpload(VerifiedUpload upload) {
  if (const auto it = classes_.find(upload.device_id); it != classes_.end()) {
    upload.device_class = it->second;
  }
  batch_.Add(std::move(upload), context_.deps.store.Now());
}

void TaskDriver::OnEvent(uint64_t round, const RoundEvent& event) {
  events_.push_back({round, event});
}

void TaskDriver::OnGaveUp(uint64_t round, const std::string& device,
                          const std::string& assignment_id,
                          AbandonReason reason) {
  gave_up_.push_back({round,
                      device,
                      {assignment_id, AssignmentState::kAbandoned,
                       std::string(AbandonReasonName(reason))}});
}

void TaskDriver::OnStopped() {
  if (ended_) return;
  if (round().has_value()) {
    RememberOutcome(lease_.key, RoundState::kAbandoned);
    for (const std::string& id : partials_) {
      (void)context_.deps.blobs.RemoveSealed(id);  // or at the next start
    }
  }
  End();
}

void TaskDriver::End() {
  ended_ = true;
  TellEnd();
  if (shared()) context_.claims->Drop(task_id_);
  sums_.Reset();
  changed_ = true;
  MutexLock lock(mu_);
  closed_ = true;
  round_.reset();
}

void TaskDriver::Shutdown() {
  const Status status = Unavailable("the coordinator is shutting down");
  AnswerUploads(batch_.TakeAll(status));
  for (WaitingCheckIn& waiting : std::exchange(check_ins_, {})) {
    waiting.done(status);
  }
}

// ----------------------------------------------------------------- the turn

void TaskDriver::Advance(Time now, bool drain) {
  const auto run = [&]() -> Status {
    if (shared()) {
      SELVAGE_RETURN_IF_ERROR(Sync(now, drain));
      if (ended_) return OkStatus();
      if (!drives_) return Follow(now, drain);
    }
    if (!round().has_value()) SELVAGE_RETURN_IF_ERROR(Recover(now));
    if (ended_) return OkStatus();
    SELVAGE_RETURN_IF_ERROR(HandleEvents(now));
    if (FlushIsDue(now, drain)) SELVAGE_RETURN_IF_ERROR(Flush(now));
    SELVAGE_RETURN_IF_ERROR(HandleDeadline(now));
    if (shared() && round()->state() == RoundState::kClosing) {
      // What was committed elsewhere before it closed counts.
      SELVAGE_ASSIGN_OR_RETURN(const RoundRow row,
                               context_.deps.store.GetRound(lease_.key));
      SELVAGE_RETURN_IF_ERROR(RestoreRound(row));
    }
    SELVAGE_RETURN_IF_ERROR(Finish(now));
    if (ended_) return OkStatus();
    SELVAGE_RETURN_IF_ERROR(HandleCheckIns(now));
    if (shared() && drain) GiveBackClaim();
    return OkStatus();
  };
  const bool pausing = !round().has_value() && now < retry_at_;
  if (!ended_ && !pausing) {
    if (const Status status = run(); !status.ok()) Lose(status, now);
  }
  if (ended_) {
    AnswerUploads(batch_.CloseOut(
        context_.deps.store, context_.pace.AfterWork(row_.population, false)));
  } else if (!round().has_value()) {
    AnswerUploads(batch_.TakeAll(Unavailable("the round is being recovered")));
  }
  AnswerCheckIns(now);
  TellRound();
}

Time TaskDriver::NextDeadline() const {
  if (ended_) return kNever;
  if (!check_ins_.empty() || !events_.empty() || !gave_up_.empty()) {
    return Time{};
  }
  if (!drives_) {
    return round().has_value() ? std::min(next_sync_, batch_.deadline())
                               : std::max(next_sync_, retry_at_);
  }
  if (!round().has_value()) return retry_at_;
  if (!round()->open()) return Time{};
  const Time next = std::min(round()->NextDeadline(), batch_.deadline());
  return shared() ? std::min(next, next_sync_) : next;
}

Status TaskDriver::HandleEvents(Time now) {
  const std::vector<WaitingGaveUp> gave_up = std::exchange(gave_up_, {});
  std::vector<Store::AssignmentChange> changes;
  for (const WaitingGaveUp& waiting : gave_up) {
    changes.push_back(waiting.change);
    events_.push_back({waiting.round, GaveUp{waiting.device}});
  }
  if (!changes.empty()) {
    SELVAGE_RETURN_IF_ERROR(context_.deps.store.ChangeAssignments(changes));
    changed_ = true;
  }
  for (const WaitingEvent& waiting : std::exchange(events_, {})) {
    if (!Concerns(waiting.round, waiting.event)) continue;
    changed_ = changed_ || std::holds_alternative<UpdateRefused>(waiting.event);
    Step(waiting.event, now);
  }
  return Persist(now);
}

bool TaskDriver::Concerns(uint64_t origin, const RoundEvent& event) const {
  if (origin == lease_.key.number || !asynchronous()) {
    return origin == lease_.key.number;
  }
  const auto of_device = [&](const auto& e) {
    if constexpr (requires { e.device; }) {
      const Round::Member* const member = round()->Find(e.device);
      return member != nullptr && OriginOf(*member).number == origin;
    } else {
      return false;
    }
  };
  return std::visit(of_device, event);
}

uint64_t TaskDriver::OriginOf(const AssignmentRow& assignment) const {
  const std::optional<RoundKey> made = context_.tickets.RoundOf(
      assignment.id, {row_.population, assignment.device_id});
  // Of another epoch of the store: it opens nothing any more.
  return made.has_value() ? made->number : assignment.round.number;
}

RoundKey TaskDriver::OriginOf(const Round::Member& member) const {
  return {task_id_, member.origin == 0 ? lease_.key.number : member.origin};
}

Time TaskDriver::UploadEnd(Time lease_deadline) const {
  return asynchronous() ? lease_deadline + round()->config().compute_deadline
                        : round()->deadline();
}

Status TaskDriver::HandleCheckIns(Time now) {
  const bool evaluates = round()->config().mode == RoundMode::kEvaluate;
  for (WaitingCheckIn& waiting : check_ins_) {
    if (evaluates) {
      // The round may have become one since the device was let in.
      if (!waiting.traits.evaluates) continue;
      classes_.emplace(waiting.device.device_id,
                       waiting.traits.device_class.empty()
                           ? "unknown"
                           : waiting.traits.device_class);
    }
    Step(CheckedIn{waiting.device.device_id}, now);
    const auto* answer = std::get_if<AnswerCheckIn>(&actions_.back());
    SELVAGE_CHECK(answer != nullptr);
    waiting.verdict = answer->verdict;
    changed_ = true;
  }
  return Persist(now);
}

Status TaskDriver::HandleDeadline(Time now) {
  if (now < round()->NextDeadline()) return OkStatus();
  if (shared() && now >= round()->deadline()) {
    SELVAGE_RETURN_IF_ERROR(Hear(now));
    if (!round()->open()) return OkStatus();
  }
  Step(Tick{}, now);
  return Persist(now);
}

bool TaskDriver::FlushIsDue(Time now, bool drain) const {
  if (batch_.empty()) return false;
  // The next one takes them.
  if (asynchronous() && !round()->open()) return false;
  return drain || batch_.IsDue(now) || batch_.size() >= round()->missing() ||
         now >= round()->deadline() || context_.active_streams(task_id_) == 0;
}

Status TaskDriver::Flush(Time now) {
  std::function<Result<uint64_t>(uint64_t)> staleness_of;
  if (asynchronous()) {
    staleness_of = [this](uint64_t origin) -> Result<uint64_t> {
      SELVAGE_ASSIGN_OR_RETURN(const uint64_t base, BaseOf(origin));
      return base_.version - std::min(base, base_.version);
    };
  }
  UploadBatch::Flushed flushed =
      batch_.Flush({*definition_, context_.deps.store, context_.deps.blobs,
                    context_.deps.random, round_key_, lease_,
                    context_.pace.AfterWork(row_.population, true), now,
                    round()->config().mode, shared() ? nullptr : &sums_,
                    shared(), staleness_of});
  Status status = flushed.status;
  if (!flushed.accepted.empty()) {
    partials_.push_back(flushed.partial_id);
    changed_ = true;
    if (drives_) {
      Step(UpdatesAccepted{std::move(flushed.accepted)}, now);
      status = Persist(now);
    } else {
      next_sync_ = Time{};  // the mirror does not show them
    }
  }
  // They are true whatever became of the round's state since.
  AnswerUploads(std::move(flushed.answers));
  return status;
}

void TaskDriver::AnswerUploads(std::vector<PendingAnswer> answers) {
  for (PendingAnswer& pending : answers) {
    pending.done(std::move(pending.answer));
  }
}

void TaskDriver::AnswerCheckIns(Time now) {
  for (WaitingCheckIn& waiting : std::exchange(check_ins_, {})) {
    PaceSteering& pace = context_.pace;
    waiting.answer.retry_if_accepted = pace.AfterWork(row_.population, true);
    if (round().has_value() && round()->open() &&
        waiting.verdict == CheckInVerdict::kAssigned) {
      waiting.answer.retry = pace.AfterWork(row_.population, false);
      Result<Assignment> work = AssignmentFor(waiting.device, now);
      if (!work.ok()) {
        waiting.done(Unavailable(work.status().ToString()));
        continue;
      }
      waiting.answer.work = *std::move(work);
    } else if (round().has_value() &&
               waiting.verdict == CheckInVerdict::kCandidate) {
      waiting.answer.retry = CandidateWindow();
    } else {
      waiting.answer.retry =
          pace.Reject(row_.population, context_.deps.clock.Now(), gathering());
    }
    waiting.done(std::move(waiting.answer));
  }
}

Result<Assignment> TaskDriver::AssignmentFor(const DeviceIdentity& device,
                                             Time now) {
  const Round::Member* member = round()->Find(device.device_id);
  SELVAGE_CHECK(member != nullptr);
  const RoundKey origin = OriginOf(*member);
  VersionRow base = base_;
  if (origin != lease_.key) {
    // It goes on with the version that it began with.
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t version, BaseOf(origin.number));
    SELVAGE_ASSIGN_OR_RETURN(base,
                             context_.deps.store.GetVersion(task_id_, version));
  }
  Assignment assignment;
  assignment.id = context_.tickets.AssignmentId(origin, device);
  assignment.task = row_.name;
  assignment.round = origin.number;
  assignment.mode = round()->config().mode;
  assignment.plan_digest = row_.plan_digest;
  assignment.plan_signature = row_.plan_signature;
  assignment.checkpoint_digest = base.checkpoint_digest;
  if (definition_->contribution.name == plan::ContributionName::kScaffold &&
      assignment.mode == RoundMode::kTrain) {
    assignment.control_digest = base.server_state_digest;
  }
  assignment.checkpoint_codec = base.checkpoint_codec;
  assignment.base_version = base.version;
  assignment.token = context_.tickets.AssignmentToken(assignment.id);
  assignment.compute_deadline =
      std::max(Duration::zero(), member->lease_deadline - now);
  assignment.upload_deadline =
      std::max(Duration::zero(), UploadEnd(member->lease_deadline) - now);
  assignment.seed = DeriveSeed(definition_->spec.seed,
                               "device " + device.device_id, assignment.round);
  return assignment;
}

RetryWindow TaskDriver::CandidateWindow() const {
  const CoordinatorOptions& options = context_.options;
  const Duration most = std::min(
      options.pace.max,
      std::clamp(round()->config().round_deadline / 600,
                 options.candidate_retry_min, options.candidate_retry_max));
  return {most / 2, most};
}

void TaskDriver::Lose(const Status& why, Time now) {
  context_.deps.events.Write(LogLevel::kWarning, "task_recovering",
                             {{"task", row_.name}, {"reason", why.ToString()}});
  if (context_.deps.telemetry != nullptr &&
      why.code() == StatusCode::kAborted && drives_) {
    context_.deps.telemetry->WriteFenced();
  }
  SetRound(std::nullopt);
  next_sync_ = Time{};
  actions_.clear();
  events_.clear();
  content_.reset();
  // Nobody was told of an assignment that may not exist.
  for (WaitingCheckIn& waiting : check_ins_) {
    waiting.verdict = CheckInVerdict::kNothing;
  }
  // ABORTED is a race that was lost, not a sick disk: look again soon.
  retry_at_ =
      now + (why.code() == StatusCode::kAborted ? kRacePause : kRecoveryPause);
}

// ------------------------------------------------------ deciding and storing

void TaskDriver::Step(const RoundEvent& event, Time now) {
  std::vector<RoundAction> actions;
  {
    MutexLock lock(mu_);
    // Another coordinator may have opened it since this turn began.
    actions = round_->Step(event, std::max(now, round_->opened()));
  }
  std::move(actions.begin(), actions.end(), std::back_inserter(actions_));
}

Status TaskDriver::PersistAssignments(std::vector<AssignmentRow>& rows) {
  if (rows.empty()) return OkStatus();
  changed_ = true;
  return context_.deps.store.PutAssignments(lease_, std::exchange(rows, {}));
}

Status TaskDriver::PersistExpiries(
    std::vector<Store::AssignmentChange>& changes) {
  if (changes.empty()) return OkStatus();
  changed_ = true;
  return context_.deps.store.ChangeAssignments(std::exchange(changes, {}));
}

Status TaskDriver::Persist(Time now) {
  const auto id_of = [&](const std::string& device) {
    const Round::Member* const member = round()->Find(device);
    return context_.tickets.AssignmentId(
        member == nullptr ? lease_.key : OriginOf(*member),
        {row_.population, device});
  };
  std::vector<AssignmentRow> assignments;
  std::vector<Store::AssignmentChange> expiries;
  for (const RoundAction& action : std::exchange(actions_, {})) {
    if (const auto* assign = std::get_if<Assign>(&action)) {
      // A lease that expires and is given again in one turn: in this order.
      SELVAGE_RETURN_IF_ERROR(PersistExpiries(expiries));
      AssignmentRow& row = assignments.emplace_back();
      row.id = id_of(assign->device);
      row.round = lease_.key;
      row.device_id = assign->device;
      row.lease_deadline = assign->lease_deadline;
      row.expires = UploadEnd(assign->lease_deadline);
      if (const auto it = classes_.find(assign->device); it != classes_.end()) {
        row.device_class = it->second;
      }
    } else if (const auto* expire = std::get_if<Expire>(&action)) {
      SELVAGE_RETURN_IF_ERROR(PersistAssignments(assignments));
      expiries.push_back(
          {id_of(expire->device), AssignmentState::kExpired, ""});
    } else if (const auto* enter = std::get_if<EnterState>(&action)) {
      SELVAGE_RETURN_IF_ERROR(PersistExpiries(expiries));
      SELVAGE_RETURN_IF_ERROR(PersistAssignments(assignments));
      SELVAGE_RETURN_IF_ERROR(PersistState(*enter, now));
    }
  }
  SELVAGE_RETURN_IF_ERROR(PersistExpiries(expiries));
  return PersistAssignments(assignments);
}

Status TaskDriver::PersistState(const EnterState& enter, Time now) {
  Store& store = context_.deps.store;
  changed_ = true;
  switch (enter.state) {
    case RoundState::kCollecting:
    case RoundState::kClosing:
    case RoundState::kApplying:
      SELVAGE_RETURN_IF_ERROR(store.Transition(
          lease_, durable_state_, enter.state, now, round()->checked_in()));
      break;
    case RoundState::kAbandoned:
      SELVAGE_RETURN_IF_ERROR(
          store.AbandonRound(lease_, durable_state_, now, enter.reason));
      break;
    case RoundState::kCommitted:  // Commit() has done it
      break;
    case RoundState::kSelecting:
    case RoundState::kUnmasking:
      SELVAGE_CHECK(false);
  }
  durable_state_ = enter.state;
  context_.deps.events.Write(enter.state == RoundState::kAbandoned
                                 ? LogLevel::kWarning
                                 : LogLevel::kInfo,
                             "round_state",
                             {{"task", row_.name},
                              {"round", lease_.key.number},
                              {"mode", RoundModeName(round()->config().mode)},
                              {"state", RoundStateName(enter.state)},
                              {"accepted", round()->accepted()},
                              {"reason", enter.reason}});
  return OkStatus();
}

}  // namespace selvage::coordinator
