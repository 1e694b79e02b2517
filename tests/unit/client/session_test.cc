#include "client/core/session.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using test::IsOk;
using test::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;

RetryWindow Window(Duration min, Duration max) {
  return {.min = min, .max = max};
}

Assignment MakeAssignment(const std::string& id) {
  Assignment assignment;
  assignment.id = id;
  assignment.task = "digits";
  assignment.round = 3;
  assignment.plan_digest = crypto::Sha256(AsBytes("plan"));
  assignment.plan_signature = Bytes(64, 1);
  assignment.checkpoint_digest = crypto::Sha256(AsBytes("checkpoint"));
  assignment.base_version = 2;
  assignment.token = Bytes(32, 9);
  assignment.compute_deadline = minutes(2);
  assignment.upload_deadline = minutes(5);
  assignment.seed = 77;
  return assignment;
}

CheckInAnswer Answer(
    std::variant<std::monostate, Assignment, ModelOffer> work = {}) {
  CheckInAnswer answer;
  answer.work = std::move(work);
  answer.retry_if_accepted = Window(seconds(100), seconds(200));
  answer.retry = Window(seconds(10), seconds(20));
  return answer;
}

ModelOffer MakeOffer() {
  ModelOffer offer;
  offer.task = "digits";
  offer.version = 30;
  offer.plan_digest = crypto::Sha256(AsBytes("plan"));
  offer.checkpoint_digest = crypto::Sha256(AsBytes("checkpoint"));
  return offer;
}

Receipt MakeReceipt(ReceiptStatus status) {
  Receipt receipt;
  receipt.status = status;
  if (status == ReceiptStatus::kRejected) {
    receipt.reason = "OUT_OF_RANGE";
    receipt.message = "a[0]";
  }
  return receipt;
}

class SessionTest : public ::testing::Test {
 protected:
  SessionAction Step(const SessionEvent& event) {
    return session_.Step(event, now_, random_);
  }
  SessionActionKind Do(const SessionEvent& event) { return Step(event).kind; }

  // kill -9 and start again from what was saved.
  void Kill() {
    Result<Session> restored = Session::Restore(session_.Save());
    ASSERT_THAT(restored, IsOk());
    EXPECT_EQ(restored->Save(), session_.Save());
    session_ = *std::move(restored);
  }
  SessionAction Start() { return Step(SessionStarted{.enrolled = true}); }

  void ReachFetching() {
    EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
    EXPECT_EQ(Do(CheckedIn{Answer(MakeAssignment("a1"))}),
              SessionActionKind::kFetch);
  }
  void ReachTraining() {
    ReachFetching();
    EXPECT_EQ(Do(ArtefactsFetched{}), SessionActionKind::kTrain);
  }
  void ReachUploading() {
    ReachTraining();
    EXPECT_EQ(Do(UpdateRecorded{}), SessionActionKind::kUpload);
  }
  SessionAction Accept() {
    return Step(ReceiptReceived{MakeReceipt(ReceiptStatus::kAccepted)});
  }

