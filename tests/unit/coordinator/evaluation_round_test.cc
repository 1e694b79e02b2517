// Evaluation rounds, the best version, and the end of a task before its rounds
// are done, through the two APIs on virtual time.
#include <gmock/gmock.h>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr char kAllFour[] =
    "cohort: 4, min_updates: 4, over_selection: 1.0, round_deadline: 5m";

class EvaluationRoundTest : public ::testing::TestWithParam<bool> {
 protected:
  World& Start(const std::string& evaluate, int rounds = 4) {
    WorldOptions options;
    options.sqlite = GetParam();
    options.strategy = kAllFour;
    options.rounds = rounds;
    options.evaluate = evaluate;
    return Start(std::move(options));
  }
  World& Start(WorldOptions options) {
    options.sqlite = GetParam();
    options.evaluates = true;
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
    world_->Turn();
    return *world_;
  }
  void TrainRound(uint64_t number) {
    for (const auto& [device, work] : world_->DrawRound()) {
      EXPECT_EQ(work.mode, RoundMode::kTrain);
      EXPECT_EQ(work.round, number);
      // One-hot coordinates are those of training rounds.
      const Bytes bytes = world_->OneHot(1, device);
      const World::Answer answer =
          world_->Send(device, world_->Header(work, bytes), bytes);
      world_->coordinator().Poll();
      ASSERT_TRUE(answer->has_value());
    }
  }
  // Everybody's accuracy is `accuracy`.
  void EvaluateRound(uint64_t number, double accuracy) {
    const auto assigned = world_->DrawRound();
    EXPECT_EQ(assigned.size(), 4u);
    for (const auto& [device, work] : assigned) {
      EXPECT_EQ(work.mode, RoundMode::kEvaluate);
      EXPECT_EQ(work.round, number);
      const Receipt receipt = Evaluate(device, Evaluation(work, accuracy));
      EXPECT_EQ(receipt.status, ReceiptStatus::kAccepted) << receipt.message;
    }
  }
  static UploadHeader Evaluation(const Assignment& work, double accuracy) {
    UploadHeader header;
    header.assignment_id = work.id;
    header.token.assign(work.token.bytes.begin(), work.token.bytes.end());
    header.weight = 1;
    header.metrics = {*aggregation::MakeMetric(accuracy * 8, 8),
                      *aggregation::MakeMetric(4, 8)};
    header.digest = aggregation::DigestOf(header.metrics);
    return header;
  }
  Receipt Evaluate(int device, const UploadHeader& header) {
    const World::Answer answer = world_->Send(device, header, {});
    if (!answer->has_value()) world_->coordinator().Poll();
    EXPECT_TRUE(answer->has_value() && (*answer)->ok());
    return answer->has_value() && (*answer)->ok() ? ***answer : Receipt{};
  }
  TaskInfo Task() { return *world_->coordinator().GetTask("task"); }
  EvaluationInfo Scored(uint64_t version, double accuracy,
                        const std::string& data_set = "default") {
    EvaluationInfo info;
    info.task = "task";
    info.version = version;
    info.data_set = data_set;
    info.data_digest = crypto::Sha256(AsBytes("data"));
    info.model_digest = world_->coordinator()
                            .GetModelVersion("task", version)
                            ->safetensors_digest;
    info.example_count = 100;
    info.metrics = {{"accuracy", accuracy}};
    return info;
  }

  std::unique_ptr<World> world_;
};
INSTANTIATE_TEST_SUITE_P(Stores, EvaluationRoundTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(EvaluationRoundTest, Every_MeasuresTheVersion_AndMakesNone) {
  World& world = Start("{every: 2}");
  TrainRound(1);
  TrainRound(2);
  EvaluateRound(3, 0.75);

  const auto round = world.coordinator().GetRound("task", 3);
  ASSERT_THAT(round, IsOk());
  EXPECT_EQ(round->mode, RoundMode::kEvaluate);
  EXPECT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->base_version, 2u);
  EXPECT_EQ(round->result_version, 0u);
  EXPECT_EQ(round->bytes_up, 0u);
  EXPECT_EQ(round->funnel.accepted, 4u);
  ASSERT_EQ(round->metrics.size(), 2u);
  EXPECT_DOUBLE_EQ(round->metrics[0].mean, 0.75);
  EXPECT_EQ(round->metrics[0].example_count, 32u);
  const TaskInfo task = Task();
  EXPECT_EQ(task.latest_version, 2u);
  EXPECT_EQ(task.committed_rounds, 2u);
  EXPECT_EQ(task.evaluated_rounds, 1u);
  ASSERT_TRUE(task.best.has_value());
  EXPECT_EQ(task.best->version, 2u);
  EXPECT_EQ(task.best->value, 0.75);
  EXPECT_DOUBLE_EQ(
      world.coordinator().GetModelVersion("task", 2)->metrics[0].mean, 0.75);
  EXPECT_EQ(world.coordinator().GetRound("task", 4)->mode, RoundMode::kTrain);
}

