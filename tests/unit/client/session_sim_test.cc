// The session machine against a coordinator that loses messages and a host that
// kills the process: thousands of lives from seeds, judged by a checker that
// knows nothing of the machine's inside.
#include <cstdlib>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "client/core/session.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class Life {
 public:
  explicit Life(uint64_t seed) : random_(seed) {
    loss_ = UniformUnit(random_) * 0.5;
    kill_ = UniformUnit(random_) * 0.2;
  }

  void Run(int sessions) {
    for (int i = 0; i < sessions && !::testing::Test::HasFailure(); ++i) {
      RunSession();
    }
  }

  std::map<RunResult, int> endings;
  int trainings = 0;
  int uploads = 0;

 private:
  bool Chance(double p) { return UniformUnit(random_) < p; }

  void RunSession() {
    SessionAction action = Step(SessionStarted{.enrolled = enrolled_});
    // Liveness: a session is a bounded number of steps.
    for (int steps = 0; action.kind != SessionActionKind::kFinish; ++steps) {
      ASSERT_LT(steps, 20);
      // The state is durable before the action: a kill here restores it.
      if (Chance(kill_)) {
        Restart();
        return;
      }
      now_ += Duration(static_cast<int64_t>(UniformBelow(random_, 60'000'000)));
      action = Step(Perform(action));
    }
    ++endings[action.result];
    ASSERT_LE(session_.next_run() - now_, kRetryMax);
    if (Chance(0.1)) Restart();
    if (now_ < session_.next_run()) now_ = session_.next_run();
    now_ += seconds(1);
  }

  SessionAction Step(const SessionEvent& event) {
    SessionAction action = session_.Step(event, now_, random_);
    if (action.drop_outbox) outbox_.clear();
    saved_ = session_.Save();
    return action;
  }

  void Restart() {
    Result<Session> restored = Session::Restore(saved_);
    ASSERT_THAT(restored, test::IsOk());
    session_ = *std::move(restored);
  }

  SessionEvent Perform(const SessionAction& action) {
    if (Chance(0.05)) return SessionInterrupted{};
    if (Chance(loss_)) {
      return ActionFailed{Chance(0.9) ? Unavailable("lost")
                                      : NotFound("unknown")};
    }
    switch (action.kind) {
      case SessionActionKind::kEnroll:
        enrolled_ = true;
        return DeviceEnrolled{};
      case SessionActionKind::kCheckIn:
        return CheckedIn{Answer()};
      case SessionActionKind::kFetch:
        if (Chance(0.1)) return WorkRefused{.message = "no"};
        return ArtefactsFetched{};
      case SessionActionKind::kTrain: {
        const SessionWork& work = session_.work();
        // Never train what was already recorded, nor beyond the deadline of a
        // fresh start.
        EXPECT_FALSE(recorded_.contains(work.assignment_id));
        ++trainings;
        recorded_.insert(work.assignment_id);
        outbox_ = work.assignment_id;
        return UpdateRecorded{};
      }
      case SessionActionKind::kUpload: {
        ++uploads;
        EXPECT_EQ(outbox_, session_.work().assignment_id);
        Receipt receipt;
        receipt.status = Chance(0.8)   ? ReceiptStatus::kAccepted
                         : Chance(0.5) ? ReceiptStatus::kLate
                                       : ReceiptStatus::kRejected;
        return ReceiptReceived{receipt};
      }
      case SessionActionKind::kAbandon:
        return AssignmentAbandoned{{.min = seconds(1), .max = seconds(2)}};
      case SessionActionKind::kPersonalize:
        EXPECT_TRUE(outbox_.empty());
        return ModelPersonalized{};
      case SessionActionKind::kFinish:
        break;
    }
    return SessionInterrupted{};
  }

  CheckInAnswer Answer() {
    CheckInAnswer answer;
    answer.retry = {.min = seconds(5), .max = seconds(10)};
    answer.retry_if_accepted = {.min = seconds(20), .max = seconds(40)};
    for (const std::string& id : session_.unsettled()) {
      answer.outcomes.push_back({.assignment_id = id,
                                 .state = Chance(0.5)
                                              ? OutcomeState::kCommitted
                                              : OutcomeState::kPending});
    }
    if (Chance(0.6)) {
      Assignment assignment;
      // Sometimes the one it had before, as a repeated check-in may give.
      if (!Chance(0.2)) ++rounds_;
      assignment.id = "a" + std::to_string(rounds_);
      assignment.task = "digits";
      assignment.compute_deadline = minutes(5);
      assignment.upload_deadline = minutes(10);
      answer.work = assignment;
    } else if (Chance(0.3)) {
      ModelOffer offer;
      offer.task = "digits";
      offer.version = 3;
      answer.work = offer;
    }
    return answer;
  }

  Session session_;
  Bytes saved_ = Session().Save();
  SeededRandom random_;
  Time now_ = FromMicros(1'700'000'000'000'000);
  double loss_ = 0;
  double kill_ = 0;
  bool enrolled_ = false;
  uint64_t rounds_ = 0;
  std::string outbox_;
  std::set<std::string> recorded_;
};

TEST(SessionSimTest, Step_ManyLives_NeverTrainTwiceAndNeverStall) {
  std::map<RunResult, int> endings;
  int trainings = 0;
  uint64_t seeds = 2000;
  if (const char* wanted = std::getenv("SELVAGE_SIM_SEEDS")) {
    seeds = std::strtoull(wanted, nullptr, 10);
  }
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Life life(seed);
    life.Run(40);
    if (HasFailure()) return;
    for (const auto& [result, count] : life.endings) endings[result] += count;
    trainings += life.trainings;
    EXPECT_LE(life.trainings, life.uploads + 40);
  }
  EXPECT_GT(trainings, 10'000);
  for (const RunResult result :
       {RunResult::kNothingToDo, RunResult::kContributed,
        RunResult::kNotAccepted, RunResult::kInstalled, RunResult::kDeclined,
        RunResult::kInterrupted, RunResult::kFailed}) {
    EXPECT_GT(endings[result], 0) << RunResultName(result);
  }
}

}  // namespace
}  // namespace selvage::client