  Session session_;
  Time now_ = FromMicros(1'700'000'000'000'000);
  SeededRandom random_{1};
};

TEST_F(SessionTest, Step_WholeRound_ContributesAndPersonalizes) {
  ReachUploading();

  const SessionAction accepted = Accept();
  EXPECT_EQ(accepted.kind, SessionActionKind::kPersonalize);
  EXPECT_TRUE(accepted.drop_outbox);
  EXPECT_FALSE(accepted.global_only);
  const SessionAction done = Step(ModelPersonalized{});

  EXPECT_EQ(done.kind, SessionActionKind::kFinish);
  EXPECT_EQ(done.result, RunResult::kContributed);
  EXPECT_EQ(session_.state(), SessionState::kIdle);
  EXPECT_THAT(session_.unsettled(), ElementsAre("a1"));
  EXPECT_GE(session_.next_run() - now_, seconds(100));
  EXPECT_LE(session_.next_run() - now_, seconds(200));
}

TEST_F(SessionTest, Withdraw_WorkIsOpen_IsGivenBackAtTheNextContact) {
  for (const int reached : {0, 1, 2}) {
    SCOPED_TRACE(reached);
    session_ = Session();
    if (reached == 0) ReachFetching();
    if (reached == 1) ReachTraining();
    if (reached == 2) ReachUploading();
    session_.Withdraw();
    session_.Withdraw();
    EXPECT_EQ(session_.state(), SessionState::kAbandoning);
    Kill();

    SessionAction abandon = Start();
    EXPECT_EQ(abandon.kind, SessionActionKind::kAbandon);
    EXPECT_EQ(abandon.abandon_reason, AbandonReason::kInterrupted);
    EXPECT_EQ(session_.work().assignment_id, "a1");
    // No answer: it is tried again.
    EXPECT_EQ(Step(ActionFailed{Unavailable("down")}).result,
              RunResult::kFailed);
    Kill();
    now_ = session_.next_run();
    EXPECT_EQ(Start().kind, SessionActionKind::kAbandon);
    EXPECT_EQ(Step(SessionInterrupted{}).result, RunResult::kInterrupted);
    Kill();
    EXPECT_EQ(Start().kind, SessionActionKind::kAbandon);
    const SessionAction done = Step(AssignmentAbandoned{});
    EXPECT_EQ(done.result, RunResult::kDeclined);
    EXPECT_FALSE(done.drop_outbox);
    EXPECT_EQ(session_.state(), SessionState::kIdle);
    Kill();
    now_ = session_.next_run();
    EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
  }
}

TEST_F(SessionTest, Withdraw_CoordinatorRefusesIt_IsOver) {
  ReachUploading();
  session_.Withdraw();
  EXPECT_EQ(Start().kind, SessionActionKind::kAbandon);
  EXPECT_EQ(Step(ActionFailed{NotFound("no such assignment")}).result,
            RunResult::kDeclined);
  EXPECT_EQ(session_.state(), SessionState::kIdle);
}

TEST_F(SessionTest, Withdraw_DeadlinePassed_IsForgotten) {
  ReachTraining();
  session_.Withdraw();
  now_ += std::chrono::hours(24 * 20);
  EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
}

TEST_F(SessionTest, Withdraw_NothingToGiveBack_ChangesNothing) {
  session_.Withdraw();
  EXPECT_EQ(session_.state(), SessionState::kIdle);
  ReachUploading();
  Accept();
  session_.Withdraw();  // what was accepted is the coordinator's
  EXPECT_EQ(session_.state(), SessionState::kIdle);
  EXPECT_THAT(session_.unsettled(), ElementsAre("a1"));
}

TEST_F(SessionTest, Step_NotEnrolled_EnrollsFirst) {
  EXPECT_EQ(Do(SessionStarted{.enrolled = false}), SessionActionKind::kEnroll);
  EXPECT_EQ(Do(DeviceEnrolled{}), SessionActionKind::kCheckIn);
  EXPECT_EQ(session_.state(), SessionState::kCheckingIn);
}

TEST_F(SessionTest, Step_NothingForUs_DrawsATimeFromTheWindowAtOnce) {
  Start();
  const SessionAction done = Step(CheckedIn{Answer()});
  EXPECT_EQ(done.result, RunResult::kNothingToDo);
  const Time due = session_.next_run();
  EXPECT_GE(due - now_, seconds(10));
  EXPECT_LE(due - now_, seconds(20));

  Kill();
  EXPECT_EQ(session_.next_run(), due);
  now_ = due - seconds(1);
  EXPECT_EQ(Start().kind, SessionActionKind::kFinish);
  EXPECT_EQ(session_.next_run(), due);
  now_ = due;
  EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
}

TEST_F(SessionTest, Step_ClockJumpedBackByYears_IsDue) {
  Start();
  Step(CheckedIn{Answer()});
  now_ -= hours(24 * 365);
  EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
}

TEST_F(SessionTest, Step_CheckInUnanswered_WaitsAsTheProtocolSays) {
  struct Case {
    StatusCode code;
    Duration middle;
  };
  for (const Case& c : {Case{StatusCode::kUnavailable, minutes(15)},
                        Case{StatusCode::kDeadlineExceeded, minutes(15)},
                        Case{StatusCode::kNotFound, hours(4)},
                        Case{StatusCode::kInvalidArgument, hours(4)},
                        Case{StatusCode::kUnimplemented, hours(4)}}) {
    std::set<Time> drawn;
    for (int i = 0; i < 20; ++i) {
      session_ = Session();
      Start();
      const SessionAction done = Step(ActionFailed{Status(c.code, "x")});
      EXPECT_EQ(done.result, RunResult::kFailed);
      EXPECT_GE(session_.next_run() - now_, c.middle * 8 / 10);
      EXPECT_LE(session_.next_run() - now_, c.middle * 12 / 10);
      drawn.insert(session_.next_run());
    }
    EXPECT_GT(drawn.size(), 10U);
  }
}

TEST_F(SessionTest, Step_CheckInRefusedWithAWindow_DrawsFromIt) {
  std::set<Time> drawn;
  for (int i = 0; i < 20; ++i) {
    session_ = Session();
    Start();
    Step(ActionFailed{Status(StatusCode::kUnavailable, "x"),
                      {minutes(1), minutes(2)}});
    EXPECT_GE(session_.next_run() - now_, minutes(1));
    EXPECT_LE(session_.next_run() - now_, minutes(2));
    drawn.insert(session_.next_run());
  }
  EXPECT_GT(drawn.size(), 10U);
  // An error that stays is not asked again soon, whatever came with it.
  session_ = Session();
  Start();
  Step(ActionFailed{Status(StatusCode::kNotFound, "x"),
                    {minutes(1), minutes(2)}});
  EXPECT_GE(session_.next_run() - now_, hours(3));
}

// A large fleet was told hours, and does not return within the minutes that a
// coordinator without its database asks every one of them for.
TEST_F(SessionTest, Step_CheckInRefusedWithAWindow_ToldLonger_DrawsFromAll) {
  Duration least = hours(24);
  Duration most{};
  for (int i = 0; i < 200; ++i) {
    session_ = Session();
    Start();
    CheckInAnswer answer = Answer();
    answer.retry = {hours(4), hours(12)};
    Step(CheckedIn{answer});
    now_ = session_.next_run();
    Start();
    Step(ActionFailed{Status(StatusCode::kUnavailable, "x"),
                      {minutes(10), minutes(12)}});
    least = std::min(least, session_.next_run() - now_);
    most = std::max(most, session_.next_run() - now_);
  }
  EXPECT_GE(least, minutes(10));
  EXPECT_GT(most, hours(11));
}

// Full jitter over what it was told, if that is longer: a fleet that was told
// hours would otherwise return within minutes of an outage.
TEST_F(SessionTest, Step_CheckInUnanswered_ToldLonger_DrawsFromAllOfIt) {
  Duration least = hours(24);
  Duration most{};
  for (int i = 0; i < 200; ++i) {
    session_ = Session();
    Start();
    CheckInAnswer answer = Answer();
    answer.retry = {hours(4), hours(12)};
    Step(CheckedIn{answer});
    session_ = *Session::Restore(session_.Save());  // another process
    now_ = session_.next_run();
    for (int again = 0; again < 2; ++again) {
      Start();
      Step(ActionFailed{Status(StatusCode::kUnavailable, "x")});
      const Duration wait = session_.next_run() - now_;
      least = std::min(least, wait);
      most = std::max(most, wait);
      now_ = session_.next_run();
    }
  }
  EXPECT_LT(least, minutes(30));
  EXPECT_GT(most, hours(11));
  EXPECT_LE(most, hours(12));
}

TEST_F(SessionTest, Restore_ToldMoreThanPossible_IsDataLoss) {
  Start();
  CheckInAnswer answer = Answer();
  answer.retry = {hours(1), hours(2)};
  Step(CheckedIn{answer});
  Bytes bytes = session_.Save();
  ASSERT_THAT(Session::Restore(bytes), IsOk());
  bytes.back() = 0x7f;
  EXPECT_THAT(Session::Restore(bytes), StatusIs(StatusCode::kDataLoss));
  bytes.back() = 0xff;
  EXPECT_THAT(Session::Restore(bytes), StatusIs(StatusCode::kDataLoss));
}

TEST_F(SessionTest, Step_LateAndRejected_DropTheOutbox) {
  for (const ReceiptStatus status :
       {ReceiptStatus::kLate, ReceiptStatus::kRejected}) {
    session_ = Session();
    ReachUploading();
    const SessionAction done = Step(ReceiptReceived{MakeReceipt(status)});
    EXPECT_EQ(done.kind, SessionActionKind::kFinish);
    EXPECT_EQ(done.result, RunResult::kNotAccepted);
    EXPECT_TRUE(done.drop_outbox);
    EXPECT_FALSE(done.reason.empty());
    EXPECT_THAT(session_.unsettled(), ElementsAre());
  }
}

TEST_F(SessionTest, Step_ReceiptWithItsOwnWindow_UsesIt) {
  ReachUploading();
  Receipt receipt = MakeReceipt(ReceiptStatus::kAccepted);
  receipt.retry = Window(hours(5), hours(6));
  Step(ReceiptReceived{receipt});
  EXPECT_GE(session_.next_run() - now_, hours(5));
}

TEST_F(SessionTest, Step_SameAssignmentAgain_IsNotTrainedTwice) {
  ReachUploading();
  Accept();
  Step(ModelPersonalized{});
  now_ = session_.next_run();
  Kill();
  Start();
  const SessionAction done = Step(CheckedIn{Answer(MakeAssignment("a1"))});
  EXPECT_EQ(done.kind, SessionActionKind::kFinish);
  EXPECT_EQ(done.result, RunResult::kNothingToDo);
}

TEST_F(SessionTest, Step_LateAssignmentAgain_IsNotTrainedTwice) {
  ReachUploading();
  Step(ReceiptReceived{MakeReceipt(ReceiptStatus::kLate)});
  now_ = session_.next_run();
  Start();
  EXPECT_EQ(Do(CheckedIn{Answer(MakeAssignment("a1"))}),
            SessionActionKind::kFinish);
}

TEST_F(SessionTest, Step_Outcomes_SettleAssignments) {
  ReachUploading();
  Accept();
  Step(ModelPersonalized{});
  now_ = session_.next_run();
  Start();
  CheckInAnswer pending = Answer();
  pending.outcomes = {{.assignment_id = "a1", .state = OutcomeState::kPending}};
  Step(CheckedIn{pending});
  EXPECT_THAT(session_.unsettled(), ElementsAre("a1"));

  now_ = session_.next_run();
  Start();
  CheckInAnswer settled = Answer();
  settled.outcomes = {
      {.assignment_id = "a1", .state = OutcomeState::kCommitted}};
  Step(CheckedIn{settled});
  EXPECT_THAT(session_.unsettled(), ElementsAre());
}

TEST_F(SessionTest, Step_ManyRounds_RememberAtMostSixteen) {
  for (int i = 0; i < 20; ++i) {
    Start();
    Step(CheckedIn{Answer(MakeAssignment("a" + std::to_string(i)))});
    Step(ArtefactsFetched{});
    Step(UpdateRecorded{});
    Accept();
    Step(ModelPersonalized{});
    now_ = session_.next_run();
  }
  EXPECT_EQ(session_.unsettled().size(), kUnsettledMax);
  EXPECT_EQ(session_.unsettled().front(), "a4");
  Kill();
}

TEST_F(SessionTest, Step_Refused_AbandonsWithTheReason) {
  ReachTraining();
  const SessionAction abandon = Step(WorkRefused{
      .reason = AbandonReason::kUpdateOutOfRange, .message = "a[0] too large"});
  EXPECT_EQ(abandon.kind, SessionActionKind::kAbandon);
  EXPECT_EQ(abandon.abandon_reason, AbandonReason::kUpdateOutOfRange);
  const SessionAction done =
      Step(AssignmentAbandoned{Window(seconds(7), seconds(8))});
  EXPECT_EQ(done.result, RunResult::kDeclined);
  EXPECT_EQ(done.reason, "a[0] too large");
  EXPECT_GE(session_.next_run() - now_, seconds(7));
  EXPECT_LE(session_.next_run() - now_, seconds(8));
}

TEST_F(SessionTest, Step_AbandonUnanswered_IsStillDeclined) {
  ReachFetching();
  Step(WorkRefused{.reason = AbandonReason::kPlanRefused, .message = "no"});
  const SessionAction done = Step(ActionFailed{Unavailable("gone")});
  EXPECT_EQ(done.result, RunResult::kDeclined);
  EXPECT_EQ(session_.state(), SessionState::kIdle);
}

TEST_F(SessionTest, Step_KilledWhileAbandoning_ForgetsTheAssignment) {
  ReachFetching();
  Step(WorkRefused{.reason = AbandonReason::kPlanRefused, .message = "no"});
  Kill();
  now_ = session_.next_run();
  EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
  EXPECT_EQ(Do(CheckedIn{Answer(MakeAssignment("a1"))}),
            SessionActionKind::kFinish);
}

TEST_F(SessionTest, Step_ModelOffer_InstallsAndWaits) {
  Start();
  EXPECT_EQ(Do(CheckedIn{Answer(MakeOffer())}), SessionActionKind::kFetch);
  EXPECT_EQ(Do(ArtefactsFetched{}), SessionActionKind::kPersonalize);
  const SessionAction done = Step(ModelPersonalized{});
  EXPECT_EQ(done.result, RunResult::kInstalled);
  EXPECT_GE(session_.next_run() - now_, seconds(100));
}

TEST_F(SessionTest, Step_OfferRefused_DeclinesWithoutAbandon) {
  Start();
  Step(CheckedIn{Answer(MakeOffer())});
  const SessionAction done = Step(WorkRefused{
      .reason = AbandonReason::kProgramRefused, .message = "aten::save"});
  EXPECT_EQ(done.kind, SessionActionKind::kFinish);
  EXPECT_EQ(done.result, RunResult::kDeclined);
}

// ---- killed in every state

TEST_F(SessionTest, Kill_CheckingIn_ChecksInAgain) {
  Start();
  Kill();
  EXPECT_EQ(session_.state(), SessionState::kIdle);
  EXPECT_EQ(Start().kind, SessionActionKind::kCheckIn);
}

TEST_F(SessionTest, Kill_Fetching_FetchesAgain) {
  ReachFetching();
  Kill();
  EXPECT_EQ(Start().kind, SessionActionKind::kFetch);
  EXPECT_EQ(session_.work().assignment_id, "a1");
  EXPECT_EQ(session_.work().seed, 77U);
}

TEST_F(SessionTest, Kill_Training_TrainsTheSameAssignmentAgain) {
  ReachTraining();
  const SessionWork before = session_.work();
  Kill();
  EXPECT_EQ(Start().kind, SessionActionKind::kTrain);
  EXPECT_EQ(session_.work(), before);
}

TEST_F(SessionTest, Kill_Uploading_UploadsAndDoesNotTrain) {
  ReachUploading();
  Kill();
  EXPECT_EQ(Start().kind, SessionActionKind::kUpload);
}

TEST_F(SessionTest, Kill_Personalizing_GoesOnWhenDue) {
  ReachUploading();
  Accept();
  Kill();
  EXPECT_EQ(Start().kind, SessionActionKind::kFinish);  // not due
  now_ = session_.next_run();
  EXPECT_EQ(Start().kind, SessionActionKind::kPersonalize);
  EXPECT_EQ(Step(ModelPersonalized{}).result, RunResult::kNothingToDo);
}

TEST_F(SessionTest, Resume_ComputeDeadlinePassed_DropsAndChecksIn) {
  ReachTraining();
  Kill();
  now_ += minutes(2);
  const SessionAction next = Start();
  EXPECT_EQ(next.kind, SessionActionKind::kCheckIn);
  EXPECT_FALSE(next.drop_outbox);
  EXPECT_THAT(next.counters, Contains("expired"));
}

TEST_F(SessionTest, Resume_UploadDeadlinePassed_DropsTheOutbox) {
  ReachUploading();
  Kill();
  now_ += minutes(4);
  EXPECT_EQ(Start().kind, SessionActionKind::kUpload);
  Step(SessionInterrupted{});
  now_ += minutes(1);
  const SessionAction next = Start();
  EXPECT_EQ(next.kind, SessionActionKind::kCheckIn);
  EXPECT_TRUE(next.drop_outbox);
}

TEST_F(SessionTest, Resume_IdentityLost_DropsTheAssignment) {
  ReachUploading();
  Kill();
  const SessionAction next = Step(SessionStarted{.enrolled = false});
  EXPECT_EQ(next.kind, SessionActionKind::kEnroll);
  EXPECT_TRUE(next.drop_outbox);
}

// A program that kills the process must not do so for ever.
TEST_F(SessionTest, Resume_DiedThreeTimesTraining_Abandons) {
  ReachTraining();
  for (int i = 1; i < kCrashesMax; ++i) {
    Kill();
    EXPECT_EQ(Start().kind, SessionActionKind::kTrain);
  }
  Kill();
  const SessionAction action = Start();
  EXPECT_EQ(action.kind, SessionActionKind::kAbandon);
  EXPECT_EQ(action.abandon_reason, AbandonReason::kTrainingFailed);
}

TEST_F(SessionTest, Resume_DiedThreeTimesPersonalizing_InstallsTheGlobalModel) {
  Start();
  Step(CheckedIn{Answer(MakeOffer())});
  EXPECT_FALSE(Step(ArtefactsFetched{}).global_only);
  for (int i = 1; i < kCrashesMax; ++i) {
    Kill();
    EXPECT_FALSE(Start().global_only);
  }
  Kill();
  const SessionAction action = Start();
  EXPECT_EQ(action.kind, SessionActionKind::kPersonalize);
  EXPECT_TRUE(action.global_only);
}

TEST_F(SessionTest, Resume_InterruptedTooOften_Abandons) {
  ReachTraining();
  for (int i = 0; i < kInterruptionsMax; ++i) {
    EXPECT_EQ(Step(SessionInterrupted{}).result, RunResult::kInterrupted);
    EXPECT_EQ(session_.next_run(), now_);
    Kill();
    if (i + 1 < kInterruptionsMax) {
      EXPECT_EQ(Start().kind, SessionActionKind::kTrain);
    }
  }
  const SessionAction action = Start();
  EXPECT_EQ(action.kind, SessionActionKind::kAbandon);
  EXPECT_EQ(action.abandon_reason, AbandonReason::kInterrupted);
}

TEST_F(SessionTest, Step_InterruptedPersonalizing_StillContributed) {
  ReachUploading();
  Accept();
  EXPECT_EQ(Step(SessionInterrupted{}).result, RunResult::kContributed);
  EXPECT_EQ(session_.state(), SessionState::kPersonalizing);
  EXPECT_GT(session_.next_run(), now_);
}

TEST_F(SessionTest, Step_UploadUnavailable_KeepsTheUpdateAndRetriesInTime) {
  ReachUploading();
  const SessionAction done = Step(ActionFailed{Unavailable("gone")});
  EXPECT_EQ(done.result, RunResult::kFailed);
  EXPECT_FALSE(done.drop_outbox);
  EXPECT_EQ(session_.state(), SessionState::kUploading);
  EXPECT_LT(session_.next_run(), session_.work().upload_deadline);
  Kill();
  now_ = session_.next_run();
  EXPECT_EQ(Start().kind, SessionActionKind::kUpload);
}

TEST_F(SessionTest, Step_UploadRefusedForGood_DropsTheUpdate) {
  ReachUploading();
  const SessionAction done = Step(ActionFailed{Unauthenticated("who")});
  EXPECT_EQ(done.result, RunResult::kFailed);
  EXPECT_TRUE(done.drop_outbox);
  EXPECT_EQ(session_.state(), SessionState::kIdle);
}

TEST_F(SessionTest, Step_ArtefactGone_DropsTheWork) {
  ReachFetching();
  EXPECT_EQ(Step(ActionFailed{NotFound("digest")}).result, RunResult::kFailed);
  EXPECT_EQ(session_.state(), SessionState::kIdle);
}

TEST_F(SessionTest, Step_ImpossibleWork_IsRefusedAndSavesCleanly) {
  for (int kind = 0; kind < 4; ++kind) {
    session_ = Session();
    Start();
    Assignment bad = MakeAssignment("a1");
    if (kind == 0) bad.task.clear();
    if (kind == 1) bad.id.clear();
    if (kind == 2) bad.token = Bytes(5000, 1);
    if (kind == 3) bad.id = std::string(5000, 'x');
    const SessionAction done = Step(CheckedIn{Answer(bad)});
    EXPECT_EQ(done.result, RunResult::kFailed) << kind;
    EXPECT_EQ(session_.state(), SessionState::kIdle);
    Kill();
  }
}

TEST_F(SessionTest, Step_HostileWindowsAndDeadlines_AreBounded) {
  Start();
  CheckInAnswer answer = Answer(MakeAssignment("a1"));
  auto& assignment = std::get<Assignment>(answer.work);
  assignment.compute_deadline = Duration::max();
  assignment.upload_deadline = Duration::min();
  answer.retry = Window(Duration::max(), Duration::min());
  EXPECT_EQ(Do(CheckedIn{answer}), SessionActionKind::kFetch);
  EXPECT_LE(session_.work().compute_deadline, now_ + kRetryMax);
  EXPECT_EQ(session_.work().upload_deadline, now_);
  Step(ActionFailed{NotFound("gone")});
  EXPECT_LE(session_.next_run(), now_ + kRetryMax);
}

TEST(DrawRetryTest, DrawRetry_Window_IsCoveredAndKept) {
  SeededRandom random(3);
  std::set<int64_t> seen;
  for (int i = 0; i < 200; ++i) {
    seen.insert(DrawRetry(Window(Duration(5), Duration(9)), random).count());
  }
  EXPECT_THAT(seen, ElementsAre(5, 6, 7, 8, 9));
}

// ---- saved bytes

TEST_F(SessionTest, Restore_EveryTruncation_IsRefused) {
  ReachUploading();
  const Bytes saved = session_.Save();
  for (size_t size = 0; size < saved.size(); ++size) {
    EXPECT_THAT(Session::Restore(ByteSpan(saved).first(size)),
                StatusIs(StatusCode::kDataLoss))
        << size;
  }
  Bytes longer = saved;
  longer.push_back(0);
  EXPECT_THAT(Session::Restore(longer), StatusIs(StatusCode::kDataLoss));
}

TEST_F(SessionTest, Restore_EveryBitFlip_IsRefusedOrCanonical) {
  ReachUploading();
  const Bytes saved = session_.Save();
  for (size_t bit = 0; bit < saved.size() * 8; ++bit) {
    Bytes flipped = saved;
    flipped[bit / 8] = static_cast<uint8_t>(flipped[bit / 8] ^ (1U << bit % 8));
    Result<Session> restored = Session::Restore(flipped);
    if (!restored.ok()) continue;
    EXPECT_EQ(restored->Save(), flipped);
    restored->Step(SessionStarted{.enrolled = true}, now_, random_);
  }
}

TEST_F(SessionTest, Restore_TimeNoClockShows_IsRefused) {
  ReachUploading();
  Bytes saved = session_.Save();
  Bytes never;
  AppendLe(never, int64_t{-9'221'672'037'242'568'447});
  // next_run follows the magic, the version and the state.
  std::copy(never.begin(), never.end(), saved.begin() + 4 + 2 + 1);
  EXPECT_THAT(Session::Restore(saved), StatusIs(StatusCode::kDataLoss));
}

Assignment MakeEvaluation() {
  Assignment assignment = MakeAssignment("e1");
  assignment.evaluate = true;
  return assignment;
}

TEST_F(SessionTest, Evaluation_EndsWithItsReceipt_AndPersonalizesNothing) {
  Start();
  EXPECT_EQ(Do(CheckedIn{Answer(MakeEvaluation())}), SessionActionKind::kFetch);
  Kill();
  EXPECT_TRUE(session_.work().evaluate);
  EXPECT_EQ(Start().kind, SessionActionKind::kFetch);
  EXPECT_EQ(Do(ArtefactsFetched{}), SessionActionKind::kTrain);
  const SessionAction recorded = Step(UpdateRecorded{});
  EXPECT_EQ(recorded.kind, SessionActionKind::kUpload);
  EXPECT_THAT(recorded.counters, ElementsAre("evaluated"));
  Kill();
  EXPECT_EQ(Start().kind, SessionActionKind::kUpload);

  const SessionAction accepted = Accept();

  EXPECT_EQ(accepted.kind, SessionActionKind::kFinish);
  EXPECT_EQ(accepted.result, RunResult::kContributed);
  EXPECT_TRUE(accepted.drop_outbox);
  EXPECT_EQ(accepted.update_result, AuditResult::kAccepted);
  EXPECT_EQ(session_.state(), SessionState::kIdle);
  EXPECT_THAT(session_.unsettled(), ElementsAre("e1"));
  EXPECT_GE(session_.next_run(), now_ + seconds(100));
  EXPECT_LE(session_.next_run(), now_ + seconds(200));
}

TEST_F(SessionTest, Restore_KindOfWork_IsChecked) {
  ReachTraining();
  const Bytes train = session_.Save();
  session_ = Session();
  Start();
  Do(CheckedIn{Answer(MakeEvaluation())});
  Do(ArtefactsFetched{});
  Bytes evaluate = session_.Save();
  ASSERT_EQ(evaluate.size(), train.size());
  // They differ in the id and in one byte; what it says is checked.
  size_t at = 0;
  while (at < train.size() && !(train[at] == 1 && evaluate[at] == 2)) ++at;
  ASSERT_LT(at, train.size());
  evaluate[at] = 3;
  EXPECT_THAT(Session::Restore(evaluate), StatusIs(StatusCode::kDataLoss));
}

}  // namespace
}  // namespace selvage::client