TEST_P(EvaluationRoundTest, AllRounds_TheLastVersionIsMeasured_ThenTheEnd) {
  World& world = Start("{every: 2}", 3);
  TrainRound(1);
  TrainRound(2);
  EvaluateRound(3, 0.9);
  TrainRound(4);
  EXPECT_EQ(Task().state, TaskState::kRunning);
  EvaluateRound(5, 0.8);

  const TaskInfo task = Task();
  EXPECT_EQ(task.state, TaskState::kFinished);
  EXPECT_EQ(task.end_reason, "all 3 rounds are done");
  EXPECT_EQ(task.best->version, 2u);
  EXPECT_EQ(task.latest_version, 3u);
  EXPECT_EQ(world.coordinator().GetBestModelVersion("task")->version, 2u);
  EXPECT_EQ(world.coordinator().GetModelVersion("task", std::nullopt)->version,
            3u);
}

TEST_P(EvaluationRoundTest, LastEvaluationAbandoned_TheTaskStillEnds) {
  World& world = Start("{every: 1, deadline: 30s}", 1);
  TrainRound(1);
  world.Turn(seconds(31));
  world.Turn();

  const TaskInfo task = Task();
  EXPECT_EQ(task.state, TaskState::kFinished);
  EXPECT_EQ(task.abandoned_rounds, 0u);
  EXPECT_EQ(task.evaluated_rounds, 0u);
  EXPECT_THAT(world.coordinator().GetRound("task", 2)->reason,
              HasSubstr("min_devices is 4"));
}

TEST_P(EvaluationRoundTest, Target_EndsTheTask_WithTheReason) {
  Start("{every: 1, stop_condition: accuracy >= 0.8}");
  TrainRound(1);
  EvaluateRound(2, 0.5);
  TrainRound(3);
  EvaluateRound(4, 0.8125);

  const TaskInfo task = Task();
  EXPECT_EQ(task.state, TaskState::kFinished);
  EXPECT_EQ(task.committed_rounds, 2u);
  EXPECT_EQ(task.end_reason,
            "target reached: accuracy of version 2 is 0.8125, "
            "evaluate.stop_condition is accuracy >= 0.8");
}

TEST_P(EvaluationRoundTest, Patience_SurvivesARestart) {
  World& world = Start("{every: 1, patience: 2}", 9);
  TrainRound(1);
  EvaluateRound(2, 0.5);
  TrainRound(3);
  EvaluateRound(4, 0.5);
  ASSERT_THAT(world.Reopen(), IsOk());
  world.Turn();
  EXPECT_EQ(Task().stale, 1u);
  TrainRound(5);
  EvaluateRound(6, 0.4375);

  const TaskInfo task = Task();
  EXPECT_EQ(task.state, TaskState::kFinished);
  EXPECT_THAT(task.end_reason, HasSubstr("patience is over"));
  EXPECT_EQ(task.best->version, 1u);
  EXPECT_EQ(task.latest_version, 3u);
}

TEST_P(EvaluationRoundTest, WithoutEvaluationRounds_TrainingRoundsMeasure) {
  // Header() says 0.5 in every round: of versions 0, 1, 2.
  Start("{patience: 2}", 9);
  TrainRound(1);
  TrainRound(2);
  EXPECT_EQ(Task().best->version, 0u);
  TrainRound(3);

  EXPECT_EQ(Task().state, TaskState::kFinished);
  EXPECT_EQ(Task().latest_version, 3u);
}

