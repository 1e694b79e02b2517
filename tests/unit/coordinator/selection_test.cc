#include "coordinator/selection.h"

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator {
namespace {

using test::World;
using test::WorldOptions;

TEST(SelectionTest, FirstRound_IsTheGuess) {
  EXPECT_EQ(SlotsFor(10, 1.3, {}), 13u);
  EXPECT_EQ(SlotsFor(70, 1.1, {}), 77u);
  EXPECT_EQ(SlotsFor(3, 1.0, {}), 3u);
  EXPECT_EQ(SlotsFor(10, 4.0, {}), 40u);
}

TEST(SelectionTest, NobodyDropsOut_FallsTowardsTheCohort) {
  std::vector<DropOut> rounds;
  uint32_t before = SlotsFor(100, 1.3, rounds);
  for (size_t i = 0; i < kDropOutRounds; ++i) {
    rounds.push_back({100, 0});
    const uint32_t slots = SlotsFor(100, 1.3, rounds);
    EXPECT_LT(slots, before);
    before = slots;
  }
  EXPECT_LE(before, 107u);
  EXPECT_EQ(SlotsFor(100, 1.0, rounds), 100u);
}

// By hand, p = 0.2 (20 of 100 lost, as the guess of 1.25 says): 131 x 0.8 =
// 104.8, less sqrt(131 x 0.8 x 0.2) = 4.58, is 100.2; 130 give 99.4.
TEST(SelectionTest, MeasuredDropOut_WithOneDeviationToSpare) {
  const std::vector<DropOut> rounds = {{80, 20}};
  EXPECT_EQ(SlotsFor(100, 1.25, rounds), 131u);
}

TEST(SelectionTest, EverybodyVanishes_AtMostFourPerUpdate_AndRecovers) {
  std::vector<DropOut> rounds(kDropOutRounds, DropOut{0, 1000});
  EXPECT_EQ(SlotsFor(10, 1.3, rounds), 40u);
  rounds.assign(kDropOutRounds, DropOut{1000, 0});
  EXPECT_EQ(SlotsFor(10, 1.3, rounds), 11u);
}

TEST(SelectionTest, MoreDropOut_NeverFewerSlots) {
  uint32_t before = 0;
  for (uint64_t lost = 0; lost <= 200; ++lost) {
    const std::vector<DropOut> rounds = {{200 - lost, lost}};
    const uint32_t slots = SlotsFor(20, 1.3, rounds);
    EXPECT_GE(slots, before);
    EXPECT_GE(slots, 20u);
    EXPECT_LE(slots, 80u);
    before = slots;
  }
}

TEST(SelectionTest, Funnel_WhoWasStillAtWork_IsNeither) {
  const std::vector<FunnelCount> counts = {
      {AssignmentState::kAccepted, "", 10},
      {AssignmentState::kLate, "", 2},
      {AssignmentState::kLeased, "", 5},
      {AssignmentState::kExpired, "", 3},
      {AssignmentState::kRejected, "x", 1},
      {AssignmentState::kAbandoned, "", 2},
  };
  EXPECT_EQ(DropOutOf(counts).sent, 12u);
  EXPECT_EQ(DropOutOf(counts).lost, 6u);
}

// Two of six vanish in every round of 3; the slots follow, and a restart in the
// middle knows what was measured.
TEST(SelectionTest, Rounds_AskForWhatWasMeasured) {
  WorldOptions options;
  options.devices = 12;
  options.rounds = 4;
  options.strategy =
      "cohort: 3, over_selection: 1.0, measure_drop_out: true, "
      "min_updates: 1, round_deadline: 10m, selection_window: 1s";
  World world(std::move(options));
  world.SetUpTask();
  world.Turn();
  std::vector<size_t> slots;
  for (uint64_t round = 1; round <= 4; ++round) {
    if (round == 3) {
      ASSERT_THAT(world.Reopen(), test::IsOk());
      world.Turn();
    }
    const auto assigned = world.DrawRound();
    slots.push_back(assigned.size());
    // Only one of them ever sends.
    const auto& [device, work] = *assigned.begin();
    EXPECT_EQ(work.round, round);
    EXPECT_EQ(world.Upload(device, work).status, ReceiptStatus::kAccepted);
    world.Turn(std::chrono::minutes(5) + std::chrono::seconds(1));
    world.Turn(std::chrono::minutes(5));
    world.Turn();
  }
  EXPECT_EQ(slots[0], 3u);
  EXPECT_GT(slots[1], 3u);
  EXPECT_GE(slots[2], slots[1]);
  EXPECT_LE(slots[3], 12u);
  EXPECT_GE(slots[3], slots[2]);
}

}  // namespace
}  // namespace selvage::coordinator
