// What a host may demand of a session: floor, conditions, budgets, consent.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/core/clip.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::client {
namespace {

using namespace std::chrono_literals;  // NOLINT

using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FakeCpuClock final : public CpuClock {
 public:
  Duration ThreadTime() override { return thread; }
  Duration ProcessTime() override { return process; }
  Duration thread{};
  Duration process{};
};

class PolicyTest : public test::ClientFixture {
 protected:
  void Open() {
    client_.reset();
    ClientOptions options = Options();
    options.floor = floor_;
    options.daily = daily_;
    options.memory_bytes_max = memory_bytes_max_;
    options.threads_max = threads_max_;
    ClientDependencies deps = Dependencies();
    deps.conditions = [this] {
      ++asked_;
      return conditions_;
    };
    deps.consent = [this](const ConsentRequest& request) {
      consents_asked_.push_back(request);
      return request.upload ? consent_upload_ : consent_local_;
    };
    deps.progress = [this](const Progress& p) { progress_.push_back(p); };
    deps.cpu = &cpu_;
    Result<std::unique_ptr<Client>> client = Client::Open(options, deps);
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
  }
  void OpenWithWork() {
    Open();
    AddExamples(24);
    server_->Give(server_->NewAssignment());
  }
  // The plan, changed and published anew.
  template <typename Change>
  void ChangePlan(const Change& change) {
    plan::Plan plan = server_->plan;
    change(plan);
    server_->Publish(plan, server_->program);
  }
  RunOutcome RunWith(const RunBudget& budget) {
    const Result<RunOutcome> outcome = client_->RunOnce(budget, cancel_);
    EXPECT_THAT(outcome, IsOk());
    next_run_ = outcome->next_run;
    return *outcome;
  }
  // Until nothing is due, and back in time for the next one.
  RunOutcome RunDue() {
    WaitForTurn();
    return Run();
  }

  PrivacyFloor floor_;
  DailyLimits daily_;
  uint64_t memory_bytes_max_ = 0;
  int threads_max_ = 0;
  Conditions conditions_;
  bool consent_upload_ = true;
  bool consent_local_ = true;
  int asked_ = 0;
  std::vector<ConsentRequest> consents_asked_;
  std::vector<Progress> progress_;
  FakeCpuClock cpu_;
};

// ---- what the plan asks of the engine

TEST_F(PolicyTest, Engine_CannotTrainAsAsked_DeclinesAndSaysWhy) {
  const std::pair<std::function<void(plan::TrainSpec&)>, const char*> kAsked[] =
      {{[](plan::TrainSpec& t) { t.clip_gradient = 1; }, "clip_gradient"},
       {[](plan::TrainSpec& t) { t.lr_schedule.warmup = 3; }, "lr_schedule"},
       {[](plan::TrainSpec& t) {
          t.local_epochs = 1;
          t.local_steps = 3;
        },
        "local_steps"},
       {[](plan::TrainSpec& t) { t.early_stop.patience = 3; }, "early_stop"},
       {[](plan::TrainSpec& t) {
          t.optimizer.name = plan::OptimizerName::kAdamW;
        },
        "adamw"},
       {[](plan::TrainSpec& t) {
          t.optimizer.momentum = 0.5;
          t.optimizer.nesterov = true;
        },
        "Nesterov"}};
  const plan::TrainSpec plain = server_->plan.train;
  for (const auto& [ask, name] : kAsked) {
    SCOPED_TRACE(name);
    ChangePlan([&, &ask = ask](plan::Plan& plan) {
      plan.train = plain;
      ask(plan.train);
    });
    const int before = trainer_.state.trainings;
    OpenWithWork();
    const RunOutcome outcome = RunDue();
    EXPECT_EQ(outcome.result, RunResult::kDeclined);
    EXPECT_THAT(outcome.reason,
                HasSubstr("the engine cannot train with " + std::string(name)));
    EXPECT_EQ(trainer_.state.trainings, before);
  }
}

TEST_F(PolicyTest, Engine_CanTrainAsAsked_GetsWhatThePlanSays) {
  ChangePlan([](plan::Plan& plan) {
    plan.train.local_epochs = 1;
    plan.train.local_steps = 9;
    plan.train.local_steps_min = 4;
    plan.train.clip_gradient = 2.5;
    plan.train.early_stop = {.patience = 7, .min_delta = 0.25};
    plan.train.proximal_mu = 0.5;
    plan.train.optimizer.lr = 0.5;
    plan.train.lr_schedule.name = plan::RateShape::kStep;
    plan.train.lr_schedule.by_round = true;
    plan.train.lr_schedule.every = 1;
    plan.train.lr_schedule.factor = 0.5;
  });
  trainer_.state.features = kAllTrainingFeatures;
  std::set<uint64_t> counts;
  for (int round = 1; round <= 12; ++round) {
    trainer_.state.asked.clear();
    OpenWithWork();
    ASSERT_EQ(RunDue().result, RunResult::kContributed);
    ASSERT_FALSE(trainer_.state.asked.empty());
    // Fine-tuning came after it.
    const LocalTraining& asked = trainer_.state.asked.front();
    counts.insert(asked.step_count);
    EXPECT_EQ(asked.clip_norm, 2.5);
    EXPECT_EQ(asked.stop_patience, 7);
    EXPECT_EQ(asked.stop_min_delta, 0.25);
    EXPECT_EQ(asked.proximal_mu, 0.5);
    // By the number of the round, from 1; nothing is left for the engine.
    EXPECT_FALSE(asked.rate_factor);
    EXPECT_EQ(asked.optimizer.lr, 0.5 * std::pow(0.5, round - 1));
  }
  EXPECT_GE(counts.size(), 3U);
  EXPECT_GE(*counts.begin(), 4U);
  EXPECT_LE(*counts.rbegin(), 9U);
}

// ---- the privacy floor

TEST_F(PolicyTest, Floor_PlanBelow_IsRefusedBeforeAnythingElseIsFetched) {
  floor_.min_cohort = 50;
  OpenWithWork();

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_EQ(outcome.reason,
            "privacy.min_cohort (1) is below this device's floor (50)");
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kPlanBelowFloor));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(outcome.reason));
  EXPECT_EQ(server_->fetched.size(), 1U);  // the plan
  EXPECT_EQ(trainer_.state.loads, 0);
  EXPECT_THAT(consents_asked_, IsEmpty());
}

