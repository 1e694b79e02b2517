// Fine-tuning that goes on: from a personal model with its optimizer, and from
// where it was interrupted.
#include <gmock/gmock.h>

#include "client/fine_tuning.h"
#include "tests/testing/fault_vfs.h"
#include "tests/unit/client/life_fixture.h"

namespace selvage::client {
namespace {

using namespace std::chrono_literals;  // NOLINT

using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::optional<Bytes> Steps(uint64_t steps) {
  Bytes out;
  AppendLe(out, steps);
  return out;
}

class TuningTest : public test::LifeFixture {
 protected:
  TuningTest() {
    trainer_.state.features = kAllTrainingFeatures;
    trainer_.state.can_checkpoint = true;
  }

  // Sixty examples, and version 1 with a personal model of eight steps.
  void Begin(plan::PersonalStart start) {
    PublishPlan([&](plan::Plan& plan) { plan.personalize.start = start; });
    Open();
    AddExamples(60);
    Install(1, 0);
    ASSERT_TRUE(Info().personal_serving);
    trainer_.state.optimizers.clear();
    trainer_.state.asked.clear();
    trainer_.state.trained_on.clear();
    trainer_.state.steps = 0;
  }
  // TrainLocally() that is cancelled before step `step`, from 1.
  void Interrupt(int step) {
    CancelToken cancel;
    trainer_.state.before = [&, n = 0](const std::string& call) mutable {
      if (call == "step" && ++n == step) cancel.Cancel();
      return OkStatus();
    };
    EXPECT_THAT(client_->TrainLocally("digits", {}, cancel).status(),
                StatusIs(StatusCode::kCancelled));
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
  }
  // What a device that nothing interrupted has after one TrainLocally().
  float Undisturbed(plan::PersonalStart start) {
    const Path own = state_dir_;
    state_dir_ = directory_.path() / "undisturbed";
    Begin(start);
    EXPECT_THAT(Train(), IsOk());
    const Result<float> value = PredictOne();
    EXPECT_THAT(value, IsOk());
    client_.reset();
    state_dir_ = own;
    next_run_ = Time{};
    return value.ok() ? *value : 0;
  }
  std::string Log() const { return log_.str(); }
};

// ---- from the personal model

TEST_F(TuningTest, StartPersonal_GoesOnWithSlotAndOptimizer) {
  Begin(plan::PersonalStart::kPersonal);
  const float first = *PredictOne();
  ASSERT_THAT(Train(), IsOk());
  const float second = *PredictOne();
  Open();
  ASSERT_THAT(Train(), IsOk());
  // Eight steps a time; each half-way to the mean label.
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(Steps(8), Steps(16)));
  EXPECT_LT(first, second);
  EXPECT_LT(second, *PredictOne());
  // Another order each time.
  EXPECT_NE(trainer_.state.asked[0].seed, trainer_.state.asked[1].seed);
}

TEST_F(TuningTest, StartBase_BeginsAgainAndKeepsNoOptimizer) {
  Begin(plan::PersonalStart::kBase);
  const float first = *PredictOne();
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(*PredictOne(), first);
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(std::nullopt));
  EXPECT_FALSE(trainer_.state.asked[0].save_optimizer);
}

TEST_F(TuningTest, StartPersonal_NewBase_BeginsAtTheBase) {
  Begin(plan::PersonalStart::kPersonal);
  Install(2, 1);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(std::nullopt, Steps(8)));
}

// A slot of an older base that stayed because the new one was worse.
TEST_F(TuningTest, StartPersonal_SlotOfAnOlderBase_BeginsAtTheBase) {
  Begin(plan::PersonalStart::kPersonal);
  const float old = *PredictOne();
  trainer_.state.personal_harms = true;
  Install(2, 1);
  ASSERT_EQ(*PredictOne(), old);
  trainer_.state.personal_harms = false;
  trainer_.state.optimizers.clear();
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(std::nullopt));
}