TEST_P(EvaluationRoundTest, RestartInARound_KeepsSumsAndClasses) {
  WorldOptions options;
  options.strategy = kAllFour;
  options.evaluate = "{every: 1}";
  options.privacy = "{min_cohort: 2}";
  World& world = Start(std::move(options));
  TrainRound(1);
  std::map<int, Assignment> assigned;
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < 4; ++i) {
      CheckInRequest request = world.Request();
      request.device_class = i < 2 ? "phone" : "car";
      const auto answer = world.CheckIn(i, request);
      world.coordinator().Poll();
      if (const auto* work = std::get_if<Assignment>(&(**answer)->work)) {
        assigned.insert_or_assign(i, *work);
      }
    }
  }
  ASSERT_EQ(assigned.size(), 4u);
  EXPECT_EQ(Evaluate(0, Evaluation(assigned[0], 0.25)).status,
            ReceiptStatus::kAccepted);
  EXPECT_EQ(Evaluate(2, Evaluation(assigned[2], 1.0)).status,
            ReceiptStatus::kAccepted);
  ASSERT_THAT(world.Reopen(), IsOk());
  world.Turn();
  // A lost acknowledgement is given again, and counted once.
  EXPECT_EQ(Evaluate(0, Evaluation(assigned[0], 0.25)).status,
            ReceiptStatus::kAccepted);
  EXPECT_EQ(Evaluate(0, Evaluation(assigned[0], 0.5)).reason,
            RejectReason::kConflict);
  Evaluate(1, Evaluation(assigned[1], 0.75));
  Evaluate(3, Evaluation(assigned[3], 0.5));

  const auto round = world.coordinator().GetRound("task", 2);
  EXPECT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->metrics[0].device_count, 4u);
  EXPECT_DOUBLE_EQ(round->metrics[0].mean, 0.625);
  ASSERT_EQ(round->classes.size(), 2u);
  EXPECT_EQ(round->classes[0].device_class, "car");
  EXPECT_DOUBLE_EQ(round->classes[0].metrics[0].mean, 0.75);
  EXPECT_EQ(round->classes[1].device_class, "phone");
  EXPECT_EQ(round->classes[1].metrics[0].device_count, 2u);
  EXPECT_DOUBLE_EQ(round->classes[1].metrics[0].mean, 0.5);
}

TEST_P(EvaluationRoundTest, SmallClasses_AreNowhere) {
  WorldOptions options;
  options.strategy = kAllFour;
  options.evaluate = "{every: 1}";
  options.privacy = "{min_cohort: 3}";
  World& world = Start(std::move(options));
  TrainRound(1);
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < 4; ++i) {
      CheckInRequest request = world.Request();
      request.device_class = i == 0 ? "prototype" : "phone";
      const auto answer = world.CheckIn(i, request);
      world.coordinator().Poll();
      if (const auto* work = std::get_if<Assignment>(&(**answer)->work)) {
        Evaluate(i, Evaluation(*work, 0.5));
      }
    }
  }
  const auto round = world.coordinator().GetRound("task", 2);
  ASSERT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->metrics[0].device_count, 4u);
  EXPECT_TRUE(round->classes.empty());
}

TEST_P(EvaluationRoundTest, OlderDevices_AreNotAsked) {
  World& world = Start("{every: 1}");
  TrainRound(1);
  for (int i = 0; i < 4; ++i) {
    CheckInRequest request = world.Request();
    request.evaluates = false;
    const auto answer = world.CheckIn(i, request);
    world.coordinator().Poll();
    ASSERT_THAT(**answer, IsOk());
    EXPECT_TRUE(std::holds_alternative<std::monostate>((**answer)->work));
  }
  EXPECT_EQ(world.coordinator().GetRound("task", 2)->funnel.checked_in, 0u);
}

TEST_P(EvaluationRoundTest, AHeaderThatIsNoEvaluation_IsRejected) {
  World& world = Start("{every: 1}");
  TrainRound(1);
  const auto assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 4u);
  UploadHeader size = Evaluation(assigned.at(0), 0.5);
  size.size_bytes = 4;
  EXPECT_EQ(Evaluate(0, size).reason, RejectReason::kBadSize);
  UploadHeader weight = Evaluation(assigned.at(1), 0.5);
  weight.weight = 2;
  EXPECT_EQ(Evaluate(1, weight).reason, RejectReason::kBadWeight);
  UploadHeader empty = Evaluation(assigned.at(2), 0.5);
  empty.metrics = {{0, 0}, {0, 0}};
  empty.digest = aggregation::DigestOf(empty.metrics);
  EXPECT_EQ(Evaluate(2, empty).reason, RejectReason::kBadMetrics);
  UploadHeader digest = Evaluation(assigned.at(3), 0.5);
  digest.digest.bytes[0] ^= 1;
  EXPECT_EQ(Evaluate(3, digest).reason, RejectReason::kBadDigest);
  EXPECT_EQ(world.coordinator().GetRound("task", 2)->funnel.rejected, 4u);
}