TEST_F(PolicyTest, Floor_ModelOfAPlanBelow_IsNotInstalled) {
  floor_.collections = {"something-else"};
  Open();
  server_->Give(server_->NewOffer(3));

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("data.collection (numbers)"));
  EXPECT_THAT(*client_->Tasks(), IsEmpty());
  EXPECT_EQ(trainer_.state.loads, 0);
}

TEST_F(PolicyTest, Floor_PlanThatMeetsIt_Contributes) {
  floor_ = {.min_cohort = 8,
            .clip_norm_max = 0.5,
            .epochs_max = 3,
            .uploads_per_day_max = 1,
            .collections = {"numbers"}};
  ChangePlan([](plan::Plan& plan) {
    plan.privacy.min_cohort = 8;
    plan.privacy.clip_norm = 0.25;
  });
  OpenWithWork();
  EXPECT_EQ(Run().result, RunResult::kContributed);
  const auto values =
      aggregation::Decode(server_->plan.update.codec,
                          aggregation::UpdateCounts(server_->program.table),
                          server_->payloads.at("round-1"));
  ASSERT_THAT(values, IsOk());
  EXPECT_LE(L2Norm(*values), 0.25);
  EXPECT_GT(L2Norm(*values), 0.24);
}

TEST_F(PolicyTest, Floor_PlanKeys_OnlyThoseOfBoth) {
  // None of the enrolment's keys is among the host's.
  floor_.plan_keys = {crypto::NewEd25519KeyPair(random_).public_key};
  OpenWithWork();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("not signed by a key"));
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kPlanRefused));
}

TEST_F(PolicyTest, Floor_UnknownPrivacyKey_RefusesThePlan) {
  std::string json = plan::CanonicalJson(server_->plan);
  const std::string key = "\"privacy\":{";
  json.insert(json.find(key) + key.size(), "\"delta\":1e-06,");
  server_->PublishPlan(json);
  OpenWithWork();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("privacy.delta"));
}

