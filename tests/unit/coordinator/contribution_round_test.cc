// Strategies that devices contribute more than a delta to: what is asked of
// them, what is refused, and what a round makes of it.
#include <gmock/gmock.h>

#include "aggregation/server_optimizer.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using ::testing::FloatNear;
using ::testing::HasSubstr;

WorldOptions Options(const std::string& strategy) {
  WorldOptions options;
  options.devices = 2;
  options.rounds = 2;
  options.strategy_name = strategy;
  options.strategy = "cohort: 2, min_updates: 2, over_selection: 1";
  options.contributions = {plan::ContributionName::kFedNova,
                           plan::ContributionName::kQFedAvg,
                           plan::ContributionName::kScaffold};
  return options;
}

// Two of a population of four.
WorldOptions ScaffoldOptions() {
  WorldOptions options = Options("scaffold");
  options.strategy += ", population_size: 4";
  options.update_extra = "";
  return options;
}

TEST(ContributionRoundTest, DeviceThatDoesNotKnowIt_GetsNoWork) {
  World world(Options("fednova"));
  world.SetUpTask();
  world.Turn();
  CheckInRequest request = world.Request();
  request.contributions = {plan::ContributionName::kScaffold};
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < 2; ++i) {
      const auto answer = world.CheckIn(i, request);
      world.Turn();
      ASSERT_TRUE(answer->has_value() && (*answer)->ok());
      EXPECT_TRUE(std::holds_alternative<std::monostate>((**answer)->work));
    }
  }
  EXPECT_EQ(world.DrawRound().size(), 2u);
}

TEST(ContributionRoundTest, FedNova_ScalarAbsentOrOutOfRange_IsRejected) {
  for (const std::vector<int64_t>& scalars :
       {std::vector<int64_t>{}, std::vector<int64_t>{0},
        std::vector<int64_t>{1025}, std::vector<int64_t>{INT64_MAX},
        std::vector<int64_t>{-1}, std::vector<int64_t>{1024, 1024}}) {
    World world(Options("fednova"));
    world.SetUpTask();
    world.Turn();
    const auto work = world.DrawRound();
    ASSERT_EQ(work.size(), 2u);
    const Bytes bytes = world.OneHot(1, 0);
    UploadHeader header = world.Header(work.at(0), bytes);
    header.scalars = scalars;
    const auto begun = world.Begin(0, header);
    ASSERT_THAT(begun, IsOk());
    const auto* receipt = std::get_if<Receipt>(&*begun);
    ASSERT_NE(receipt, nullptr);
    EXPECT_EQ(receipt->reason, RejectReason::kBadScalars);
    EXPECT_THAT(receipt->message, HasSubstr("scalar"));
  }
}

// Weights 1 and 3; of 3 examples there are 2 steps of batches of two.
TEST(ContributionRoundTest, FedNova_RoundIsScaledByTheStepsOfAMeanDevice) {
  World world(Options("fednova"));
  world.SetUpTask();
  world.Turn();
  const auto work = world.DrawRound();
  ASSERT_EQ(work.size(), 2u);
  std::vector<World::Answer> answers;
  for (int i = 0; i < 2; ++i) {
    const Bytes bytes = world.OneHot(1, i);
    UploadHeader header = world.Header(work.at(i), bytes);
    header.weight = i == 0 ? 1 : 3;
    header.scalars = {i == 0 ? 1024 : 3 * 2 * 1024};
    answers.push_back(world.Send(i, header, bytes));
  }
  for (int turn = 0; turn < 5; ++turn) world.Turn();
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer->has_value());
    ASSERT_THAT(**answer, IsOk());
    EXPECT_EQ((**answer)->status, ReceiptStatus::kAccepted);
  }
  // (1 + 6) / 4 steps; means 1/4 and 3/4.
  const std::vector<float> model = world.Model();
  EXPECT_THAT(model[world.Coordinate(1, 0)], FloatNear(7.0F / 16, 1e-6F));
  EXPECT_THAT(model[world.Coordinate(1, 1)], FloatNear(21.0F / 16, 1e-6F));
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->figures.at("local_steps"),
            1.75);
}

