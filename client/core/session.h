// The session machine: what a device does next, decided without a network, a
// disk or a clock. Events in, one action out, time and randomness as arguments.
//
//            Started                    Started, not enrolled
//   IDLE ----------------> CHECKING_IN <-------------- ENROLLING
//    ^                        |  |
//    |  nothing, or repeated  |  | an assignment or a model offer
//    +------------------------+  v
//    |                        FETCHING   plan, program, archive, checkpoint:
//    |                        |      |   what the cache lacks
//    |             assignment |      | offer
//    |                        v      |
//    |                     TRAINING  |
//    |        Recorded (the  |       |
//    |  update is durable)   v       |
//    |                    UPLOADING  |
//    |               accepted |      |
//    |                        v      v
//    +--------------------- PERSONALIZING (not after an evaluation)
//    ^
//    +-- ABANDONING <- Refused in FETCHING or TRAINING of an assignment
//                   <- Withdraw() in FETCHING, TRAINING or UPLOADING of one
//
// The owner makes the state durable (Save()) before it performs the action, so
// a process that was killed goes on where it was: an assignment whose update is
// in the outbox is uploaded, never trained again into another update; one that
// was only being trained is trained again from the same seed, which gives the
// same bytes; one whose deadline passed is dropped. CHECKING_IN, ENROLLING and
// ABANDONING are saved as IDLE: asking again is harmless, and a slot that is
// not given back expires by itself. What the owner withdrew from is saved as
// ABANDONING, and given back when the coordinator is next reached.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/run_result.h"
#include "client/core/transport.h"

namespace selvage::client {

enum class SessionState : uint8_t {
  kIdle = 0,
  kEnrolling = 1,
  kCheckingIn = 2,
  kFetching = 3,
  kTraining = 4,
  kUploading = 5,  // the outbox holds the update
  kAbandoning = 6,
  kPersonalizing = 7,
};
std::string_view SessionStateName(SessionState state);  // "IDLE", ...

// What the coordinator asked for: an assignment (train) or a model offer.
struct SessionWork {
  bool train = false;
  // An assignment that trains nothing: TRAINING scores the checkpoint, and what
  // is uploaded are metrics.
  bool evaluate = false;
  std::string assignment_id;  // empty for an offer
  std::string task;
  uint64_t round = 0;
  uint64_t version = 0;  // of the checkpoint: base version, or the offered one
  crypto::Digest plan_digest;
  Bytes plan_signature;
  crypto::Digest checkpoint_digest;
  crypto::Digest control_digest = {};  // as Assignment's
  plan::CodecName checkpoint_codec = plan::CodecName::kFloat16;
  Bytes token;
  uint64_t seed = 0;
  Time compute_deadline = kNever;  // on this device's clock
  Time upload_deadline = kNever;
  RetryWindow retry_if_accepted;
  RetryWindow retry;

  friend bool operator==(const SessionWork&, const SessionWork&) = default;
};

// ---- what happened

// The host called; `enrolled`: there is a valid certificate, or an identity key
// that gets one whenever it is needed.
struct SessionStarted {
  bool enrolled = false;
};
struct DeviceEnrolled {};
struct CheckedIn {
  CheckInAnswer answer;
};
// Every artefact is in the cache, the plan's signature and the program hold.
struct ArtefactsFetched {};
// The update is durable in the outbox.
struct UpdateRecorded {};
struct ReceiptReceived {
  Receipt receipt;
};
struct AssignmentAbandoned {
  RetryWindow retry;
};
// A model version is active; also when there was nothing to personalise.
struct ModelPersonalized {};
// This device will not do the work.
struct WorkRefused {
  AbandonReason reason = AbandonReason::kInterrupted;
  std::string message;
};
// The action in flight failed: UNAVAILABLE, DEADLINE_EXCEEDED, ... may pass,
// NOT_FOUND, INVALID_ARGUMENT, ... will not.
struct ActionFailed {
  Status status;
  // Transport::asked_to_wait(), of an enrolment or a check-in.
  RetryWindow retry{};
};
// Budget, conditions or cancel stopped the action in flight.
struct SessionInterrupted {
  std::string reason;  // for people
  // Training got further than before and goes on from there: that does not
  // count as one of the interruptions that end it.
  bool progressed = false;
};

using SessionEvent =
    std::variant<SessionStarted, DeviceEnrolled, CheckedIn, ArtefactsFetched,
                 UpdateRecorded, ReceiptReceived, AssignmentAbandoned,
                 ModelPersonalized, WorkRefused, ActionFailed,
                 SessionInterrupted>;

// ---- what to do about it

enum class SessionActionKind : uint8_t {
  kEnroll,
  kCheckIn,
  kFetch,
  kTrain,
  kUpload,
  kAbandon,
  kPersonalize,
  kFinish,
};
std::string_view SessionActionKindName(SessionActionKind kind);

struct SessionAction {
  SessionActionKind kind = SessionActionKind::kFinish;
  // Make this durable together with the state, before the action.
  bool drop_outbox = false;
  AuditResult update_result = AuditResult::kWithdrawn;  // of what is dropped
  std::vector<std::string> counters;  // each plus one, for Report