TEST_F(PolicyTest, Floor_RaisedBeforeTheUpload_NothingIsSent) {
  OpenWithWork();
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("later") : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  server_->hook = [](const std::string&) { return OkStatus(); };
  floor_.clip_norm_max = 1;
  Open();
  const RunOutcome outcome = RunDue();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("privacy.clip is off"));
  EXPECT_THAT(server_->updates, IsEmpty());
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kPlanBelowFloor));
  EXPECT_THAT(*client_->InspectOutbox(), IsEmpty());
}

TEST_F(PolicyTest, Floor_UploadsPerDay_HoldAcrossRestartsAndClocks) {
  floor_.uploads_per_day_max = 2;
  Open();
  AddExamples(24);
  for (int i = 0; i < 2; ++i) {
    server_->Give(server_->NewAssignment());
    EXPECT_EQ(RunDue().result, RunResult::kContributed);
    Open();
  }
  const Time today = clock_.Now();
  server_->Give(server_->NewAssignment());
  const RunOutcome third = RunDue();
  EXPECT_EQ(third.result, RunResult::kDeclined);
  EXPECT_EQ(third.reason, "the uploads of the day (2) are used up");
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kOverBudget));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(""));
  // Not before the next day does it take a slot again.
  EXPECT_EQ((third.next_run - Time{}) % 24h, Duration::zero());
  EXPECT_EQ(Run().reason, "not due yet");
  // A clock that goes back a week and forth again gives no new day.
  clock_.Advance(-24h * 7);
  clock_.Advance(today + 1s - clock_.Now());
  Open();
  EXPECT_EQ(server_->updates.size(), 2U);
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunDue().result, RunResult::kContributed);
  EXPECT_EQ(server_->updates.size(), 3U);
}

TEST_F(PolicyTest, Open_BadFloorOrLimits_AreRefused) {
  const auto refused = [&](const auto& change) {
    ClientOptions options = Options();
    change(options);
    EXPECT_THAT(Client::Open(options, Dependencies()),
                StatusIs(StatusCode::kInvalidArgument));
  };
  refused([](ClientOptions& o) { o.floor.min_cohort = -1; });
  refused([](ClientOptions& o) { o.threads_max = -1; });
  refused([](ClientOptions& o) { o.daily.cpu = -1us; });
}

// ---- conditions

TEST_F(PolicyTest, Conditions_Energy_NothingHappensOffTheCharger) {
  OpenWithWork();
  conditions_.charging = false;
  RunOutcome outcome = RunWith({.energy = EnergyClass::kChargingOnly});
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_EQ(outcome.reason, "the device is not charging");
  EXPECT_EQ(server_->connections, 0);
  conditions_.charging = true;
  outcome = RunWith({.energy = EnergyClass::kChargingOnly});
  EXPECT_EQ(outcome.result, RunResult::kContributed);
}

TEST_F(PolicyTest, Conditions_TooHot_NothingHappens) {
  OpenWithWork();
  conditions_.thermal = Thermal::kCritical;
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_THAT(outcome.reason, HasSubstr("hot"));
  EXPECT_EQ(server_->connections, 0);
}

TEST_F(PolicyTest, Conditions_LostWhileTraining_StopsBeforeTheNextStep) {
  ChangePlan([](plan::Plan& plan) {
    plan.conditions.min_battery = 0.5;
    plan.train.local_epochs = 20;
  });
  for (const int after : {0, 1, 7}) {
    OpenWithWork();
    int steps = 0;
    trainer_.state.before = [&](const std::string& call) {
      // Lost in the middle of a step.
      if (call == "step" && ++steps == after) conditions_.battery = 0.4;
      return OkStatus();
    };
    if (after == 0) conditions_.battery = 0.4;
    const RunOutcome outcome = RunDue();
    EXPECT_EQ(outcome.result, RunResult::kInterrupted);
    EXPECT_EQ(outcome.reason, "the battery (0.4) is below 0.5");
    EXPECT_LE(steps, after);
    conditions_.battery = 1;
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    EXPECT_EQ(RunDue().result, RunResult::kContributed) << after;
  }
}

TEST_F(PolicyTest, Conditions_Flicker_StillEndsInGoodOrder) {
  ChangePlan([](plan::Plan& plan) { plan.conditions.idle = true; });
  OpenWithWork();
  // Lost for one question only.
  trainer_.state.before = [&, n = 0](const std::string& call) mutable {
    if (call == "step" && ++n == 2) conditions_.idle = false;
    return OkStatus();
  };
  const RunOutcome outcome = Run();
  conditions_.idle = true;
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_EQ(outcome.reason, "the device is not idle");
}