TEST(ContributionRoundTest, Scaffold_ControlVariateGoesWithTheVersion) {
  World world(ScaffoldOptions());
  world.SetUpTask();
  world.Turn();
  const auto send = [&](int device, const Assignment& work) {
    // Delta one, change of the control variate two.
    std::vector<float> values(8);
    values[world.Coordinate(work.round, device)] = 1;
    values[4 + world.Coordinate(work.round, device)] = 2;
    const std::vector<size_t> counts = {4, 4};
    const Bytes bytes =
        *aggregation::Encode(plan::CodecName::kFloat32, counts, values);
    return world.Send(device, world.Header(work, bytes), bytes);
  };
  auto work = world.DrawRound();
  ASSERT_EQ(work.size(), 2u);
  EXPECT_TRUE(work.at(0).control_digest.empty());
  for (int i = 0; i < 2; ++i) send(i, work.at(i));
  for (int turn = 0; turn < 5; ++turn) world.Turn();

  work = world.DrawRound();
  ASSERT_EQ(work.size(), 2u);
  const auto control = [&](const crypto::Digest& digest) {
    // Devices may fetch it.
    const auto reader =
        world.coordinator().OpenArtefact(world.Device(0), digest);
    EXPECT_THAT(reader, IsOk());
    Bytes bytes(static_cast<size_t>((*reader)->size()));
    EXPECT_THAT((*reader)->ReadAt(0, bytes), IsOk());
    plan::StrategySpec strategy;
    strategy.name = plan::StrategyName::kScaffold;
    const Bytes head = aggregation::FormOf(strategy, 4).head;
    EXPECT_TRUE(std::equal(head.begin(), head.end(), bytes.begin()));
    std::vector<float> values(4);
    EXPECT_EQ(bytes.size(), head.size() + sizeof(float) * values.size());
    std::memcpy(values.data(), bytes.data() + head.size(),
                sizeof(float) * values.size());
    return values;
  };
  // Two of four devices, each alone at its coordinate: 2/4 x 2/2.
  const crypto::Digest first = work.at(0).control_digest;
  ASSERT_FALSE(first.empty());
  EXPECT_THAT(control(first), ::testing::ElementsAre(0.5F, 0.5F, 0, 0));
  EXPECT_THAT(world.Model(), ::testing::ElementsAre(0.5F, 0.5F, 0, 0));

  for (int i = 0; i < 2; ++i) send(i, work.at(i));
  for (int turn = 0; turn < 5; ++turn) world.Turn();
  EXPECT_THAT(world.Model(), ::testing::ElementsAre(0.5F, 0.5F, 0.5F, 0.5F));
  EXPECT_EQ(world.coordinator().GetTask("task")->state, TaskState::kFinished);
}

TEST(ContributionRoundTest, Scaffold_WeightAboveOne_IsRejected) {
  World world(ScaffoldOptions());
  world.SetUpTask();
  world.Turn();
  const auto work = world.DrawRound();
  ASSERT_EQ(work.size(), 2u);
  const std::vector<size_t> counts = {4, 4};
  const Bytes bytes = *aggregation::Encode(plan::CodecName::kFloat32, counts,
                                           std::vector<float>(8));
  UploadHeader header = world.Header(work.at(0), bytes);
  header.weight = 2;
  const auto begun = world.Begin(0, header);
  ASSERT_THAT(begun, IsOk());
  const auto* receipt = std::get_if<Receipt>(&*begun);
  ASSERT_NE(receipt, nullptr);
  EXPECT_EQ(receipt->reason, RejectReason::kBadWeight);
}

}  // namespace
}  // namespace selvage::coordinator::test
