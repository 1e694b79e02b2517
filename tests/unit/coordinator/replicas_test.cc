// Several coordinators over one store and one blob store, on virtual time.
#include <cstring>
#include <map>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator {
namespace {

using test::IsOk;
using test::World;
using test::WorldOptions;

constexpr int kDevices = 6;
constexpr int kRounds = 3;

WorldOptions Options(bool shared, uint64_t seed) {
  WorldOptions options;
  options.devices = kDevices;
  options.rounds = kRounds;
  options.random_seed = seed;
  // Everybody takes part in every round, whatever happens: so the result is a
  // function of the seed alone.
  options.strategy =
      "cohort: 6, over_selection: 1.0, min_updates: 6, "
      "round_deadline: 2h";
  options.options.replicas.shared = shared;
  return options;
}

// What each device knows, and does on its own: it checks in, uploads and sends
// again until it has an answer.
struct Phone {
  std::optional<Assignment> work;
  World::Answer answer;
  std::shared_ptr<std::optional<Result<CheckInAnswer>>> check_in;
  World::Answer other;  // of the same update, sent to another replica, too
};

struct Outcome {
  std::vector<float> model;
};

// Runs the task to its end with `count` coordinators. With faults, any of them
// may be killed and started again, or paused, also beyond its claim.
Outcome RunTask(int count, uint64_t seed, bool faults) {
  World world(Options(count > 1, seed));
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
      EXPECT_NE(result->status, ReceiptStatus::kRejected) << result->message;
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
        phone.answer = world.SendOneHot(device, *phone.work);
        if (draw(3) == 0) {
          world.Use(up[draw(up.size())]);
          phone.other = world.SendOneHot(device, *phone.work);
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
  outcome.model = world.Model();
  // Funnel: every assignment of a committed round is in exactly one state.
  for (uint64_t number = 1; number <= task->committed_rounds; ++number) {
    const auto counts = world.store().CountAssignments({task->id, number});
    EXPECT_THAT(counts, IsOk());
    uint64_t sum = 0;
    for (const FunnelCount& count_of : *counts) sum += count_of.count;
    EXPECT_EQ(sum, world.store().ListAssignments({task->id, number})->size());
  }
  return outcome;
}

std::vector<uint32_t> Bits(const std::vector<float>& model) {
  std::vector<uint32_t> bits(model.size());
  for (size_t i = 0; i < model.size(); ++i) {
    std::memcpy(&bits[i], &model[i], sizeof(bits[i]));
  }
  return bits;
}

TEST(ReplicasTest, AnyDeviceToAnyReplica_ResultIsThatOfOneProcess) {
  const Outcome single = RunTask(1, 1, false);
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    EXPECT_EQ(Bits(RunTask(3, seed, false).model), Bits(single.model));
  }
}

TEST(ReplicasTest, KilledAndPausedAtAnyMoment_NothingLostNothingTwice) {
  const Outcome single = RunTask(1, 1, false);
  // Every device, in every round, exactly once.
  for (const float value : single.model) EXPECT_EQ(value, 1.0f / kDevices);
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    const Outcome shared = RunTask(3, seed, true);
    ASSERT_EQ(Bits(shared.model), Bits(single.model));
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
