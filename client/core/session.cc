#include "client/core/session.h"

#include <algorithm>

#include "base/check.h"

namespace selvage::client {
namespace {

// Check-ins without an answer (protocol.md, rule 4): +-20 %. Devices that were
// told longer windows than that draw from the whole of what they were told
// (full jitter): after an outage a large fleet would return within minutes
// otherwise.
constexpr Duration kTransientRetry = std::chrono::minutes(15);
constexpr Duration kPermanentRetry = std::chrono::hours(4);

RetryWindow Around(Duration middle) {
  return {.min = middle * 8 / 10, .max = middle * 12 / 10};
}

RetryWindow WindowFor(StatusCode code, Duration told_max,
                      const RetryWindow& asked) {
  if (!IsTransient(code)) return Around(kPermanentRetry);
  const bool was_asked = asked.max > Duration::zero();
  const RetryWindow window = was_asked ? asked : Around(kTransientRetry);
  if (told_max > window.max) {
    return {was_asked ? asked.min : Duration::zero(), told_max};
  }
  return window;
}

SessionAction Do(SessionActionKind kind) {
  SessionAction action;
  action.kind = kind;
  return action;
}

SessionAction Finish(RunResult result, std::string reason) {
  SessionAction action;
  action.kind = SessionActionKind::kFinish;
  action.result = result;
  action.reason = std::move(reason);
  return action;
}

bool IsSet(const RetryWindow& window) { return window.max > Duration::zero(); }

Time Deadline(Time now, Duration from_now) {
  return now + std::clamp(from_now, Duration::zero(), kRetryMax);
}

SessionWork WorkOf(const Assignment& assignment, const CheckInAnswer& answer,
                   Time now) {
  SessionWork work;
  work.train = true;
  work.evaluate = assignment.evaluate;
  work.assignment_id = assignment.id;
  work.task = assignment.task;
  work.round = assignment.round;
  work.version = assignment.base_version;
  work.plan_digest = assignment.plan_digest;
  work.plan_signature = assignment.plan_signature;
  work.checkpoint_digest = assignment.checkpoint_digest;
  work.control_digest = assignment.control_digest;
  work.checkpoint_codec = assignment.checkpoint_codec;
  work.token = assignment.token;
  work.seed = assignment.seed;
  work.compute_deadline = Deadline(now, assignment.compute_deadline);
  work.upload_deadline = Deadline(now, assignment.upload_deadline);
  work.retry_if_accepted = answer.retry_if_accepted;
  work.retry = answer.retry;
  return work;
}

SessionWork WorkOf(const ModelOffer& offer, const CheckInAnswer& answer) {
  SessionWork work;
  work.task = offer.task;
  work.version = offer.version;
  work.plan_digest = offer.plan_digest;
  work.plan_signature = offer.plan_signature;
  work.checkpoint_digest = offer.checkpoint_digest;
  work.checkpoint_codec = offer.checkpoint_codec;
  work.retry_if_accepted = answer.retry_if_accepted;
  work.retry = answer.retry;
  return work;
}

// What a well-behaved coordinator sends; more could not be saved and restored.
Status CheckWork(const SessionWork& work) {
  if (work.task.empty() || work.task.size() > 64) {
    return Internal("the coordinator's work names no task");
  }
  if (work.assignment_id.size() > 256 || work.token.size() > 256 ||
      work.plan_signature.size() > 256) {
    return Internal("the coordinator's work has an oversized field");
  }
  if (work.train && work.assignment_id.empty()) {
    return Internal("the coordinator's assignment has no id");
  }
  return OkStatus();
}

}  // namespace

std::string_view RunResultName(RunResult result) {
  switch (result) {
    case RunResult::kNothingToDo:
      return "NOTHING_TO_DO";
    case RunResult::kContributed:
      return "CONTRIBUTED";
    case RunResult::kNotAccepted:
      return "NOT_ACCEPTED";
    case RunResult::kInstalled:
      return "INSTALLED";
    case RunResult::kDeclined:
      return "DECLINED";
    case RunResult::kInterrupted:
      return "INTERRUPTED";
    case RunResult::kFailed:
      return "FAILED";
  }
  return "UNKNOWN";
}

std::string_view AuditResultName(AuditResult result) {
  switch (result) {
    case AuditResult::kRecorded:
      return "recorded";
    case AuditResult::kAccepted:
      return "accepted";
    case AuditResult::kLate:
      return "late";
    case AuditResult::kRejected:
      return "rejected";
    case AuditResult::kWithdrawn:
      return "withdrawn";
  }
  return "unknown";
}

std::string_view SessionStateName(SessionState state) {
  switch (state) {
    case SessionState::kIdle:
      return "IDLE";
    case SessionState::kEnrolling:
      return "ENROLLING";
    case SessionState::kCheckingIn:
      return "CHECKING_IN";
    case SessionState::kFetching:
      return "FETCHING";
    case SessionState::kTraining:
      return "TRAINING";
    case SessionState::kUploading:
      return "UPLOADING";
    case SessionState::kAbandoning:
      return "ABANDONING";
    case SessionState::kPersonalizing:
      return "PERSONALIZING";
  }
  return "UNKNOWN";
}

std::string_view SessionActionKindName(SessionActionKind kind) {
  switch (kind) {
    case SessionActionKind::kEnroll:
      return "enroll";
    case SessionActionKind::kCheckIn:
      return "check-in";
    case SessionActionKind::kFetch:
      return "fetch";
    case SessionActionKind::kTrain:
      return "train";
    case SessionActionKind::kUpload:
      return "upload";
    case SessionActionKind::kAbandon:
      return "abandon";
    case SessionActionKind::kPersonalize:
      return "personalize";
    case SessionActionKind::kFinish:
      return "finish";
  }
  return "unknown";
}

bool IsTransient(StatusCode code) {
  switch (code) {
    case StatusCode::kCancelled:
    case StatusCode::kUnknown:
    case StatusCode::kDeadlineExceeded:
    case StatusCode::kResourceExhausted:
    case StatusCode::kAborted:
    case StatusCode::kInternal:
    case StatusCode::kUnavailable:
      return true;
    default:
      return false;
  }
}

Duration DrawRetry(const RetryWindow& window, RandomSource& random) {
  const Duration low = std::clamp(window.min, Duration::zero(), kRetryMax);
  const Duration high = std::clamp(window.max, low, kRetryMax);
  const auto width = static_cast<uint64_t>((high - low).count());
  return low + Duration(static_cast<int64_t>(UniformBelow(random, width + 1)));
}

SessionAction Session::Step(const SessionEvent& event, Time now,
                            RandomSource& random) {
  SessionAction action =
      std::visit([&](const auto& e) { return On(e, now, random); }, event);
  SELVAGE_CHECK(unsettled_.size() <= kUnsettledMax);
  SELVAGE_CHECK(state_ == SessionState::kIdle ||
                state_ == SessionState::kEnrolling ||
                state_ == SessionState::kCheckingIn || !work_.task.empty());
  return action;
}

// The only function that assigns the state; the table is the diagram above.
void Session::Enter(SessionState to) {
  using S = SessionState;
  const S from = state_;
  const bool drawn =
      to == S::kIdle ||
      (from == S::kIdle && (to == S::kEnrolling || to == S::kCheckingIn)) ||
      (from == S::kEnrolling && to == S::kCheckingIn) ||
      (from == S::kCheckingIn && to == S::kFetching) ||
      (from == S::kFetching && (to == S::kTraining || to == S::kPersonalizing ||
                                to == S::kAbandoning)) ||
      (from == S::kTraining && (to == S::kUploading || to == S::kAbandoning)) ||
      (from == S::kUploading &&
       (to == S::kPersonalizing || to == S::kAbandoning));
  SELVAGE_CHECK(drawn);
  state_ = to;
  if (to != S::kTraining && to != S::kPersonalizing) running_ = false;
  withdrawn_ = false;
  if (to == S::kIdle) {
    if (!work_.assignment_id.empty()) last_assignment_ = work_.assignment_id;
    work_ = SessionWork{};
    crashes_ = 0;
    interruptions_ = 0;
  }
}

Time Session::Later(const RetryWindow& window, Time now,
                    RandomSource& random) const {
  return now + DrawRetry(window, random);
}

SessionAction Session::DropWorkAndFinish(RunResult result, std::string reason,
                                         std::string counter, Time next_run) {
  SessionAction action = Finish(result, std::move(reason));
  action.drop_outbox = state_ == SessionState::kUploading;
  action.counters.push_back(std::move(counter));
  Enter(SessionState::kIdle);
  next_run_ = next_run;
  return action;
}

SessionAction Session::CheckInOrEnroll(bool enrolled) {
  Enter(enrolled ? SessionState::kCheckingIn : SessionState::kEnrolling);
  return Do(enrolled ? SessionActionKind::kCheckIn
                     : SessionActionKind::kEnroll);
}

SessionAction Session::StartTraining() {
  running_ = true;
  return Do(SessionActionKind::kTrain);
}

SessionAction Session::StartPersonalizing() {
  running_ = true;
  SessionAction action = Do(SessionActionKind::kPersonalize);
  action.global_only =
      crashes_ >= kCrashesMax || interruptions_ >= kInterruptionsMax;
  return action;
}

SessionAction Session::On(const SessionStarted& event, Time now,
                          RandomSource& random) {
  enrolled_ = event.enrolled;
  contributed_ = false;
  // A time further away than any window can be means that the clock jumped.
  if (now < next_run_ && next_run_ <= now + kRetryMax) {
    return Finish(RunResult::kNothingToDo, "not due yet");
  }
  if (state_ != SessionState::kIdle) return Resume(now, random);
  return CheckInOrEnroll(enrolled_);
}

bool Session::ClaimDeath() {
  if (!running_) return false;
  running_ = false;
  crashes_ = static_cast<uint8_t>(std::min<int>(crashes_ + 1, kCrashesMax));
  return true;
}

bool Session::ForgiveDeaths() {
  if (crashes_ == 0) return false;
  crashes_ = 0;
  return true;
}

void Session::Postpone(Time until) {
  SELVAGE_CHECK(state_ == SessionState::kIdle);
  next_run_ = std::max(next_run_, until);
}

void Session::Withdraw() {
  if (!work_.train) return;
  switch (state_) {
    case SessionState::kFetching:
    case SessionState::kTraining:
    case SessionState::kUploading:
      Enter(SessionState::kAbandoning);
      withdrawn_ = true;
      return;
    case SessionState::kPersonalizing:
      Enter(SessionState::kIdle);
      return;
    default:
      return;
  }
}

SessionAction Session::Resume(Time now, RandomSource& random) {
  (void)ClaimDeath();
  // Work belongs to the identity that got it.
  const bool lost = !enrolled_ && work_.train;
  const Time deadline = state_ == SessionState::kUploading
                            ? work_.upload_deadline
                            : work_.compute_deadline;
  const bool expired =
      state_ != SessionState::kPersonalizing && work_.train && now >= deadline;
  if (lost || expired) {
    SessionAction dropped =
        DropWorkAndFinish(RunResult::kNothingToDo, "",
                          expired ? "expired" : "identity_lost", now);
    SessionAction next = CheckInOrEnroll(enrolled_);
    next.drop_outbox = dropped.drop_outbox;
    next.counters = std::move(dropped.counters);
    return next;
  }
  switch (state_) {
    case SessionState::kFetching:
      return Do(SessionActionKind::kFetch);
    case SessionState::kTraining:
      if (crashes_ >= kCrashesMax) {
        return On(WorkRefused{.reason = AbandonReason::kTrainingFailed,
                              .message = "the process died while training"},
                  now, random);
      }
      if (interruptions_ >= kInterruptionsMax) {
        return On(WorkRefused{.reason = AbandonReason::kInterrupted,
                              .message = "interrupted too often"},
                  now, random);
      }
      return StartTraining();
    case SessionState::kUploading:
      return Do(SessionActionKind::kUpload);
    case SessionState::kPersonalizing:
      return StartPersonalizing();
    case SessionState::kAbandoning: {
      refusal_ = "withdrawn by the owner";
      SessionAction action = Do(SessionActionKind::kAbandon);
      // Why is the owner's own business: not even that they withdrew is told.
      action.abandon_reason = AbandonReason::kInterrupted;
      action.reason = refusal_;
      return action;
    }
    default:
      SELVAGE_CHECK(false && "a state that is never saved");
  }
  return Finish(RunResult::kNothingToDo, "");
}

SessionAction Session::On(const DeviceEnrolled&, Time, RandomSource&) {
  enrolled_ = true;
  Enter(SessionState::kCheckingIn);
  SessionAction action = Do(SessionActionKind::kCheckIn);
  action.counters = {"enrolled"};
  return action;
}

SessionAction Session::On(const CheckedIn& event, Time now,
                          RandomSource& random) {
  const CheckInAnswer& answer = event.answer;
  told_max_ = std::clamp(answer.retry.max, Duration::zero(), kRetryMax);
  for (const AssignmentOutcome& outcome : answer.outcomes) {
    if (outcome.state == OutcomeState::kPending) continue;
    std::erase(unsettled_, outcome.assignment_id);
  }
  if (const auto* assignment = std::get_if<Assignment>(&answer.work)) {
    const bool settled = std::find(unsettled_.begin(), unsettled_.end(),
                                   assignment->id) != unsettled_.end();
    const bool repeated = !assignment->id.empty() &&
                          (assignment->id == last_assignment_ || settled);
    if (!repeated) {
      SessionAction action =
          Accept(WorkOf(*assignment, answer, now), now, random);
      action.counters.push_back("assigned");
      return action;
    }
  } else if (const auto* offer = std::get_if<ModelOffer>(&answer.work)) {
    return Accept(WorkOf(*offer, answer), now, random);
  }
  Enter(SessionState::kIdle);
  next_run_ = Later(answer.retry, now, random);
  return Finish(RunResult::kNothingToDo, "");
}

SessionAction Session::Accept(SessionWork work, Time now,
                              RandomSource& random) {
  if (Status status = CheckWork(work); !status.ok()) {
    return On(ActionFailed{.status = std::move(status)}, now, random);
  }
  work_ = std::move(work);
  next_run_ = now;
  Enter(SessionState::kFetching);
  return Do(SessionActionKind::kFetch);
}

SessionAction Session::On(const ArtefactsFetched&, Time, RandomSource&) {
  if (work_.train) {
    Enter(SessionState::kTraining);
    return StartTraining();
  }
  Enter(SessionState::kPersonalizing);
  return StartPersonalizing();
}

SessionAction Session::On(const UpdateRecorded&, Time, RandomSource&) {
  Enter(SessionState::kUploading);
  SessionAction action = Do(SessionActionKind::kUpload);
  action.counters = {work_.evaluate ? "evaluated" : "trained"};
  return action;
}

SessionAction Session::On(const ReceiptReceived& event, Time now,
                          RandomSource& random) {
  const Receipt& receipt = event.receipt;
  if (receipt.status != ReceiptStatus::kAccepted) {
    const bool late = receipt.status == ReceiptStatus::kLate;
    const RetryWindow& window =
        IsSet(receipt.retry) ? receipt.retry : work_.retry;
    std::string reason = late ? "the round was over" : receipt.reason;
    if (!receipt.message.empty()) reason += ": " + receipt.message;
    SessionAction action = DropWorkAndFinish(
        RunResult::kNotAccepted, std::move(reason), late ? "late" : "rejected",
        Later(window, now, random));
    action.update_result = late ? AuditResult::kLate : AuditResult::kRejected;
    return action;
  }
  unsettled_.push_back(work_.assignment_id);
  if (unsettled_.size() > kUnsettledMax) unsettled_.erase(unsettled_.begin());
  const RetryWindow& window =
      IsSet(receipt.retry) ? receipt.retry : work_.retry_if_accepted;
  next_run_ = Later(window, now, random);
  contributed_ = true;
  crashes_ = 0;
  interruptions_ = 0;
  if (work_.evaluate) {
    SessionAction action =
        DropWorkAndFinish(RunResult::kContributed, "", "accepted", next_run_);
    action.update_result = AuditResult::kAccepted;
    return action;
  }
  Enter(SessionState::kPersonalizing);
  SessionAction action = StartPersonalizing();
  action.drop_outbox = true;
  action.update_result = AuditResult::kAccepted;
  action.counters = {"accepted"};
  return action;
}

SessionAction Session::On(const AssignmentAbandoned& event, Time now,
                          RandomSource& random) {
  const RetryWindow window = IsSet(event.retry) ? event.retry : work_.retry;
  return DropWorkAndFinish(RunResult::kDeclined, refusal_, "declined",
                           Later(window, now, random));
}

SessionAction Session::On(const ModelPersonalized&, Time now,
                          RandomSource& random) {
  if (!work_.train) {
    return DropWorkAndFinish(RunResult::kInstalled, "", "installed",
                             Later(work_.retry_if_accepted, now, random));
  }
  // The retry time was drawn with the receipt.
  const RunResult result =
      contributed_ ? RunResult::kContributed : RunResult::kNothingToDo;
  return DropWorkAndFinish(result, "", "personalized", next_run_);
}

SessionAction Session::On(const WorkRefused& event, Time now,
                          RandomSource& random) {
  if (state_ == SessionState::kPersonalizing && work_.train) {
    const RunResult result =
        contributed_ ? RunResult::kContributed : RunResult::kDeclined;
    return DropWorkAndFinish(result, event.message, "personalize_refused",
                             next_run_);
  }
  if (!work_.train) {
    return DropWorkAndFinish(RunResult::kDeclined, event.message, "declined",
                             Later(work_.retry, now, random));
  }
  const bool recorded = state_ == SessionState::kUploading;
  Enter(SessionState::kAbandoning);
  refusal_ = event.message;
  next_run_ = Later(work_.retry, now, random);
  SessionAction action = Do(SessionActionKind::kAbandon);
  action.drop_outbox = recorded;
  action.abandon_reason = event.reason;
  action.reason = event.message;
  return action;
}

SessionAction Session::On(const ActionFailed& event, Time now,
                          RandomSource& random) {
  const StatusCode code = event.status.code();
  const std::string reason = event.status.ToString();
  running_ = false;
  switch (state_) {
    case SessionState::kEnrolling:
    case SessionState::kCheckingIn:
      return DropWorkAndFinish(
          RunResult::kFailed, reason, "check_in_failed",
          Later(WindowFor(code, told_max_, event.retry), now, random));
    case SessionState::kAbandoning:
      if (withdrawn_ && IsTransient(code)) break;
      return DropWorkAndFinish(RunResult::kDeclined, refusal_, "declined",
                               next_run_);
    case SessionState::kPersonalizing:
      if (work_.train) {
        return DropWorkAndFinish(
            contributed_ ? RunResult::kContributed : RunResult::kFailed, reason,
            "personalize_failed", next_run_);
      }
      break;
    default:
      break;
  }
  if (!IsTransient(code)) {
    return DropWorkAndFinish(RunResult::kFailed, reason, "work_failed",
                             Later(work_.retry, now, random));
  }
  // Try again, and early enough: halfway to the deadline at the latest.
  Duration delay = DrawRetry(work_.retry, random);
  if (work_.train) {
    const Time deadline = state_ == SessionState::kUploading
                              ? work_.upload_deadline
                              : work_.compute_deadline;
    delay = std::min(delay, std::max(Duration::zero(), (deadline - now) / 2));
  }
  next_run_ = now + delay;
  SessionAction action = Finish(RunResult::kFailed, reason);
  action.counters = {"retried"};
  return action;
}

SessionAction Session::On(const SessionInterrupted& event, Time now,
                          RandomSource&) {
  running_ = false;
  switch (state_) {
    case SessionState::kEnrolling:
    case SessionState::kCheckingIn:
      Enter(SessionState::kIdle);
      next_run_ = now;
      return Finish(RunResult::kInterrupted, event.reason);
    case SessionState::kAbandoning:
      if (withdrawn_) break;
      return DropWorkAndFinish(RunResult::kDeclined, refusal_, "declined",
                               next_run_);
    case SessionState::kTraining:
    case SessionState::kPersonalizing:
      if (event.progressed) break;
      interruptions_ = static_cast<uint8_t>(
          std::min<int>(interruptions_ + 1, kInterruptionsMax));
      break;
    default:
      break;
  }
  if (state_ == SessionState::kPersonalizing && work_.train) {
    return Finish(
        contributed_ ? RunResult::kContributed : RunResult::kInterrupted,
        "personalisation goes on next time");
  }
  next_run_ = now;
  SessionAction action = Finish(RunResult::kInterrupted, event.reason);
  action.counters = {"interrupted"};
  return action;
}

}  // namespace selvage::client
