// The life of a personal model: what becomes active, what does not, and what a
// device falls back to.
#include <SQLiteCpp/SQLiteCpp.h>

#include <gmock/gmock.h>

#include "base/random.h"
#include "client/core/personal_gate.h"
#include "tests/unit/client/life_fixture.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class LifeTest : public test::LifeFixture {};

// ---- activation

TEST_F(LifeTest, RunOnce_NewVersionWithoutFiniteOutputs_IsNotInstalled) {
  Open();
  AddExamples(24);
  Install(1, 3);
  const Result<float> before = PredictOne();
  trainer_.state.output = [](float value) {
    return value >= 50 ? std::nanf("") : value;
  };
  Offer(2, 60);

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("version 2"));
  EXPECT_THAT(outcome.reason, HasSubstr("not finite"));
  EXPECT_EQ(Info().version, 1U);
  EXPECT_EQ(*PredictOne(), *before);
}

TEST_F(LifeTest, RunOnce_NoExamples_IsTriedOnZeros) {
  Open();
  trainer_.state.output = [](float) { return HUGE_VALF; };
  Offer(1, 3);
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  EXPECT_THAT(client_->Info("digits"),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(LifeTest, RunOnce_PersonalValuesWithoutFiniteOutputs_GlobalServes) {
  Open();
  AddExamples(24);
  trainer_.state.output = [](float value) {
    return value > 4 ? std::nanf("") : value;
  };
  Install(1, 3);  // fine-tuned towards 6
  EXPECT_FALSE(Info().personal_serving);
  EXPECT_TRUE(Info().personal_scores.empty());
  EXPECT_EQ(*PredictOne(), 3);
}

TEST_F(LifeTest, TrainLocally_WorseThanWhatServes_ChangesNothing) {
  Open();
  AddExamples(60);
  Install(1, 0);
  ASSERT_TRUE(Info().personal_serving);
  const float before = *PredictOne();
  const std::vector<double> scores = Info().personal_scores;
  trainer_.state.personal_harms = true;

  EXPECT_THAT(Train(), IsOk());

  EXPECT_TRUE(Info().personal_serving);
  EXPECT_EQ(*PredictOne(), before);
  EXPECT_EQ(Info().personal_scores, scores);
}

TEST_F(LifeTest, TrainLocally_Fails_KeepsTheOldPersonalModel) {
  Open();
  AddExamples(60);
  Install(1, 0);
  const float before = *PredictOne();
  trainer_.state.before = [](const std::string& call) {
    return call == "step" ? OutOfRange("the loss is not finite") : OkStatus();
  };
  EXPECT_THAT(Train(), StatusIs(StatusCode::kOutOfRange));
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_EQ(*PredictOne(), before);
}

TEST_F(LifeTest, InstallModel_AtEveryStart_KeepsWhatWasLearned) {
  Open();
  AddExamples(60);
  const std::string plan = plan::CanonicalJson(server_->plan);
  const std::string program = plan::CanonicalJson(server_->program);
  const Bytes values =
      plan::WriteSafetensors(server_->program.table, server_->checkpoint, {});
  ASSERT_THAT(client_->InstallModel(plan, program, {}, values), IsOk());
  ASSERT_THAT(Train(), IsOk());
  const float trained = *PredictOne();
  Open();
  ASSERT_THAT(client_->InstallModel(plan, program, {}, values), IsOk());
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_EQ(*PredictOne(), trained);
}

// ---- the gate

// P(X >= losses), X ~ Binomial(n, 1/2), by adding up exact counts.
double SignTest(int gains, int losses) {
  const int n = gains + losses;
  double ways = 1;  // n over k
  double tail = 0;
  for (int k = 0; k <= n; ++k) {
    if (k >= losses) tail += ways;
    ways = ways * (n - k) / (k + 1);
  }
  return tail / std::pow(2.0, n);
}

TEST_F(LifeTest, Personalize_AnyScores_WorsePersonalModelNeverServes) {
  Open();
  AddExamples(80);
  Install(1, 0);
  const size_t count = Info().holdout_count;
  ASSERT_GT(count, 10U);
  uint64_t version = 1;
  int served = 0;
  int withheld = 0;
  SeededRandom random(17);
  for (int i = 0; i < 60; ++i) {
    // Examples that the global model gets right, and that the personal one
    // does; a role in shakespeare has about such chances.
    std::vector<float> global;
    std::vector<float> personal;
    const double better = 0.2 + 0.6 * UniformUnit(random);
    int gains = 0;
    int losses = 0;
    for (size_t k = 0; k < count; ++k) {
      const bool agree = UniformUnit(random) < 0.3;
      const bool gain = UniformUnit(random) < better;
      global.push_back(agree || !gain ? 1 : 0);
      personal.push_back(agree || gain ? 1 : 0);
      if (!agree) ++(gain ? gains : losses);
    }
    const auto value = static_cast<float>(++version);
    trainer_.state.scores = [&](float scored, size_t n) {
      EXPECT_EQ(n, count);
      std::vector<float> rows;
      const bool is_global = scored == value;
      for (size_t k = 0; k < n; ++k) {
        rows.push_back((is_global ? global : personal)[k]);
        rows.push_back(0);
      }
      return rows;
    };
    Install(version, value);
    const bool worse = SignTest(gains, losses) < kGateLevel;
    ASSERT_EQ(Info().personal_serving, !worse)
        << gains << " gained, " << losses << " lost";
    ASSERT_EQ(*PredictOne() == value, worse);
    ++(worse ? withheld : served);
  }
  EXPECT_GT(served, 10);
  EXPECT_GT(withheld, 5);
}

// ---- a new base

TEST_F(LifeTest, NewBase_Retrain_FineTunesTheNewOne) {
  Open();
  AddExamples(60);
  Install(1, 0);
  const int trainings = trainer_.state.trainings;
  Install(2, 1);
  EXPECT_EQ(trainer_.state.trainings, trainings + 1);
  EXPECT_TRUE(Info().personal_serving);
}

TEST_F(LifeTest, NewBase_Discard_GlobalServesUntilTheNextFineTuning) {
  PublishPlan([](plan::Plan& plan) {
    plan.personalize.on_new_base = plan::OnNewBase::kDiscard;
  });
  Open();
  AddExamples(60);
  Install(1, 0);
  EXPECT_TRUE(
      Info().personal_serving);  // the first version: nothing to discard
  const int trainings = trainer_.state.trainings;
  Install(2, 1);
  EXPECT_EQ(trainer_.state.trainings, trainings);
  EXPECT_FALSE(Info().personal_serving);
  EXPECT_EQ(*PredictOne(), 1);
  EXPECT_THAT(Train(), IsOk());
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_GT(*PredictOne(), 4);
}

TEST_F(LifeTest, NewBase_KeepIfBetter_KeepsWhatRetrainingMadeWorse) {
  PublishPlan([](plan::Plan& plan) {
    plan.personalize.on_new_base = plan::OnNewBase::kKeepIfBetter;
  });
  Open();
  AddExamples(60);
  Install(1, 0);
  const float learned = *PredictOne();
  trainer_.state.personal_harms = true;
  Install(2, 1);
  EXPECT_EQ(Info().version, 2U);
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_EQ(*PredictOne(), learned);
  // As good as the old one: the new one.
  trainer_.state.personal_harms = false;
  const int trainings = trainer_.state.trainings;
  Install(3, 8);
  EXPECT_EQ(trainer_.state.trainings, trainings + 1);
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_NE(*PredictOne(), learned);
}

TEST_F(LifeTest, NewBase_KeepIfBetter_KeptWhenTrainingIsImpossible) {
  PublishPlan([](plan::Plan& plan) {
    plan.personalize.on_new_base = plan::OnNewBase::kKeepIfBetter;
  });
  Open();
  AddExamples(60);
  Install(1, 0);
  const float learned = *PredictOne();
  trainer_.state.before = [](const std::string& call) {
    return call == "step" ? Internal("no") : OkStatus();
  };
  Install(2, 1);
  EXPECT_TRUE(Info().personal_serving);
  EXPECT_EQ(*PredictOne(), learned);
}

TEST_F(LifeTest, Personalize_ProximalTerm_StaysCloserToGlobal) {
  std::vector<float> learned;
  for (const double mu : {0.0, 1.0}) {
    PublishPlan([&](plan::Plan& plan) { plan.personalize.proximal_mu = mu; });
    state_dir_ = directory_.path() / ("mu" + std::to_string(learned.size()));
    next_run_ = Time{};
    Open();
    AddExamples(60);
    Install(1, 0);
    learned.push_back(*PredictOne());
  }
  EXPECT_NEAR(learned[0], 5.7, 0.3);
  // Half-way to the labels, then half-way back to 0, again and again.
  EXPECT_NEAR(learned[1], learned[0] / 3, 0.01);
}

TEST_F(LifeTest, AloneScores_AreOfAModelThatDidNotSeeTheHoldout) {
  PublishPlan([](plan::Plan& plan) {
    plan.personalize.baseline_alone = true;
    plan.personalize.baseline_epochs = 5;
  });
  Open();
  AddExamples(60);
  Install(1, 0);
  const ModelInfo info = Info();
  EXPECT_THAT(info.alone_scores, SizeIs(2));
  // Fine-tuned, alone on everything, alone without the hold-out.
  const size_t train = 60 - info.holdout_count;
  EXPECT_THAT(trainer_.state.trained_on, ElementsAre(train, 60U, train));
  // A new personalisation keeps it.
  EXPECT_THAT(Train(), IsOk());
  EXPECT_EQ(Info().alone_scores, info.alone_scores);
}

// ---- crashes

TEST_F(LifeTest, Predict_DiesThriceLoading_LastKnownGoodServes) {
  Open();
  Install(1, 10);
  ASSERT_EQ(*PredictOne(), 10);
  Install(2, 20);
  for (int i = 0; i < 3; ++i) {
    Open();
    DieAt("load", [&] { (void)PredictOne(); });
  }
  EXPECT_EQ(*PredictOne(), 10);
  EXPECT_THAT(log_.str(), HasSubstr("slot_passed_over"));
  // Neither does it come back by itself.
  Open();
  EXPECT_EQ(*PredictOne(), 10);
  EXPECT_TRUE(Info().training_paused);
  EXPECT_EQ(Info().paused_until, clock_.Now() + hours(24 * 7));
  // A new version does not inherit the suspicion.
  Install(3, 30);
  EXPECT_EQ(*PredictOne(), 30);
}

TEST_F(LifeTest, Predict_DiesTwiceThenLoads_IsNotHeldAgainstIt) {
  Open();
  Install(1, 10);
  Install(2, 20);
  for (int i = 0; i < 2; ++i) {
    Open();
    DieAt("load", [&] { (void)PredictOne(); });
  }
  EXPECT_EQ(*PredictOne(), 20);
  clock_.Advance(hours(48));
  for (int i = 0; i < 2; ++i) {
    Open();
    DieAt("predict", [&] { (void)PredictOne(); });
  }
  EXPECT_EQ(*PredictOne(), 20);
  EXPECT_FALSE(Info().training_paused);
}

TEST_F(LifeTest, Predict_PersonalModelKills_GlobalServes) {
  Open();
  AddExamples(60);
  Install(1, 0);
  ASSERT_TRUE(Info().personal_serving);
  for (int i = 0; i < 3; ++i) {
    Open();
    DieAt("load", [&] { (void)PredictOne(); });
  }
  EXPECT_EQ(*PredictOne(), 0);
}

TEST_F(LifeTest, Predict_DamagedValues_FallBack) {
  Open();
  Install(1, 10);
  Install(2, 20);
  client_.reset();
  {
    SQLite::Database db((state_dir_ / "client.db").string(),
                        SQLite::OPEN_READWRITE);
    db.exec(
        "UPDATE model SET global_values = "
        "CAST(substr(global_values, 1, length(global_values) - 1) || x'01' "
        "AS BLOB)");
  }
  Open();
  EXPECT_EQ(*PredictOne(), 10);
  EXPECT_THAT(log_.str(), HasSubstr("not those that were installed"));
  EXPECT_THAT(Train(), StatusIs(StatusCode::kDataLoss));
  // The coordinator is not told that the device has it, and offers it again.
  Install(2, 20);
  EXPECT_THAT(server_->check_ins.back().installed, ::testing::IsEmpty());
  EXPECT_EQ(*PredictOne(), 20);
}

TEST_F(LifeTest, RunOnce_DiesThriceInTraining_PausesForAnHour) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  for (int i = 0; i < 3; ++i) {
    DieAt("step", [&] { Run(); });
  }
  EXPECT_EQ(RunUntil(RunResult::kNothingToDo).result, RunResult::kNothingToDo);
  WaitForTurn();
  server_->Give(server_->NewAssignment());
  EXPECT_THAT(Run().reason, HasSubstr("training is paused until 20"));
  EXPECT_EQ(server_->updates.size(), 0U);
  clock_.Advance(hours(1));
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
}

// The first of the deaths is while the model that serves is loaded.
TEST_F(LifeTest, RunOnce_DiesThriceAlsoLoading_PausesForAWeek) {
  Open();
  AddExamples(24);
  Install(1, 10);
  Open();
  DieAt("load", [&] { (void)PredictOne(); });
  server_->Give(server_->NewAssignment());
  for (int i = 0; i < 2; ++i) {
    // Opened twice: still one death.
    Open();
    DieAt("step", [&] { Run(); });
    EXPECT_EQ(server_->updates.size(), 0U);
    clock_.Advance(std::chrono::seconds(5));
  }
  Open();
  const Time until = clock_.Now() - std::chrono::seconds(5) + hours(24 * 7);

  // Of all reports since.
  std::map<std::string, uint64_t> counters;
  const auto hear = [&] {
    counters.insert(server_->counters.begin(), server_->counters.end());
  };
  server_->counters.clear();
  // The machine gives the work back, and nothing more is taken.
  EXPECT_EQ(RunUntil(RunResult::kNothingToDo).result, RunResult::kNothingToDo);
  hear();
  WaitForTurn();
  server_->Give(server_->NewAssignment());
  const RunOutcome outcome = Run();
  hear();
  EXPECT_EQ(outcome.result, RunResult::kNothingToDo);
  EXPECT_THAT(outcome.reason, HasSubstr("training is paused until 20"));
  EXPECT_EQ(server_->abandoned.back(), AbandonReason::kTrainingFailed);
  EXPECT_EQ(server_->updates.size(), 0U);

  // Global models are still installed, as they are; and what happened is told,
  // in numbers.
  WaitForTurn();
  const int trainings = trainer_.state.trainings;
  Offer(7, 5);
  EXPECT_EQ(RunUntil(RunResult::kInstalled).result, RunResult::kInstalled);
  hear();
  EXPECT_EQ(counters["crashed"], 3U);
  EXPECT_EQ(counters["training_paused"], 1U);
  EXPECT_EQ(trainer_.state.trainings, trainings);
  EXPECT_EQ(*PredictOne(), 5);
  EXPECT_TRUE(Info().training_paused);
  EXPECT_EQ(Info().paused_until, until);
  EXPECT_THAT(Train(), StatusIs(StatusCode::kFailedPrecondition,
                                HasSubstr("training is paused until 20")));

  // A week later it takes part again.
  clock_.Advance(until - clock_.Now());
  EXPECT_FALSE(Info().training_paused);
  EXPECT_THAT(Train(), IsOk());
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
}

// A phone that kills its background work every other minute: each life gets one
// checkpoint further.
TEST_F(LifeTest, RunOnce_KilledAgainAndAgainWithProgress_Contributes) {
  trainer_.state.can_checkpoint = true;
  PublishPlan([](plan::Plan& plan) {
    plan.train.local_epochs = 12;
    plan.personalize = {};
  });
  Open();
  AddExamples(24);
  client::Assignment assignment = server_->NewAssignment();
  assignment.compute_deadline = hours(3);
  assignment.upload_deadline = hours(4);
  server_->Give(assignment);
  int lives = 0;
  for (; lives < 20 && server_->updates.empty(); ++lives) {
    if (!LiveForFourSteps(lives, [&] { Run(); })) break;
  }
  EXPECT_GT(lives, 3);
  EXPECT_EQ(server_->updates.size(), 1U);
  EXPECT_THAT(server_->abandoned, ::testing::IsEmpty());
}

TEST_F(LifeTest, TrainLocally_DiesThrice_IsRefusedUntil) {
  Open();
  AddExamples(24);
  Install(1, 0);
  const float before = *PredictOne();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(Info().training_paused);
    DieAt("step", [&] { (void)Train(); });
    Open();
  }
  EXPECT_THAT(Train(), StatusIs(StatusCode::kFailedPrecondition,
                                HasSubstr("paused until")));
  EXPECT_EQ(*PredictOne(), before);
}

TEST_F(LifeTest, RunOnce_ActivationKeepsKilling_VersionIsPutAside) {
  Open();
  Install(1, 10);
  ASSERT_EQ(*PredictOne(), 10);
  Offer(2, 20);
  // The first death is the session's; then values are watched one by one.
  for (int i = 0; i < 4; ++i) {
    Open();
    DieAt("predict", [&] {
      for (int k = 0; k < 3; ++k) {
        Run();
        WaitForTurn();
      }
    });
    WaitForTurn();
  }
  const RunOutcome outcome = RunUntil(RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("put aside"));
  EXPECT_EQ(Info().version, 1U);
  EXPECT_EQ(*PredictOne(), 10);
}

TEST_F(LifeTest, TrainLocally_DiskTakesNoMark_DoesNotBegin) {
  Open();
  AddExamples(24);
  Install(1, 0);
  client_->Close();
  EXPECT_THAT(Train(), StatusIs(StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace selvage::client
