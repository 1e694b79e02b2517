// Several coordinators over one store and one blob store, on virtual time.
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include <gmock/gmock.h>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator {
namespace {

using test::IsOk;
using test::World;
using test::WorldOptions;
using ::testing::HasSubstr;

constexpr int kDevices = 6;
constexpr int kRounds = 3;

// What a task does besides averaging.
struct Scenario {
  std::string strategy_name = "fedavg";
  std::string strategy = "min_updates: 6";
  std::string evaluate = "";
  std::vector<plan::ContributionName> contributions = {};
  std::string update_extra = ", weight_cap: 100";
  std::optional<int> sends_nan = std::nullopt;  // this device, always
  bool one_hot = false;                         // else values whose sums round
  std::string deadline = "2h";                  // of a round
};

// Everybody takes part in every round, whatever happens: so the result is a
// function of the scenario alone.
WorldOptions Options(const Scenario& scenario, bool shared, uint64_t seed) {
  WorldOptions options;
  options.devices = kDevices;
  options.rounds = kRounds;
  options.random_seed = seed;
  options.strategy_name = scenario.strategy_name;
  options.strategy =
      "cohort: 6, over_selection: 1.0, round_deadline: " + scenario.deadline +
      ", " + scenario.strategy;
  options.evaluate = scenario.evaluate;
  options.evaluates = !scenario.evaluate.empty();
  options.contributions = scenario.contributions;
  options.update_extra = scenario.update_extra;
  options.options.replicas.shared = shared;
  return options;
}
WorldOptions Options(bool shared, uint64_t seed) {
  return Options(Scenario{}, shared, seed);
}

// The same bytes for the same work, whoever is asked.
World::Answer Contribute(World& world, const Scenario& scenario, int device,
                         const Assignment& work) {
  if (work.mode == RoundMode::kEvaluate) {
    UploadHeader header;
    header.assignment_id = work.id;
    header.token.assign(work.token.bytes.begin(), work.token.bytes.end());
    header.weight = 1;
    const double accuracy =
        0.3 * static_cast<double>(work.base_version) + 0.001 * device;
    header.metrics = {*aggregation::MakeMetric(accuracy * 8, 8),
                      *aggregation::MakeMetric(4, 8)};
    header.digest = aggregation::DigestOf(header.metrics);
    return world.Send(device, header, {});
  }
  // Rounds that measure have numbers, too.
  const uint64_t round = work.base_version + 1;
  if (scenario.one_hot) {
    const Bytes bytes = world.OneHot(round, device);
    return world.Send(device, world.Header(work, bytes), bytes);
  }
  const bool scaffold = scenario.strategy_name == "scaffold";
  std::vector<size_t> counts(scaffold ? 2 : 1, kRounds * kDevices);
  std::vector<float> values(counts.size() * counts.front());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.1F * static_cast<float>(device + 1) /
                static_cast<float>(i + 2 + round);
  }
  if (scenario.sends_nan == device) {
    values[3] = std::numeric_limits<float>::quiet_NaN();
  }
  Bytes bytes;
  for (const float value : values) AppendLe(bytes, value);
  UploadHeader header = world.Header(work, bytes);
  if (scenario.strategy_name == "fednova") header.scalars = {1024};
  return world.Send(device, header, bytes);
}

void PrintTo(const std::pair<const char*, Scenario>& named, std::ostream* out) {
  *out << named.first;
}

// What each device knows, and does on its own: it checks in, uploads and sends
// again until it has an answer.
struct Phone {
  std::optional<Assignment> work;
  World::Answer answer;
  std::shared_ptr<std::optional<Result<CheckInAnswer>>> check_in;
  World::Answer other;  // of the same update, sent to another replica, too
};

// All that a task leaves behind but times.
struct Outcome {
  std::vector<uint32_t> model;  // bits
  std::string end_reason;
  uint64_t committed = 0;
  uint64_t evaluated = 0;
  uint64_t rejected = 0;  // assignments of committed rounds
  std::vector<std::pair<uint64_t, double>> scores;  // version, accuracy
  std::optional<uint64_t> best;
  bool operator==(const Outcome&) const = default;
};

std::vector<uint32_t> Bits(const std::vector<float>& model) {
  std::vector<uint32_t> bits(model.size());
  for (size_t i = 0; i < model.size(); ++i) {
    std::memcpy(&bits[i], &model[i], sizeof(bits[i]));
  }
  return bits;
}

// Runs the task to its end with `count` coordinators. With faults, any of them
// may be killed and started again, or paused, also beyond its claim.
Outcome RunTask(const Scenario& scenario, int count, uint64_t seed,
                bool faults) {
  World world(Options(scenario, count > 1, seed));
  for (int i = 1; i < count; ++i) EXPECT_THAT(world.AddReplica(), IsOk());
  world.SetUpTask();
  SeededRandom random(seed * 7919 + 1);
  const auto draw = [&](size_t n) {
    return static_cast<size_t>(random.Next() % n);
  };
  std::vector<Phone> phones(kDevices);
  std::map<size_t, int> paused;  // turns left
  Outcome outcome;
  const auto settle = [&](Phone& phone) {
    for (World::Answer* answer : {&phone.answer, &phone.other}) {
      if (*answer == nullptr || !(*answer)->has_value()) continue;
      const Result<Receipt> result = ***answer;
      answer->reset();
      if (!result.ok() || !phone.work.has_value()) continue;
      EXPECT_EQ(result->status == ReceiptStatus::kRejected,
                scenario.sends_nan == &phone - phones.data())
          << result->message;
      if (phone.answer == nullptr && phone.other == nullptr) {
        phone.work.reset();
      }
    }
  };
  for (int turn = 0; turn < 20000; ++turn) {
    const auto task = world.store().GetTask("task");
    EXPECT_THAT(task, IsOk());
    if (!task.ok() || task->state != TaskState::kRunning) break;
    // A device talks to whichever answers.
    std::vector<size_t> up;
    for (size_t r = 0; r < world.replica_count(); ++r) {
      if (paused[r] == 0) up.push_back(r);
    }
    if (faults && count > 1 && draw(40) == 0 && up.size() > 1) {
      const size_t victim = up[draw(up.size())];
      if (draw(2) == 0) {
        EXPECT_THAT(world.RestartReplica(victim), IsOk());
      } else {
        paused[victim] = static_cast<int>(10 + draw(300));  // 1 s ... 31 s
      }
      // Who waited for it is answered nothing, or late.
      continue;
    }
    for (Phone& phone : phones) {
      const int device = static_cast<int>(&phone - phones.data());
      settle(phone);
      if (phone.check_in != nullptr && phone.check_in->has_value()) {
        const auto& answer = **phone.check_in;
        if (answer.ok()) {
          if (const auto* work = std::get_if<Assignment>(&answer->work)) {
            phone.work = *work;
          }
        }
        phone.check_in.reset();
      }
      if (draw(3) != 0) continue;
      world.Use(up[draw(up.size())]);
      if (phone.work.has_value()) {
        // Also when no answer came: that replica may never give one.
        if (phone.answer != nullptr && draw(8) != 0) continue;
        phone.answer = Contribute(world, scenario, device, *phone.work);
        if (draw(3) == 0) {
          world.Use(up[draw(up.size())]);
          phone.other = Contribute(world, scenario, device, *phone.work);
        }
      } else {
        if (phone.check_in != nullptr && draw(8) != 0) continue;
        phone.check_in = world.CheckIn(device);
      }
    }
    world.clock.Advance(std::chrono::milliseconds(100));
    for (size_t r = 0; r < world.replica_count(); ++r) {
      if (paused[r] > 0) {
        --paused[r];
        continue;
      }
      world.Use(r);
      world.coordinator().Poll();
    }
  }
  world.Use(0);
  const auto task = world.store().GetTask("task");
  EXPECT_THAT(task, IsOk());
  if (!task.ok()) return outcome;
  EXPECT_EQ(task->state, TaskState::kFinished);
  outcome.model = Bits(world.Model());
  outcome.end_reason = task->end_reason;
  outcome.committed = task->committed_rounds;
  outcome.evaluated = task->evaluated_rounds;
  for (uint64_t version = 1; version <= task->committed_rounds; ++version) {
    const auto info = world.coordinator().GetModelVersion("task", version);
    EXPECT_THAT(info, IsOk());
    if (info->metrics.empty()) continue;
    outcome.scores.emplace_back(version, info->metrics.front().mean);
  }
  if (const auto best = world.coordinator().GetBestModelVersion("task");
      best.ok()) {
    outcome.best = best->version;
  }
  // Funnel: every assignment of a committed round is in exactly one state.
  for (uint64_t number = 1; number <= task->committed_rounds; ++number) {
    const auto counts = world.store().CountAssignments({task->id, number});
    EXPECT_THAT(counts, IsOk());
    uint64_t sum = 0;
    for (const FunnelCount& count_of : *counts) {
      sum += count_of.count;
      if (count_of.state == AssignmentState::kRejected) {
        outcome.rejected += count_of.count;
      }
    }
    EXPECT_EQ(sum, world.store().ListAssignments({task->id, number})->size());
  }
  return outcome;
}

TEST(ReplicasTest, AnyDeviceToAnyReplica_ResultIsThatOfOneProcess) {
  const Scenario scenario{.one_hot = true};
  const Outcome single = RunTask(scenario, 1, 1, false);
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    EXPECT_EQ(RunTask(scenario, 3, seed, false), single);
  }
}