TEST_F(TuningTest, StartPersonal_WorseResult_SlotKeepsItsOwnOptimizer) {
  Begin(plan::PersonalStart::kPersonal);
  const float before = *PredictOne();
  trainer_.state.personal_harms = true;
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(*PredictOne(), before);
  Open();
  trainer_.state.personal_harms = false;
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(Steps(8), Steps(8)));
}

TEST_F(TuningTest, StartPersonal_FailedTraining_SlotKeepsItsOwnOptimizer) {
  Begin(plan::PersonalStart::kPersonal);
  trainer_.state.before = [](const std::string& call) {
    return call == "step" ? OutOfRange("the loss is not finite") : OkStatus();
  };
  EXPECT_THAT(Train(), StatusIs(StatusCode::kOutOfRange));
  trainer_.state.before = [](const std::string&) { return OkStatus(); };
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(Steps(8), Steps(8)));
}

TEST_F(TuningTest, StartPersonal_EngineWithoutStates_GoesOnWithAFreshOne) {
  trainer_.state.features = 0;
  Begin(plan::PersonalStart::kPersonal);
  const float first = *PredictOne();
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(std::nullopt));
  EXPECT_LT(first, *PredictOne());
  // An engine that has them later.
  trainer_.state.features = kAllTrainingFeatures;
  ASSERT_THAT(Train(), IsOk());
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers,
              ElementsAre(std::nullopt, std::nullopt, Steps(8)));
}

TEST_F(TuningTest, StartPersonal_StateThatDoesNotFit_IsDiscardedAndTold) {
  Begin(plan::PersonalStart::kPersonal);
  const float first = *PredictOne();
  trainer_.state.refuses_optimizer = true;
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(Steps(8), std::nullopt));
  EXPECT_LT(first, *PredictOne());
  EXPECT_THAT(Log(), HasSubstr("optimizer_reset"));
}

TEST_F(TuningTest, StartPersonal_StateTooLarge_IsNotKept) {
  trainer_.state.optimizer_padding =
      OptimizerBytesMax(server_->program) - sizeof(uint64_t);
  Begin(plan::PersonalStart::kPersonal);
  ++trainer_.state.optimizer_padding;
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(Not(std::nullopt)));
  EXPECT_THAT(Log(), HasSubstr("optimizer_not_kept"));
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.optimizers[1], std::nullopt);
}

TEST_F(TuningTest, StartPersonal_ForgetMe_BeginsAtTheBase) {
  Begin(plan::PersonalStart::kPersonal);
  ASSERT_THAT(client_->ForgetMe({}), IsOk());
  AddExamples(60);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_THAT(trainer_.state.optimizers, ElementsAre(std::nullopt));
}

TEST_F(TuningTest, StartPersonal_TooMuchMemory_CountsTheOptimizer) {
  Begin(plan::PersonalStart::kPersonal);
  PublishPlan([](plan::Plan& plan) {
    plan.personalize.optimizer.name = plan::OptimizerName::kAdam;
  });
  client_.reset();
  ClientOptions options = Options();
  options.memory_bytes_max = 1;
  auto client = Client::Open(options, Dependencies());
  ASSERT_THAT(client, IsOk());
  client_ = *std::move(client);
  EXPECT_THAT(Train(), StatusIs(StatusCode::kResourceExhausted,
                                HasSubstr("fine-tuning would take about")));
}

// ---- interrupted