TEST_F(PolicyTest, Conditions_LostWhileFetching_StopsBetweenChunks) {
  ChangePlan([](plan::Plan& plan) { plan.conditions.unmetered = true; });
  OpenWithWork();
  server_->chunk_size = 16;
  int chunks = 0;
  server_->hook = [&](const std::string& call) {
    if (call == "fetch chunk" && ++chunks == 70) conditions_.unmetered = false;
    return OkStatus();
  };
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_EQ(outcome.reason, "the network is metered");
  EXPECT_EQ(chunks, 70);
  conditions_.unmetered = true;
  EXPECT_EQ(RunDue().result, RunResult::kContributed);
}

TEST_F(PolicyTest, Conditions_UploadInALaterSession_UntilItExpires) {
  ChangePlan([](plan::Plan& plan) { plan.conditions.charging = true; });
  for (const bool in_time : {true, false}) {
    OpenWithWork();
    server_->hook = [&](const std::string& call) {
      return call == "upload" ? Unavailable("later") : OkStatus();
    };
    EXPECT_EQ(RunDue().result, RunResult::kFailed);
    server_->hook = [](const std::string&) { return OkStatus(); };
    const int trainings = trainer_.state.trainings;
    const size_t sent = server_->updates.size();
    // Another process, and the charger is gone: the plan still counts.
    conditions_.charging = false;
    Open();
    const RunOutcome outcome = RunDue();
    EXPECT_EQ(outcome.result, RunResult::kInterrupted);
    EXPECT_EQ(outcome.reason, "the device is not charging");
    EXPECT_EQ(server_->updates.size(), sent);
    conditions_.charging = true;
    if (!in_time) clock_.Advance(1h);
    EXPECT_EQ(RunDue().result,
              in_time ? RunResult::kContributed : RunResult::kNothingToDo);
    if (!in_time) {
      EXPECT_EQ(server_->updates.size(), sent);
      EXPECT_THAT(*client_->InspectOutbox(), IsEmpty());
    } else {
      EXPECT_EQ(server_->updates.size(), sent + 1);
      EXPECT_EQ(trainer_.state.trainings, trainings + 1);  // personalisation
    }
  }
}

// ---- local checkpoints

TEST_F(PolicyTest, Checkpoint_InterruptedAtEveryStep_SameBytesAndNoStepTwice) {
  trainer_.state.can_checkpoint = true;
  ChangePlan([](plan::Plan& plan) {
    plan.train.local_epochs = 15;
    plan.personalize = {};
  });
  OpenWithWork();
  EXPECT_EQ(Run().result, RunResult::kContributed);
  EXPECT_EQ(trainer_.state.steps, 15);
  const crypto::Digest wanted = server_->updates.at("round-1");
  EXPECT_EQ(trainer_.state.checkpoints, 0);

  // The same work on a new device, one step a session, restarted every time:
  // more interruptions than kInterruptionsMax, but each one got further.
  state_dir_ = directory_.path() / "state2";
  server_->updates.clear();
  Open();
  AddExamples(24);
  Assignment assignment = server_->NewAssignment();
  assignment.seed = 1001;
  server_->Give(assignment);
  trainer_.state.steps = 0;
  int sessions = 0;
  RunOutcome outcome;
  do {
    int steps = 0;
    trainer_.state.before = [&](const std::string& call) {
      if (call == "step" && ++steps == 2)
        conditions_.thermal = Thermal::kCritical;
      return OkStatus();
    };
    outcome = RunDue();
    conditions_.thermal = Thermal::kNominal;
    Open();
  } while (outcome.result == RunResult::kInterrupted && ++sessions < 50);
  EXPECT_EQ(outcome.result, RunResult::kContributed) << outcome.reason;
  EXPECT_EQ(sessions, 14);
  EXPECT_EQ(trainer_.state.steps, 15);
  ASSERT_EQ(server_->updates.size(), 1U);
  EXPECT_EQ(server_->updates.begin()->second, wanted);
}