TEST(ReplicasTest, KilledAndPausedAtAnyMoment_NothingLostNothingTwice) {
  const Scenario scenario{.one_hot = true};
  const Outcome single = RunTask(scenario, 1, 1, false);
  // Every device, in every round, exactly once.
  EXPECT_EQ(single.model,
            Bits(std::vector<float>(kRounds * kDevices, 1.0f / kDevices)));
  for (uint64_t seed = 1; seed <= 100 * test::kSeedFactor; ++seed) {
    SCOPED_TRACE(seed);
    ASSERT_EQ(RunTask(scenario, 3, seed, true), single);
  }
}

// What a task keeps besides its model: an optimizer's moments, control
// variates, the updates of rules that compare them, scores and the best
// version, what was refused. A replica that takes over goes on with all of it.
class ReplicasScenarioTest
    : public ::testing::TestWithParam<std::pair<const char*, Scenario>> {};
INSTANTIATE_TEST_SUITE_P(
    Scenarios, ReplicasScenarioTest,
    ::testing::Values(
        std::pair{"Momentum",
                  Scenario{.strategy_name = "fedavgm",
                           .strategy = "min_updates: 6, nesterov: true"}},
        std::pair{
            "Adam",
            Scenario{.strategy_name = "fedadam",
                     .strategy = "min_updates: 6, server_learning_rate: 0.1"}},
        std::pair{"Median", Scenario{.strategy_name = "fedmedian"}},
        std::pair{"Krum", Scenario{.strategy_name = "multikrum",
                                   .strategy = "min_updates: 6, "
                                               "num_malicious_nodes: 1"}},
        std::pair{"GeometricMedian", Scenario{.strategy_name = "rfa"}},
        std::pair{
            "FedNova",
            Scenario{.strategy_name = "fednova",
                     .contributions = {plan::ContributionName::kFedNova}}},
        std::pair{"Scaffold",
                  Scenario{.strategy_name = "scaffold",
                           .strategy = "min_updates: 6, population_size: 8",
                           .contributions = {plan::ContributionName::kScaffold},
                           .update_extra = ""}},
        std::pair{"Evaluation", Scenario{.evaluate = "{every: 1}"}},
        std::pair{"StopsAtItsTarget",
                  Scenario{.evaluate = "{every: 1, stop_condition: "
                                       "accuracy >= 0.6}"}},
        std::pair{"OneIsAlwaysRejected", Scenario{.strategy = "min_updates: 5",
                                                  .sends_nan = 2,
                                                  .deadline = "5m"}}),
    [](const auto& param) { return param.param.first; });