TEST_F(TuningTest, TrainLocally_InterruptedAtEveryStep_SameResultNoStepTwice) {
  for (const auto start :
       {plan::PersonalStart::kBase, plan::PersonalStart::kPersonal}) {
    const float wanted = Undisturbed(start);
    state_dir_ =
        directory_.path() / ("s" + std::to_string(static_cast<int>(start)));
    Begin(start);
    // Restarted every time.
    for (int i = 0; i < 7; ++i) {
      Interrupt(2);
      Open();
    }
    const auto outcome = client_->TrainLocally("digits", {}, cancel_);
    ASSERT_THAT(outcome, IsOk());
    EXPECT_EQ(outcome->steps, 8U);
    EXPECT_EQ(trainer_.state.steps, 8);
    EXPECT_EQ(*PredictOne(), wanted);
    // The next one is another one.
    trainer_.state.steps = 0;
    ASSERT_THAT(Train(), IsOk());
    EXPECT_EQ(trainer_.state.steps, 8);
    std::filesystem::remove_all(directory_.path() / "undisturbed");
  }
}

TEST_F(TuningTest, TrainLocally_InterruptedBeforeTheFirstStep_BeginsAgain) {
  Begin(plan::PersonalStart::kBase);
  Interrupt(1);
  EXPECT_EQ(trainer_.state.checkpoints, 0);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 8);
}

TEST_F(TuningTest, TrainLocally_EngineWithoutCheckpoints_BeginsAgain) {
  trainer_.state.can_checkpoint = false;
  Begin(plan::PersonalStart::kBase);
  Interrupt(4);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
}

TEST_F(TuningTest, TrainLocally_CheckpointThatTheEngineRefuses_BeginsAgain) {
  Begin(plan::PersonalStart::kBase);
  const float wanted = *PredictOne();
  Interrupt(4);
  trainer_.state.can_checkpoint = false;  // another engine
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
  EXPECT_EQ(*PredictOne(), wanted);
}

TEST_F(TuningTest, TrainLocally_NewExamples_WaitForTheNextTraining) {
  Begin(plan::PersonalStart::kBase);
  const float wanted = *PredictOne();
  Interrupt(4);
  const size_t began_with = trainer_.state.trained_on.back();
  AddExamples(30);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 8);
  EXPECT_EQ(trainer_.state.trained_on.back(), began_with);
  EXPECT_EQ(*PredictOne(), wanted);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_GT(trainer_.state.trained_on.back(), began_with);
}

TEST_F(TuningTest, TrainLocally_MoreNewExamplesThanOld_BeginsAgain) {
  Begin(plan::PersonalStart::kBase);
  Interrupt(4);
  AddExamples(100);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
  EXPECT_GT(trainer_.state.trained_on[1], 2 * trainer_.state.trained_on[0]);
}

TEST_F(TuningTest, TrainLocally_ExampleGone_BeginsAgain) {
  Begin(plan::PersonalStart::kBase);
  Interrupt(4);
  // Those that are held out are not trained on.
  for (int64_t id = 1; id <= 20; ++id) {
    ASSERT_THAT(client_->DeleteExample(id), IsOk());
  }
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
}

TEST_F(TuningTest, TrainLocally_ForgetMe_BeginsAgain) {
  Begin(plan::PersonalStart::kBase);
  Interrupt(4);
  ASSERT_THAT(client_->ForgetMe({}), IsOk());
  AddExamples(60);
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
}

TEST_F(TuningTest, TrainLocally_OtherBaseOrPlan_BeginsAgain) {
  Begin(plan::PersonalStart::kBase);
  Interrupt(4);
  Install(2, 1);
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
  Interrupt(4);
  PublishPlan([](plan::Plan& plan) { plan.personalize.optimizer.lr = 0.25; });
  Install(3, 1);
  EXPECT_EQ(trainer_.state.steps, 3 + 8 + 3 + 8);
}

TEST_F(TuningTest, TrainLocally_EveryMinute_IsSaved) {
  Begin(plan::PersonalStart::kBase);
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") clock_.Advance(25s);
    return OkStatus();
  };
  ASSERT_THAT(Train(), IsOk());
  // 200 s: whole minutes before steps 4 and 7.
  EXPECT_EQ(trainer_.state.checkpoints, 2);
}