TEST_F(PolicyTest, Checkpoint_EngineWithout_BeginsAgainWithTheSameBytes) {
  ChangePlan([](plan::Plan& plan) { plan.train.local_epochs = 6; });
  OpenWithWork();
  trainer_.state.before = [&, n = 0](const std::string& call) mutable {
    conditions_.charging = !(call == "step" && ++n == 4);
    return OkStatus();
  };
  EXPECT_EQ(RunWith({.energy = EnergyClass::kChargingOnly}).result,
            RunResult::kInterrupted);
  EXPECT_EQ(RunDue().result, RunResult::kContributed);
}

TEST_F(PolicyTest, Checkpoint_ExamplesChanged_BeginsAgain) {
  trainer_.state.can_checkpoint = true;
  ChangePlan([](plan::Plan& plan) {
    plan.train.local_epochs = 6;
    plan.personalize = {};
  });
  OpenWithWork();
  trainer_.state.before = [&, n = 0](const std::string& call) mutable {
    if (call == "step" && ++n == 4) cancel_.Cancel();
    return OkStatus();
  };
  EXPECT_EQ(Run().reason, "cancelled");
  EXPECT_EQ(trainer_.state.steps, 3);
  trainer_.state.before = [](const std::string&) { return OkStatus(); };
  AddExamples(3);
  CancelToken fresh;
  EXPECT_EQ(client_->RunOnce({}, fresh)->result, RunResult::kContributed);
  EXPECT_EQ(trainer_.state.steps, 3 + 6);
}

// A process that really dies, in the middle of a step; the next one opens what
// it left and sends the bytes of a training that nothing interrupted.
TEST_F(PolicyTest, Training_KilledWithSigkill_GoesOnFromItsCheckpoint) {
  trainer_.state.can_checkpoint = true;
  ChangePlan([](plan::Plan& plan) {
    plan.train.local_epochs = 10;
    plan.personalize = {};
  });
  // In peace first.
  const Path killed = state_dir_;
  state_dir_ = directory_.path() / "in_peace";
  Open();
  AddExamples(24);
  Assignment assignment = server_->NewAssignment();
  assignment.compute_deadline = 1h;
  assignment.upload_deadline = 2h;
  server_->Give(assignment);
  EXPECT_EQ(RunWith({.time = 20min}).result, RunResult::kContributed);
  const crypto::Digest expected = server_->updates.at(assignment.id);
  const int steps = trainer_.state.steps;
  EXPECT_EQ(steps, 10);
  client_.reset();

  server_->updates.clear();
  state_dir_ = killed;
  Open();
  AddExamples(24);
  next_run_ = Time{};
  server_->Give(assignment);
  RunUntilKilledAt(9, [&] { (void)client_->RunOnce({}, cancel_); });
  EXPECT_TRUE(server_->updates.empty());

  trainer_.state.steps = 0;
  Open();
  EXPECT_EQ(RunWith({.time = 20min}).result, RunResult::kContributed);
  // The last whole minute before the ninth step was between the fifth and the
  // sixth: five steps were kept.
  EXPECT_EQ(trainer_.state.steps, 5);
  EXPECT_EQ(server_->updates.at(assignment.id), expected);
}

TEST_F(PolicyTest, Checkpoint_EveryMinute_IsSaved) {
  trainer_.state.can_checkpoint = true;
  ChangePlan([](plan::Plan& plan) {
    plan.train.local_epochs = 10;
    plan.personalize = {};
  });
  Open();
  AddExamples(24);
  Assignment assignment = server_->NewAssignment();
  assignment.compute_deadline = 1h;
  assignment.upload_deadline = 2h;
  server_->Give(assignment);
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") clock_.Advance(25s);
    return OkStatus();
  };
  EXPECT_EQ(RunWith({.time = 20min}).result, RunResult::kContributed);
  // 250 s: three whole minutes between steps 3, 6 and 9.
  EXPECT_EQ(trainer_.state.checkpoints, 3);
}

// ---- budgets