  AbandonReason abandon_reason = AbandonReason::kInterrupted;  // kAbandon
  RunResult result = RunResult::kNothingToDo;                  // kFinish
  std::string reason;        // kAbandon, kFinish: for people
  bool global_only = false;  // kPersonalize: fine-tuning crashed before
};

// Assignments whose outcome is remembered as unknown; the wire's bound.
inline constexpr size_t kUnsettledMax = 16;
// The same work is given up after so many deaths of the process without a
// checkpoint between them, or so many interruptions by the host.
inline constexpr uint8_t kCrashesMax = 3;
inline constexpr uint8_t kInterruptionsMax = 10;
// No window of the coordinator keeps a device away for longer.
inline constexpr Duration kRetryMax = std::chrono::hours(24 * 30);

// A concrete delay from a window, drawn at once (protocol.md, rule 4). Swapped,
// negative or huge bounds are put in order, not trusted.
Duration DrawRetry(const RetryWindow& window, RandomSource& random);
// Whether a failed call may succeed later as it is.
bool IsTransient(StatusCode code);

// A value. Thread-compatible.
class Session {
 public:
  Session() = default;  // IDLE, due at once

  // Applies one event that happened at `now`. REQUIRES: the event answers the
  // action returned last (SessionStarted: that was kFinish, or there was none).
  SessionAction Step(const SessionEvent& event, Time now, RandomSource& random);

  // After Restore(): counts the death of the process that saved this while it
  // trained or personalised. False if it did not, or was counted already.
  bool ClaimDeath();
  // Training got further than the process that died last: the work's deaths do
  // not count any more. False if there were none.
  bool ForgiveDeaths();
  // The owner takes back everything: an open assignment is given back at the
  // next contact. The outbox is the caller's to drop.
  void Withdraw();
  // IDLE only: no work is asked for before `until`.
  void Postpone(Time until);

  SessionState state() const { return state_; }
  const SessionWork& work() const { return work_; }  // FETCHING and after
  // When the host should call again; the epoch: at once.
  Time next_run() const { return next_run_; }
  const std::vector<std::string>& unsettled() const { return unsettled_; }

  // Canonical: a restored session saves to the same bytes, and bytes that
  // Save() could not have produced are DATA_LOSS.
  Bytes Save() const;
  static Result<Session> Restore(ByteSpan bytes);

 private:
  SessionAction On(const SessionStarted& event, Time now, RandomSource& random);
  SessionAction On(const DeviceEnrolled& event, Time now, RandomSource& random);
  SessionAction On(const CheckedIn& event, Time now, RandomSource& random);
  SessionAction On(const ArtefactsFetched& event, Time now,
                   RandomSource& random);
  SessionAction On(const UpdateRecorded& event, Time now, RandomSource& random);
  SessionAction On(const ReceiptReceived& event, Time now,
                   RandomSource& random);
  SessionAction On(const AssignmentAbandoned& event, Time now,
                   RandomSource& random);
  SessionAction On(const ModelPersonalized& event, Time now,
                   RandomSource& random);
  SessionAction On(const WorkRefused& event, Time now, RandomSource& random);
  SessionAction On(const ActionFailed& event, Time now, RandomSource& random);
  SessionAction On(const SessionInterrupted& event, Time now,
                   RandomSource& random);

  void Enter(SessionState to);
  SessionAction Accept(SessionWork work, Time now, RandomSource& random);
  SessionAction Resume(Time now, RandomSource& random);
  SessionAction StartTraining();
  SessionAction StartPersonalizing();
  SessionAction CheckInOrEnroll(bool enrolled);
  SessionAction DropWorkAndFinish(RunResult result, std::string reason,
                                  std::string counter, Time next_run);
  Time Later(const RetryWindow& window, Time now, RandomSource& random) const;

  SessionState state_ = SessionState::kIdle;
  Time next_run_{};
  Duration told_max_{};  // by the last answered check-in
  SessionWork work_;
  uint8_t crashes_ = 0;
  uint8_t interruptions_ = 0;
  // Saved before training or personalising, cleared by whatever ends it: found
  // set by a start, the process died.
  bool running_ = false;
  bool withdrawn_ = false;              // ABANDONING only: saved as it is
  std::vector<std::string> unsettled_;  // oldest first
  std::string last_assignment_;         // done with, whatever became of it

  // Not saved: of this session only.
  bool enrolled_ = false;
  bool contributed_ = false;
  std::string refusal_;
};

}  // namespace selvage::client
