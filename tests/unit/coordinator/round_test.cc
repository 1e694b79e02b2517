#include "coordinator/round.h"

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using std::chrono::microseconds;
using std::chrono::seconds;

RoundConfig SmallConfig() {
  RoundConfig config;
  config.number = 1;
  config.seed = 5;
  config.cohort = 2;
  config.min_updates = 1;
  config.slot_count = 2;
  config.available_min = 2;
  config.update_max = 4;
  config.selection_window = seconds(10);
  config.compute_deadline = seconds(50);
  config.round_deadline = seconds(100);
  return config;
}

class RoundTest : public ::testing::Test {
 protected:
  std::vector<RoundAction> Step(const RoundEvent& event, int64_t at) {
    return round_.Step(event, Time(seconds(at)));
  }
  void Draw() {
    Step(CheckedIn{"a"}, 0);
    Step(CheckedIn{"b"}, 0);
    ASSERT_EQ(round_.state(), RoundState::kCollecting);
  }
  Round round_ = *Round::Create(SmallConfig(), Time{});
};

TEST(RoundConfigTest, Validate_EveryMistake_IsNamed) {
  const auto with = [](auto change) {
    RoundConfig config = SmallConfig();
    change(config);
    return config.Validate();
  };
  EXPECT_THAT(SmallConfig().Validate(), IsOk());
  for (const Status& status : {
           with([](RoundConfig& c) { c.number = 0; }),
           with([](RoundConfig& c) { c.min_updates = 0; }),
           with([](RoundConfig& c) { c.min_updates = 3; }),
           with([](RoundConfig& c) { c.slot_count = 1; }),
           with([](RoundConfig& c) { c.available_min = 1; }),
           with([](RoundConfig& c) { c.update_max = 1; }),
           with([](RoundConfig& c) { c.round_deadline = {}; }),
           with([](RoundConfig& c) {
             c.buffered = true;
             c.slot_count = 0;
           }),
           with([](RoundConfig& c) {
             c.buffered = true;
             c.slot_count = 3;  // and a cohort of 2: 4 are too few
           }),
       }) {
    EXPECT_THAT(status, StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST_F(RoundTest, CheckIn_BeforeTheDraw_IsCandidateHoweverOften) {
  const auto first = Step(CheckedIn{"a"}, 1);
  Step(CheckedIn{"a"}, 2);

  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(std::get<AnswerCheckIn>(first[0]).verdict,
            CheckInVerdict::kCandidate);
  EXPECT_EQ(round_.state(), RoundState::kSelecting);
  EXPECT_EQ(round_.checked_in(), 1u);
}

TEST_F(RoundTest, Draw_EnoughCandidates_AssignsThenEntersThenAnswers) {
  Step(CheckedIn{"a"}, 1);
  const auto actions = Step(CheckedIn{"b"}, 2);

  ASSERT_EQ(actions.size(), 4u);
  EXPECT_TRUE(std::holds_alternative<Assign>(actions[0]));
  EXPECT_TRUE(std::holds_alternative<Assign>(actions[1]));
  EXPECT_EQ(std::get<EnterState>(actions[2]).state, RoundState::kCollecting);
  EXPECT_EQ(std::get<AnswerCheckIn>(actions[3]).verdict,
            CheckInVerdict::kAssigned);
}

TEST_F(RoundTest, Draw_WindowOver_TakesWhoIsThere) {
  Step(CheckedIn{"a"}, 1);
  EXPECT_EQ(round_.NextDeadline(), Time(seconds(10)));
  round_.Step(Tick{}, Time(seconds(10) - microseconds(1)));
  EXPECT_EQ(round_.state(), RoundState::kSelecting);

  Step(Tick{}, 10);

  EXPECT_EQ(round_.state(), RoundState::kCollecting);
  EXPECT_NE(round_.Find("a"), nullptr);
  EXPECT_TRUE(round_.Wants("late-comer"));  // a slot is free
}

TEST_F(RoundTest, Lease_OneMicrosecondBefore_StillHolds) {
  Draw();

  round_.Step(Tick{}, Time(seconds(50) - microseconds(1)));
  EXPECT_EQ(round_.Find("a")->state, Round::MemberState::kLeased);
  Step(Tick{}, 50);

  EXPECT_EQ(round_.Find("a")->state, Round::MemberState::kExpired);
  EXPECT_TRUE(round_.Wants("a"));
  EXPECT_TRUE(round_.Wants("c"));
}

TEST_F(RoundTest, ExpiredMember_ChecksInAgain_GetsItsAssignmentBack) {
  Draw();
  Step(Tick{}, 50);

  const auto actions = Step(CheckedIn{"a"}, 60);

  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(std::get<Assign>(actions[0]).device, "a");
  EXPECT_EQ(std::get<Assign>(actions[0]).lease_deadline, Time(seconds(100)));
  EXPECT_EQ(std::get<AnswerCheckIn>(actions[1]).verdict,
            CheckInVerdict::kAssigned);
}

TEST_F(RoundTest, Assignments_NeverExceedUpdateMax) {
  Draw();
  for (int i = 0; i < 10; ++i) {
    const std::string device = "x" + std::to_string(i);
    Step(GaveUp{i == 0 ? "a" : "x" + std::to_string(i - 1)}, 1);
    Step(CheckedIn{device}, 1);
    EXPECT_EQ(round_.Find(device) != nullptr, i < 2) << i;
  }
}

TEST_F(RoundTest, Accepted_Duplicates_CountOnce) {
  Draw();
  Step(UpdatesAccepted{{"a", "a"}}, 1);
  Step(UpdatesAccepted{{"a"}}, 2);
  Step(UpdatesAccepted{{"stranger"}}, 2);

  EXPECT_EQ(round_.accepted(), 1u);
  EXPECT_EQ(round_.missing(), 1u);
  EXPECT_EQ(round_.state(), RoundState::kCollecting);
}

TEST_F(RoundTest, Goal_Reached_ClosesAtOnce) {
  Draw();
  const auto actions = Step(UpdatesAccepted{{"a", "b"}}, 1);

  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(std::get<EnterState>(actions[0]).state, RoundState::kClosing);
  EXPECT_EQ(round_.NextDeadline(), kNever);
  EXPECT_FALSE(round_.Wants("a"));
}

TEST_F(RoundTest, Deadline_BelowTheMinimum_IsAbandonedWithAReason) {
  Draw();
  const auto actions = Step(Tick{}, 100);

  ASSERT_EQ(actions.size(), 1u);
  const auto& enter = std::get<EnterState>(actions[0]);
  EXPECT_EQ(enter.state, RoundState::kAbandoned);
  EXPECT_EQ(enter.reason,
            "only 0 updates arrived before the round deadline, min_updates is "
            "1");
}

TEST_F(RoundTest, FailedWhileApplying_IsAbandoned) {
  Draw();
  Step(UpdatesAccepted{{"a", "b"}}, 1);
  Step(SumsMerged{}, 2);
  ASSERT_EQ(round_.state(), RoundState::kApplying);

  Step(Failed{"tensor w is not finite"}, 3);

  EXPECT_EQ(round_.state(), RoundState::kAbandoned);
  EXPECT_TRUE(Step(VersionCommitted{}, 4).empty());
}

TEST_F(RoundTest, EventsOutOfTurn_ChangeNothing) {
  EXPECT_TRUE(Step(SumsMerged{}, 0).empty());
  EXPECT_TRUE(Step(VersionCommitted{}, 0).empty());
  EXPECT_TRUE(Step(UploadBegan{"nobody"}, 0).empty());
  EXPECT_TRUE(Step(UploadBroke{"nobody"}, 0).empty());
  EXPECT_TRUE(Step(UpdateRefused{"nobody"}, 0).empty());
  EXPECT_TRUE(Step(GaveUp{"nobody"}, 0).empty());
  EXPECT_EQ(round_.state(), RoundState::kSelecting);
}

TEST(RoundRestoreTest, Restore_BetweenDrawAndState_EntersCollectingFirst) {
  std::map<std::string, Round::Member> members;
  members["a"] = {Round::MemberState::kLeased, Time(seconds(50))};
  members["b"] = {Round::MemberState::kAccepted, Time(seconds(50))};
  auto round =
      Round::Restore(SmallConfig(), Time{}, RoundState::kSelecting, members);
  ASSERT_THAT(round, IsOk());
  EXPECT_EQ(round->accepted(), 1u);

  const auto actions = round->Step(Tick{}, Time(seconds(1)));

  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(std::get<EnterState>(actions[0]).state, RoundState::kCollecting);
}

TEST(RoundRestoreTest, Restore_AtTheGoal_ClosesWithTheNextTick) {
  std::map<std::string, Round::Member> members;
  members["a"] = {Round::MemberState::kAccepted, Time(seconds(50))};
  members["b"] = {Round::MemberState::kAccepted, Time(seconds(50))};
  auto round = Round::Restore(SmallConfig(), Time(seconds(3)),
                              RoundState::kCollecting, members);
  ASSERT_THAT(round, IsOk());
  // It does not wait for the round's deadline.
  EXPECT_EQ(round->NextDeadline(), Time(seconds(3)));

  const auto actions = round->Step(Tick{}, Time(seconds(4)));

  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(std::get<EnterState>(actions[0]).state, RoundState::kClosing);
}

TEST(RoundRestoreTest, Restore_EndedRound_IsRefused) {
  EXPECT_THAT(Round::Restore(SmallConfig(), Time{}, RoundState::kCommitted, {}),
              StatusIs(StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace selvage::coordinator