TEST_F(PolicyTest, Usage_IsReported) {
  OpenWithWork();
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") cpu_.process += 5ms;
    if (call == "score") cpu_.thread += 1ms;
    return OkStatus();
  };
  const RunOutcome outcome = Run();
  ASSERT_EQ(outcome.result, RunResult::kContributed);
  const size_t update = server_->payloads.at("round-1").size();
  EXPECT_GT(outcome.usage.bytes_sent, update);
  uint64_t fetched = 0;
  for (const auto& [digest, bytes] : server_->fetched) fetched += bytes;
  EXPECT_GT(outcome.usage.bytes_received, fetched);
  EXPECT_GE(outcome.usage.cpu, 15ms);
  EXPECT_GT(outcome.usage.memory_peak_bytes, 1U << 20);
  EXPECT_GT(outcome.usage.memory_estimate_bytes, 24 * 24U);
}

TEST_F(PolicyTest, Budget_Bytes_StopsTheSession) {
  OpenWithWork();
  const RunOutcome outcome = RunWith({.bytes = 2000});
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_EQ(outcome.reason, "the bytes of the budget (2000) are used up");
  EXPECT_LT(outcome.usage.bytes_sent + outcome.usage.bytes_received,
            2000 + 4096U);
  EXPECT_EQ(RunDue().result, RunResult::kContributed);
}

TEST_F(PolicyTest, Daily_Bytes_CountByNetworkAndAcrossRestarts) {
  daily_.metered_bytes = 2500;
  OpenWithWork();
  conditions_.unmetered = false;
  RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_EQ(outcome.reason, "the metered bytes of the day (2500) are used up");
  EXPECT_EQ((outcome.next_run - Time{}) % 24h, Duration::zero());
  Open();
  const int connections = server_->connections;
  EXPECT_EQ(Run().result, RunResult::kInterrupted);
  EXPECT_EQ(server_->connections, connections);
  // Another network is another limit.
  conditions_.unmetered = true;
  EXPECT_EQ(Run().result, RunResult::kContributed);
  // And tomorrow is another day.
  conditions_.unmetered = false;
  EXPECT_EQ(RunDue().result, RunResult::kInterrupted);
  EXPECT_EQ(RunDue().result, RunResult::kNothingToDo);
}

TEST_F(PolicyTest, Daily_UpdateThatDoesNotFit_IsNotBegun) {
  OpenWithWork();
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("later") : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  int uploads = 0;
  server_->hook = [&](const std::string& call) {
    uploads += call == "upload" ? 1 : 0;
    return OkStatus();
  };
  EXPECT_EQ(RunWith({.bytes = 60}).result, RunResult::kNothingToDo);
  WaitForTurn();
  const RunOutcome outcome = RunWith({.bytes = 60});  // the update has more
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_EQ(uploads, 0);
  EXPECT_EQ(RunDue().result, RunResult::kContributed);
}

TEST_F(PolicyTest, Daily_Cpu_StopsTrainingAndGoesOnTomorrow) {
  daily_.cpu = 1s;
  trainer_.state.can_checkpoint = true;
  ChangePlan([](plan::Plan& plan) { plan.train.local_epochs = 10; });
  Open();
  AddExamples(24);
  Assignment assignment = server_->NewAssignment();
  assignment.compute_deadline = 72h;
  assignment.upload_deadline = 73h;
  server_->Give(assignment);
  int steps = 0;
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step" && ++steps <= 10) cpu_.process += 300ms;
    return OkStatus();
  };
  RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kInterrupted);
  EXPECT_THAT(outcome.reason, HasSubstr("CPU time of the day"));
  EXPECT_EQ(trainer_.state.steps, 3);
  EXPECT_GE(outcome.usage.cpu, 1s);
  outcome = RunUntil(RunResult::kContributed, 10);
  EXPECT_EQ(outcome.result, RunResult::kContributed);
}

TEST_F(PolicyTest, Memory_EstimateAbove_IsRefusedWithIt) {
  memory_bytes_max_ = 1000;
  OpenWithWork();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason,
              HasSubstr(std::to_string(outcome.usage.memory_estimate_bytes)));
  EXPECT_GT(outcome.usage.memory_estimate_bytes, 1000U);
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kOverBudget));
  EXPECT_EQ(trainer_.state.loads, 0);
}

TEST_F(PolicyTest, Memory_FineTuningAbove_LeavesTheGlobalModel) {
  memory_bytes_max_ = 1000;
  Open();
  AddExamples(24);
  server_->Give(server_->NewOffer(3));
  EXPECT_EQ(Run().result, RunResult::kInstalled);
  EXPECT_FALSE(client_->Info("digits")->personal_serving);
  EXPECT_EQ(trainer_.state.trainings, 0);
}