TEST_F(TuningTest, TrainLocally_OutOfTime_GoesOn) {
  Begin(plan::PersonalStart::kBase);
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") clock_.Advance(25s);
    return OkStatus();
  };
  EXPECT_THAT(client_->TrainLocally("digits", {.time = 90s}, cancel_),
              StatusIs(StatusCode::kCancelled));
  EXPECT_EQ(trainer_.state.steps, 3);
  EXPECT_THAT(client_->TrainLocally("digits", {.time = 10min}, cancel_),
              IsOk());
  EXPECT_EQ(trainer_.state.steps, 8);
}

// A process that really dies, in the middle of a step.
TEST_F(TuningTest, TrainLocally_KilledWithSigkill_GoesOnFromItsCheckpoint) {
  const float wanted = Undisturbed(plan::PersonalStart::kPersonal);
  Begin(plan::PersonalStart::kPersonal);
  RunUntilKilledAt(7, [&] { (void)Train(); });

  trainer_.state.steps = 0;
  Open();
  ASSERT_THAT(Train(), IsOk());
  // Whole minutes were over before the third and the sixth step: five steps
  // were kept.
  EXPECT_EQ(trainer_.state.steps, 3);
  EXPECT_EQ(*PredictOne(), wanted);
}

// A phone that kills its background work: each life gets one checkpoint
// further, and none is held against it.
TEST_F(TuningTest, TrainLocally_KilledAgainAndAgainWithProgress_IsNotPaused) {
  PublishPlan([](plan::Plan& plan) { plan.personalize.epochs = 20; });
  Begin(plan::PersonalStart::kBase);
  int lives = 0;
  bool done = false;
  for (; lives < 20 && !done; ++lives) {
    if (!LiveForFourSteps(lives, [&] { done = Train().ok(); })) break;
    EXPECT_FALSE(Info().training_paused) << "after life " << lives;
  }
  EXPECT_TRUE(done);
  EXPECT_GT(lives, 4);
}

// Whatever write fails, once: a training is finished by the next call, with the
// result of one that nothing disturbed.
TEST_F(TuningTest, TrainLocally_AnyWriteFails_TriedAgainItWorks) {
  const float wanted = Undisturbed(plan::PersonalStart::kPersonal);
  int failed = 0;
  for (uint64_t point = 0;; point += 2) {
    SCOPED_TRACE("operation " + std::to_string(point) + " fails");
    test::FaultVfs vfs;
    vfs_ = vfs.name();
    state_dir_ = directory_.path() / ("fault" + std::to_string(point));
    next_run_ = Time{};
    Begin(plan::PersonalStart::kPersonal);
    const uint64_t before = vfs.operations();
    vfs.FailAfter(point, 1);
    CancelToken cancel;
    trainer_.state.before = [&, n = 0](const std::string& call) mutable {
      if (call == "step" && ++n == 4) cancel.Cancel();
      return OkStatus();
    };
    (void)client_->TrainLocally("digits", {}, cancel);
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    const bool all = vfs.operations() - before <= point;
    vfs.ClearFaults();
    Open();
    ASSERT_THAT(Train(), IsOk());
    EXPECT_EQ(*PredictOne(), wanted);
    client_.reset();  // before the disk it is on
    if (all) break;
    ++failed;
  }
  EXPECT_GT(failed, 3);
}

// ---- in a session