TEST_P(ReplicasScenarioTest, KilledAndPaused_ResultIsThatOfOneProcess) {
  const Scenario& scenario = GetParam().second;
  const Outcome single = RunTask(scenario, 1, 1, false);
  EXPECT_THAT(single.end_reason,
              HasSubstr(scenario.evaluate.find("stop") == std::string::npos
                            ? "all 3 rounds are done"
                            : "target reached"));
  if (!scenario.evaluate.empty()) {
    EXPECT_EQ(single.evaluated, single.committed);
    EXPECT_EQ(single.scores.size(), single.committed);
    EXPECT_EQ(single.best, single.committed);
  }
  EXPECT_EQ(single.rejected,
            scenario.sends_nan.has_value() ? single.committed : 0);
  for (uint64_t seed = 1; seed <= 12 * test::kSeedFactor; ++seed) {
    SCOPED_TRACE(seed);
    ASSERT_EQ(RunTask(scenario, 3, seed, true), single);
  }
}

TEST(ReplicasTest, PausedHolder_WakesAfterItsClaim_ChangesNothing) {
  World world(Options(true, 1));
  ASSERT_THAT(world.AddReplica(), IsOk());
  world.SetUpTask();
  world.Turn();
  const uint64_t task = world.store().GetTask("task")->id;
  const RoundKey key{task, 1};
  const auto claim_before =
      world.store().ClaimTask(task, "nobody", std::chrono::milliseconds(1));
  ASSERT_THAT(claim_before, IsOk());
  const uint64_t epoch = world.store().GetRound(key)->epoch;
  // The first one sleeps; the second one goes on and finishes the round.
  world.Use(1);
  for (int i = 0;
       i < 400 && world.store().GetTask("task")->committed_rounds == 0; ++i) {
    for (int device = 0; device < kDevices; ++device) {
      if (const auto work = world.Assigned(device)) {
        world.SendOneHot(device, *work);
      }
    }
    world.Turn(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(world.store().GetTask("task")->committed_rounds, 1U);
  EXPECT_GT(world.store().GetRound(key)->epoch, epoch);
  const TaskRow before = *world.store().GetTask("task");
  const RoundKey open{task, 2};
  const std::string pulse = *world.store().RoundPulse(open);
  world.Use(0);
  for (int i = 0; i < 3; ++i) world.coordinator().Poll();
  EXPECT_EQ(world.store().GetTask("task")->revision, before.revision);
  EXPECT_EQ(*world.store().RoundPulse(open), pulse);
  EXPECT_NE(world.store()
                .ClaimTask(task, "nobody", std::chrono::milliseconds(1))
                ->holder,
            claim_before->holder);
}

// Runs something in the middle of the turn in which a round is closed.
class InTheClose final : public EventSink {
 public:
  void Write(LogLevel, std::string_view event,
             std::initializer_list<LogField> fields) override {
    if (event != "round_state") return;
    for (const LogField& field : fields) {
      if (field.key == "state" && field.value == "APPLYING" && run) {
        std::exchange(run, nullptr)();
      }
    }
  }
  std::function<void()> run;
};

// A large model takes longer to close than a claim lasts. The claim is renewed
// meanwhile; if it is not, as when all of the process hangs, another
// coordinator closes the round, and the one that comes back changes nothing.
TEST(ReplicasTest, CloseLongerThanTheClaim_IsKept_IfTheProcessLives) {
  for (const bool lives : {true, false}) {
    SCOPED_TRACE(lives);
    InTheClose in_the_close;
    WorldOptions options = Options(Scenario{.one_hot = true}, true, 1);
    options.events = &in_the_close;
    World world(std::move(options));
    ASSERT_THAT(world.AddReplica(), IsOk());
    world.SetUpTask();
    world.Turn();
    const uint64_t task = world.store().GetTask("task")->id;
    const RoundKey key{task, 1};
    const auto work = world.DrawRound();
    ASSERT_EQ(work.size(), size_t{kDevices});
    uint64_t epoch = 0;
    bool closed_by_the_other = false;
    in_the_close.run = [&] {
      epoch = world.store().GetRound(key)->epoch;
      for (int second = 0; second < 60; ++second) {
        world.Use(0);
        if (lives) world.coordinator().RenewClaims();
        world.Use(1);
        world.Turn(std::chrono::seconds(1));
      }
      world.Use(0);
      closed_by_the_other =
          world.store().GetRound(key)->state == RoundState::kCommitted;
    };
    for (const auto& [device, assignment] : work) {
      world.SendOneHot(device, assignment);
    }
    for (int turn = 0; turn < 20; ++turn) world.Turn();
    ASSERT_NE(epoch, 0U);
    EXPECT_EQ(closed_by_the_other, !lives);
    const auto round = world.store().GetRound(key);
    ASSERT_THAT(round, IsOk());
    EXPECT_EQ(round->state, RoundState::kCommitted);
    EXPECT_EQ(round->epoch == epoch, lives);
    EXPECT_EQ(world.store().GetTask("task")->committed_rounds, 1U);
    EXPECT_THAT(world.store().GetVersion(task, 2),
                test::StatusIs(StatusCode::kNotFound));
    const std::vector<float> model = world.Model();
    for (int device = 0; device < kDevices; ++device) {
      EXPECT_EQ(model[world.Coordinate(1, device)], 1.0f / kDevices);
    }
  }
}

TEST(ReplicasTest, Drain_HandsTheTaskOverAtOnce) {
  World world(Options(true, 1));
  ASSERT_THAT(world.AddReplica(), IsOk());
  world.SetUpTask();
  world.Turn();
  const uint64_t task = world.store().GetTask("task")->id;
  const auto holder = [&] {
    return world.store()
        .ClaimTask(task, "nobody", std::chrono::milliseconds(1))
        ->holder;
  };
  const std::string before = holder();
  EXPECT_NE(before, "nobody");
  world.coordinator().Drain();
  world.Turn();
  world.Use(1);
  world.Turn(std::chrono::milliseconds(300));
  EXPECT_NE(holder(), before);
  EXPECT_NE(holder(), "nobody");
}

TEST(ReplicasTest, TaskOfAnotherReplica_IsKnownAndStoppedEverywhere) {
  World world(Options(true, 1));
  ASSERT_THAT(world.AddReplica(), IsOk());
  world.SetUpTask();
  world.Turn();
  world.Use(1);
  std::optional<TaskState> seen;
  ASSERT_THAT(world.coordinator().WatchTask("task",
                                            [&](const TaskSnapshot& snapshot) {
                                              seen = snapshot.task.state;
                                            }),
              IsOk());
  world.Turn(std::chrono::seconds(1));
  EXPECT_EQ(seen, TaskState::kRunning);
  // A device that enrolled there is known here.
  const auto answer = world.CheckIn(0);
  world.Turn();
  ASSERT_TRUE(answer->has_value());
  EXPECT_THAT(**answer, IsOk());
  world.Use(0);
  ASSERT_THAT(world.coordinator().StopTask("task", "", ""), IsOk());
  world.Turn();
  world.Use(1);
  world.Turn(std::chrono::seconds(1));
  EXPECT_EQ(seen, TaskState::kStopped);
}

}  // namespace
}  // namespace selvage::coordinator