TEST_F(PolicyTest, Threads_ReachTheEngine) {
  threads_max_ = 3;
  OpenWithWork();
  EXPECT_EQ(Run().result, RunResult::kContributed);
  EXPECT_EQ(trainer_.state.threads, 3);
}

TEST_F(PolicyTest, TrainLocally_ObeysHeatEnergyAndTheDay) {
  Open();
  AddExamples(24);
  ChangePlan([](plan::Plan& plan) { plan.conditions.idle = true; });
  server_->Give(server_->NewOffer(3));
  EXPECT_EQ(Run().result, RunResult::kInstalled);
  // The host itself asks: the plan's conditions are not its concern.
  conditions_.idle = false;
  EXPECT_THAT(client_->TrainLocally("digits", {}, cancel_), IsOk());
  conditions_.charging = false;
  EXPECT_THAT(client_->TrainLocally(
                  "digits", {.energy = EnergyClass::kChargingOnly}, cancel_),
              StatusIs(StatusCode::kCancelled, HasSubstr("not charging")));
  conditions_.thermal = Thermal::kCritical;
  EXPECT_THAT(client_->TrainLocally("digits", {}, cancel_),
              StatusIs(StatusCode::kCancelled, HasSubstr("hot")));
}

// ---- consent and progress

TEST_F(PolicyTest, Consent_Withheld_DeclinesAndTellsNobodyWhy) {
  consent_upload_ = false;
  OpenWithWork();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_EQ(outcome.reason,
            "no consent to use the collection numbers for task digits");
  ASSERT_EQ(consents_asked_.size(), 1U);
  EXPECT_EQ(consents_asked_[0].task, "digits");
  EXPECT_EQ(consents_asked_[0].collection, "numbers");
  EXPECT_TRUE(consents_asked_[0].upload);
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kInterrupted));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(""));
  EXPECT_EQ(trainer_.state.trainings, 0);
  // Asked again in the next session.
  consent_upload_ = true;
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunDue().result, RunResult::kContributed);
}

TEST_F(PolicyTest, Consent_WithdrawnBeforeTheUpload_NothingIsSent) {
  OpenWithWork();
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("later") : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  EXPECT_EQ(consents_asked_.size(), 1U);  // once a session
  server_->hook = [](const std::string&) { return OkStatus(); };
  consent_upload_ = false;
  EXPECT_EQ(RunDue().result, RunResult::kDeclined);
  EXPECT_THAT(server_->updates, IsEmpty());
  EXPECT_THAT(*client_->InspectOutbox(), IsEmpty());
}

TEST_F(PolicyTest, Consent_NotForPersonalisation_InstallsTheGlobalModel) {
  consent_local_ = false;
  Open();
  AddExamples(24);
  server_->Give(server_->NewOffer(3));
  EXPECT_EQ(Run().result, RunResult::kInstalled);
  EXPECT_EQ(trainer_.state.trainings, 0);
  EXPECT_FALSE(client_->Info("digits")->personal_serving);
  ASSERT_EQ(consents_asked_.size(), 1U);
  EXPECT_FALSE(consents_asked_[0].upload);
}

TEST_F(PolicyTest, Progress_TellsPhasesInOrderAndSteps) {
  OpenWithWork();
  EXPECT_EQ(Run().result, RunResult::kContributed);
  std::vector<Phase> phases;
  uint64_t steps = 0;
  for (const Progress& p : progress_) {
    if (phases.empty() || phases.back() != p.phase) phases.push_back(p.phase);
    if (p.phase == Phase::kTraining) {
      EXPECT_EQ(p.task, "digits");
      EXPECT_GE(p.step, steps);
      steps = p.step;
    }
  }
  EXPECT_THAT(phases, ElementsAre(Phase::kEnrolling, Phase::kCheckingIn,
                                  Phase::kFetching, Phase::kTraining,
                                  Phase::kUploading, Phase::kPersonalizing));
  EXPECT_GT(steps, 0U);
  for (const Phase phase : phases) EXPECT_NE(PhaseName(phase), "unknown");
}

}  // namespace
}  // namespace selvage::client