TEST_F(TuningTest, RunOnce_InterruptedAtEveryStepOfAPersonalisation_GoesOn) {
  PublishPlan([](plan::Plan& plan) { plan.personalize.epochs = 12; });
  Open();
  AddExamples(60);
  Install(1, 0);
  const float wanted = *PredictOne();

  state_dir_ = directory_.path() / "interrupted";
  next_run_ = Time{};
  Open();
  AddExamples(60);
  server_->Give(server_->NewOffer(1));
  trainer_.state.steps = 0;
  int sessions = 0;
  RunOutcome outcome;
  do {
    CancelToken cancel;
    trainer_.state.before = [&, n = 0](const std::string& call) mutable {
      if (call == "step" && ++n == 2) cancel.Cancel();
      return OkStatus();
    };
    WaitForTurn();
    outcome = *client_->RunOnce({}, cancel);
    next_run_ = outcome.next_run;
    Open();
  } while (outcome.result == RunResult::kInterrupted && ++sessions < 40);
  EXPECT_EQ(outcome.result, RunResult::kInstalled) << outcome.reason;
  // More interruptions than a session without progress survives.
  EXPECT_EQ(sessions, 11);
  EXPECT_EQ(trainer_.state.steps, 12);
  EXPECT_EQ(*PredictOne(), wanted);
}

TEST_F(TuningTest, RunOnce_InterruptedAfterARound_GoesOnNextTime) {
  Open();
  AddExamples(60);
  server_->Give(server_->NewAssignment());
  CancelToken cancel;
  trainer_.state.before = [&, n = 0](const std::string& call) mutable {
    // Three steps of the round, then the personal ones.
    if (call == "step" && ++n == 3 + 5) cancel.Cancel();
    return OkStatus();
  };
  RunOutcome outcome = *client_->RunOnce({}, cancel);
  EXPECT_EQ(outcome.result, RunResult::kContributed);
  EXPECT_EQ(trainer_.state.steps, 3 + 4);
  next_run_ = outcome.next_run;
  Open();
  for (int i = 0; i < 4 && !client_->Info("digits").ok(); ++i) {
    WaitForTurn();
    Run();
  }
  ASSERT_THAT(client_->Info("digits"), IsOk());
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_EQ(trainer_.state.steps, 3 + 8);
}

// What is done is not done again because what follows it was interrupted.
TEST_F(TuningTest, RunOnce_InterruptedInTheBaseline_FineTunesOnce) {
  const auto publish = [&] {
    PublishPlan([](plan::Plan& plan) {
      plan.personalize.start = plan::PersonalStart::kPersonal;
      plan.personalize.baseline_alone = true;
      plan.personalize.baseline_epochs = 5;
    });
  };
  publish();
  Open();
  AddExamples(60);
  Install(1, 0);
  const ModelInfo wanted = Info();
  EXPECT_EQ(trainer_.state.steps, 8 + 5 + 5);

  for (const bool checkpoints : {true, false}) {
    trainer_.state.can_checkpoint = checkpoints;
    state_dir_ = directory_.path() / (checkpoints ? "with" : "without");
    next_run_ = Time{};
    Open();
    AddExamples(60);
    server_->Give(server_->NewOffer(1));
    trainer_.state.steps = 0;
    // In the third step of the first baseline, and the second of the second.
    for (const int at : {8 + 3, checkpoints ? 3 + 2 : 5 + 2}) {
      CancelToken cancel;
      trainer_.state.before = [&, n = 0](const std::string& call) mutable {
        if (call == "step" && ++n == at) cancel.Cancel();
        return OkStatus();
      };
      WaitForTurn();
      const RunOutcome outcome = *client_->RunOnce({}, cancel);
      EXPECT_EQ(outcome.result, RunResult::kInterrupted) << outcome.reason;
      next_run_ = outcome.next_run;
      Open();
    }
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    WaitForTurn();
    RunUntil(RunResult::kInstalled);
    EXPECT_EQ(trainer_.state.steps,
              checkpoints ? 8 + 5 + 5 : 8 + 2 + 5 + 1 + 5);
    EXPECT_EQ(Info().alone_scores, wanted.alone_scores);
    EXPECT_EQ(Info().personal_scores, wanted.personal_scores);
    // The optimizer came along with what was kept.
    trainer_.state.optimizers.clear();
    ASSERT_THAT(Train(), IsOk());
    EXPECT_THAT(trainer_.state.optimizers, ElementsAre(Steps(8)));
  }
}

}  // namespace
}  // namespace selvage::client