TEST_P(EvaluationRoundTest, AnEvaluation_InATrainingRound_IsRejected) {
  World& world = Start("{every: 1}");
  const auto assigned = world.DrawRound();
  EXPECT_EQ(Evaluate(0, Evaluation(assigned.at(0), 0.5)).status,
            ReceiptStatus::kRejected);
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.accepted, 0u);
}

TEST_P(EvaluationRoundTest, ServerSource_EndsTheTask_AndItsRound) {
  World& world = Start("{source: server, patience: 1}");
  TrainRound(1);
  EXPECT_FALSE(Task().best.has_value());
  EXPECT_THAT(world.coordinator().GetBestModelVersion("task"),
              StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_THAT(world.coordinator().AddEvaluation(Scored(0, 0.5)), IsOk());
  // Another data set does not count.
  ASSERT_THAT(world.coordinator().AddEvaluation(Scored(0, 0.9, "extra")),
              IsOk());
  EXPECT_EQ(Task().best->value, 0.5);
  ASSERT_THAT(world.coordinator().AddEvaluation(Scored(1, 0.25)), IsOk());
  world.Turn();

  const TaskInfo task = Task();
  EXPECT_EQ(task.state, TaskState::kFinished);
  EXPECT_THAT(task.end_reason, HasSubstr("patience is over"));
  EXPECT_EQ(task.best->version, 0u);
  EXPECT_EQ(world.coordinator().GetRound("task", 2)->state,
            RoundState::kAbandoned);
  const auto answer = world.CheckIn(0);
  world.coordinator().Poll();
  EXPECT_TRUE(std::holds_alternative<ModelOffer>((**answer)->work));
  const auto version = world.coordinator().GetModelVersion("task", 0);
  ASSERT_EQ(version->evaluations.size(), 2u);
  EXPECT_EQ(version->evaluations[0].data_set, "default");
  EXPECT_EQ(version->evaluations[0].metrics[0].second, 0.5);
}

TEST_P(EvaluationRoundTest, AddEvaluation_Refusals) {
  World& world = Start("{}");
  Coordinator& coordinator = world.coordinator();
  EvaluationInfo good = Scored(0, 0.5);
  ASSERT_THAT(coordinator.AddEvaluation(good), IsOk());
  EXPECT_THAT(coordinator.AddEvaluation(good), IsOk());  // the same again
  EvaluationInfo bad = good;
  bad.metrics[0].second = 0.6;
  EXPECT_THAT(coordinator.AddEvaluation(bad),
              StatusIs(StatusCode::kAlreadyExists));
  bad = Scored(0, 0.5, "other");
  bad.version = 1;
  EXPECT_THAT(coordinator.AddEvaluation(bad), StatusIs(StatusCode::kNotFound));
  bad = Scored(0, 0.5, "other");
  bad.model_digest = bad.data_digest;
  EXPECT_THAT(coordinator.AddEvaluation(bad),
              StatusIs(StatusCode::kFailedPrecondition));
  for (const auto& metrics :
       std::vector<std::vector<std::pair<std::string, double>>>{
           {},
           {{"f1", 0.5}},
           {{"loss", 0.5}, {"loss", 0.5}},
           {{"loss", std::numeric_limits<double>::infinity()}}}) {
    bad = Scored(0, 0.5, "other");
    bad.metrics = metrics;
    EXPECT_THAT(coordinator.AddEvaluation(bad),
                StatusIs(StatusCode::kInvalidArgument));
  }
  bad = Scored(0, 0.5, "../x");
  EXPECT_THAT(coordinator.AddEvaluation(bad),
              StatusIs(StatusCode::kInvalidArgument));
  for (size_t i = 1; i < kEvaluationsMax; ++i) {
    ASSERT_THAT(
        coordinator.AddEvaluation(Scored(0, 0.5, "set-" + std::to_string(i))),
        IsOk());
  }
  EXPECT_THAT(coordinator.AddEvaluation(Scored(0, 0.5, "one-more")),
              StatusIs(StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace selvage::coordinator::test
