// Asynchronous tasks (FedBuff): buffers instead of rounds, updates of different
// ages, assignments that outlive versions; through the two APIs on virtual
// time.
#include <array>
#include <cmath>
#include <set>

#include <gmock/gmock.h>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

std::string Strategy(int cohort, int concurrency, int max_staleness) {
  return "cohort: " + std::to_string(cohort) +
         ", round_deadline: 10m, asynchronous: {concurrency: " +
         std::to_string(concurrency) +
         ", max_staleness: " + std::to_string(max_staleness) + "}";
}

WorldOptions Options(const std::string& strategy) {
  WorldOptions options;
  options.devices = 5;
  options.rounds = 6;
  options.strategy = strategy;
  // So an update weighs nothing but its staleness.
  options.update_extra = ", weight_cap: 1";
  return options;
}

// What an update that is `staleness` versions old weighs beside a new one.
double Weight(uint64_t staleness) {
  return std::round(65535 / std::sqrt(1.0 + static_cast<double>(staleness)));
}

class AsynchronousRoundTest : public ::testing::TestWithParam<bool> {
 protected:
  World& Start(WorldOptions options) {
    options.sqlite = GetParam();
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
    world_->Turn();
    return *world_;
  }
  World& Start(const std::string& strategy) { return Start(Options(strategy)); }
  TaskInfo Task() { return *world_->coordinator().GetTask("task"); }
  // The model's coordinate of a device's update for an assignment of `round`.
  float At(uint64_t round, int device,
           std::optional<uint64_t> version = std::nullopt) {
    return world_->Model(version).at(world_->Coordinate(round, device));
  }
  OutcomeState OutcomeOf(int device, const Assignment& work) {
    CheckInRequest request = world_->Request();
    request.unsettled_assignments = {work.id};
    const auto answer = world_->CheckIn(device, std::move(request));
    if (!answer->has_value()) world_->coordinator().Poll();
    EXPECT_TRUE(answer->has_value() && (*answer)->ok());
    return (**answer)->outcomes.at(0).state;
  }

  std::unique_ptr<World> world_;
};
INSTANTIATE_TEST_SUITE_P(Stores, AsynchronousRoundTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(AsynchronousRoundTest, EveryKUpdates_AreAVersion_AndOldOnesWeighLess) {
  World& world = Start(Strategy(2, 3, 5));
  const auto first = world.Assigned(0);
  const auto second = world.Assigned(1);
  const auto slow = world.Assigned(2);
  ASSERT_TRUE(first && second && slow);
  EXPECT_EQ(slow->base_version, 0u);
  EXPECT_EQ(world.Upload(0, *first).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(1, *second).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 1u);
  EXPECT_FLOAT_EQ(At(1, 0), 0.5f);
  EXPECT_FLOAT_EQ(At(1, 1), 0.5f);
  EXPECT_EQ(At(1, 2), 0.0f);

  const auto again = world.Assigned(0);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->base_version, 1u);
  EXPECT_EQ(world.Upload(0, *again).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(2, *slow).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 2u);
  const double sum = Weight(0) + Weight(1);
  EXPECT_NEAR(At(2, 0), Weight(0) / sum, 1e-7);
  EXPECT_NEAR(At(1, 2), Weight(1) / sum, 1e-7);
  EXPECT_FLOAT_EQ(At(1, 0), 0.5f);
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.accepted, 2u);
  EXPECT_EQ(world.coordinator().GetRound("task", 2)->funnel.accepted, 2u);
}

TEST_P(AsynchronousRoundTest, ExamplesCountBesideStaleness) {
  WorldOptions options = Options(Strategy(2, 3, 5));
  options.update_extra = ", weight_cap: 100";
  World& world = Start(std::move(options));
  const auto heavy = world.Assigned(0);
  const auto light = world.Assigned(1);
  ASSERT_TRUE(heavy && light);
  const auto send = [&](int device, const Assignment& work, uint32_t weight) {
    const Bytes bytes = world.OneHot(work.round, device);
    UploadHeader header = world.Header(work, bytes);
    header.weight = weight;
    const World::Answer answer = world.Send(device, header, bytes);
    if (!answer->has_value()) world.coordinator().Poll();
    return ***answer;
  };
  EXPECT_EQ(send(0, *heavy, 90).status, ReceiptStatus::kAccepted);
  // Stronger than the cap allows: it would outweigh what it must not.
  const Receipt refused = send(1, *light, 101);
  EXPECT_EQ(refused.reason, RejectReason::kBadWeight);
  EXPECT_THAT(refused.message, HasSubstr("the bounds are 1 and 100"));
  const auto other = world.Assigned(2);
  ASSERT_TRUE(other);
  EXPECT_EQ(send(2, *other, 30).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_NEAR(At(1, 0), 0.75, 1e-5);
  EXPECT_NEAR(At(1, 2), 0.25, 1e-5);
}

TEST_P(AsynchronousRoundTest, StalerThanTheTaskAllows_IsLate_AndLeavesItsSlot) {
  World& world = Start(Strategy(1, 2, 1));
  const auto slow = world.Assigned(4);
  ASSERT_TRUE(slow);
  for (uint64_t version = 1; version <= 2; ++version) {
    const auto work = world.Assigned(0);
    ASSERT_TRUE(work);
    EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
    world.Turn();
    EXPECT_EQ(Task().latest_version, version);
  }
  EXPECT_EQ(world.Upload(4, *slow).status, ReceiptStatus::kLate);
  EXPECT_EQ(world.Upload(4, *slow).status, ReceiptStatus::kLate);
  EXPECT_EQ(At(1, 4), 0.0f);
  // Both slots are free for what is new.
  EXPECT_TRUE(world.Assigned(1));
  const auto fresh = world.Assigned(4);
  ASSERT_TRUE(fresh);
  EXPECT_NE(fresh->id, slow->id);
  EXPECT_EQ(fresh->base_version, 2u);
}

TEST_P(AsynchronousRoundTest, Concurrency_BoundsWhoIsAtWork_AcrossVersions) {
  World& world = Start(Strategy(1, 2, 5));
  const auto first = world.Assigned(0);
  ASSERT_TRUE(first);
  ASSERT_TRUE(world.Assigned(1));
  EXPECT_FALSE(world.Assigned(2));
  EXPECT_EQ(world.Upload(0, *first).status, ReceiptStatus::kAccepted);
  world.Turn();
  // Device 1 still is; one slot is free.
  EXPECT_TRUE(world.Assigned(2));
  EXPECT_FALSE(world.Assigned(3));
}

TEST_P(AsynchronousRoundTest, OneUpdateOfADevice_InAVersion) {
  World& world = Start(Strategy(2, 3, 5));
  const auto work = world.Assigned(0);
  ASSERT_TRUE(work);
  EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
  EXPECT_FALSE(world.Assigned(0));
  const Receipt again = world.Upload(0, *work);
  EXPECT_EQ(again.status, ReceiptStatus::kAccepted);
  EXPECT_TRUE(again.repeated);
  EXPECT_EQ(Task().latest_version, 0u);
}

TEST_P(AsynchronousRoundTest, RepeatAfterTheNextVersion_IsTheSameReceipt) {
  World& world = Start(Strategy(1, 3, 5));
  const auto work = world.Assigned(0);
  const auto slow = world.Assigned(1);
  ASSERT_TRUE(work && slow);
  EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(world.Upload(1, *slow).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 2u);
  const Receipt again = world.Upload(1, *slow);
  EXPECT_EQ(again.status, ReceiptStatus::kAccepted);
  EXPECT_TRUE(again.repeated);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 2u);
  EXPECT_FLOAT_EQ(At(1, 1), 1.0f);
}

TEST_P(AsynchronousRoundTest, LostAnswer_TheSameAssignment_OfTheOldVersion) {
  World& world = Start(Strategy(1, 3, 5));
  const auto work = world.Assigned(0);
  const auto slow = world.Assigned(1);
  ASSERT_TRUE(work && slow);
  EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
  world.Turn();
  const auto again = world.Assigned(1);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->id, slow->id);
  EXPECT_EQ(again->round, slow->round);
  EXPECT_EQ(again->seed, slow->seed);
  EXPECT_EQ(again->base_version, 0u);
  EXPECT_EQ(again->checkpoint_digest, slow->checkpoint_digest);
}

TEST_P(AsynchronousRoundTest, Restart_KeepsWhoIsAtWork) {
  World& world = Start(Strategy(2, 3, 5));
  const auto first = world.Assigned(0);
  const auto second = world.Assigned(1);
  const auto slow = world.Assigned(2);
  ASSERT_TRUE(first && second && slow);
  EXPECT_EQ(world.Upload(0, *first).status, ReceiptStatus::kAccepted);
  ASSERT_THAT(world.Reopen(), IsOk());
  EXPECT_EQ(world.Upload(1, *second).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 1u);
  ASSERT_THAT(world.Reopen(), IsOk());
  world.Turn();
  ASSERT_TRUE(world.Assigned(3));
  const auto last = world.Assigned(4);
  ASSERT_TRUE(last);
  EXPECT_FALSE(world.Assigned(0));
  EXPECT_EQ(world.Upload(2, *slow).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(4, *last).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 2u);
  const double sum = Weight(0) + Weight(1);
  EXPECT_NEAR(At(1, 2), Weight(1) / sum, 1e-7);
  EXPECT_NEAR(At(2, 4), Weight(0) / sum, 1e-7);
}

TEST_P(AsynchronousRoundTest, VersionMadeDuringAnUpload_ItCountsInTheNext) {
  World& world = Start(Strategy(1, 3, 5));
  const auto work = world.Assigned(0);
  const auto slow = world.Assigned(1);
  ASSERT_TRUE(work && slow);
  const Bytes bytes = world.OneHot(1, 1);
  const auto begun = world.Begin(1, world.Header(*slow, bytes));
  ASSERT_THAT(begun, IsOk());
  const UploadTicket ticket = std::get<UploadTicket>(*begun);
  EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 1u);
  // Longer than its lease: a stream that is there is not given up.
  world.Turn(minutes(6));
  ASSERT_THAT(world.coordinator().AppendUpload(ticket.upload_id, bytes),
              IsOk());
  std::optional<Result<Receipt>> receipt;
  world.coordinator().FinishUpload(
      ticket.upload_id,
      [&](Result<Receipt> result) { receipt = std::move(result); });
  world.coordinator().Poll();
  ASSERT_TRUE(receipt.has_value());
  ASSERT_THAT(*receipt, IsOk());
  EXPECT_EQ((*receipt)->status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 2u);
  EXPECT_FLOAT_EQ(At(1, 1), 1.0f);
}

TEST_P(AsynchronousRoundTest, Outcome_IsThatOfTheVersionItCountsIn) {
  World& world = Start(Strategy(2, 3, 5));
  const auto first = world.Assigned(0);
  const auto second = world.Assigned(1);
  const auto slow = world.Assigned(2);
  ASSERT_TRUE(first && second && slow);
  EXPECT_EQ(world.Upload(0, *first).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(1, *second).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(OutcomeOf(0, *first), OutcomeState::kCommitted);
  EXPECT_EQ(world.Upload(2, *slow).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(OutcomeOf(2, *slow), OutcomeState::kPending);
  ASSERT_THAT(world.coordinator().StopTask("task", "enough", ""), IsOk());
  world.Turn();
  EXPECT_EQ(OutcomeOf(0, *first), OutcomeState::kCommitted);
  EXPECT_EQ(OutcomeOf(2, *slow), OutcomeState::kAbandoned);
}

TEST_P(AsynchronousRoundTest, VanishedDevice_FreesItsSlot_AndMayStillCount) {
  World& world = Start(Strategy(2, 1, 5));
  const auto lost = world.Assigned(0);
  ASSERT_TRUE(lost);
  EXPECT_FALSE(world.Assigned(1));
  world.Turn(minutes(5) + seconds(1));
  world.Turn();
  const auto work = world.Assigned(1);
  ASSERT_TRUE(work);
  EXPECT_EQ(world.Upload(0, *lost).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(1, *work).status, ReceiptStatus::kAccepted);
  world.Turn();
  EXPECT_EQ(Task().latest_version, 1u);
  EXPECT_FLOAT_EQ(At(1, 0), 0.5f);
}

TEST_P(AsynchronousRoundTest, TooFewUntilTheDeadline_WhoIsAtWorkGoesOn) {
  World& world = Start(Strategy(2, 3, 5));
  const auto first = world.Assigned(0);
  ASSERT_TRUE(first);
  EXPECT_EQ(world.Upload(0, *first).status, ReceiptStatus::kAccepted);
  world.Turn(minutes(9));
  const auto slow = world.Assigned(1);
  ASSERT_TRUE(slow);
  world.Turn(minutes(1) + seconds(1));
  world.Turn();
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kAbandoned);
  EXPECT_EQ(world.Upload(1, *slow).status, ReceiptStatus::kAccepted);
  const auto other = world.Assigned(0);
  ASSERT_TRUE(other);
  EXPECT_EQ(world.Upload(0, *other).status, ReceiptStatus::kAccepted);
  world.Turn();
  // No version came in between: it is not stale.
  EXPECT_FLOAT_EQ(At(1, 1), 0.5f);
  EXPECT_FLOAT_EQ(At(2, 0), 0.5f);
  EXPECT_EQ(At(1, 0), 0.0f);
}

TEST_P(AsynchronousRoundTest, DeviceThatGivesUp_FreesItsSlotInTheNextVersion) {
  World& world = Start(Strategy(1, 2, 5));
  const auto work = world.Assigned(0);
  const auto slow = world.Assigned(1);
  ASSERT_TRUE(work && slow);
  EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
  world.Turn();
  ASSERT_TRUE(world.Assigned(2));
  EXPECT_FALSE(world.Assigned(3));
  ASSERT_THAT(
      world.coordinator().Abandon(world.Device(1), slow->id, slow->token.span(),
                                  AbandonReason::kInterrupted, ""),
      IsOk());
  world.Turn();
  EXPECT_TRUE(world.Assigned(3));
  EXPECT_EQ(world.Upload(1, *slow).reason, RejectReason::kWithdrawn);
}

TEST_P(AsynchronousRoundTest, ServerOptimizer_SeesEveryVersion) {
  WorldOptions options = Options(Strategy(1, 2, 5) +
                                 ", server_learning_rate: 1.0, "
                                 "server_momentum: 0.5");
  options.strategy_name = "fedavgm";
  World& world = Start(std::move(options));
  for (int i = 0; i < 3; ++i) {
    const auto work = world.Assigned(i);
    ASSERT_TRUE(work);
    EXPECT_EQ(world.Upload(i, *work).status, ReceiptStatus::kAccepted);
    world.Turn();
  }
  EXPECT_FLOAT_EQ(At(1, 0), 1.75f);
  EXPECT_FLOAT_EQ(At(2, 1), 1.5f);
  EXPECT_FLOAT_EQ(At(3, 2), 1.0f);
}

// What was told of assignments, as the metrics add it up.
class Funnel final : public Telemetry {
 public:
  void AssignmentsIssued(const TaskLabel&, uint64_t count) override {
    issued += count;
  }
  void RoundEnded(const TaskLabel&, const RoundEnd& end) override {
    for (size_t i = 0; i < end.assignments.size(); ++i) {
      ended[i] += end.assignments[i];
    }
  }
  void RoundIs(const TaskLabel&, const RoundView& view) override {
    open = view.assignments;
  }
  uint64_t Ended() const {
    uint64_t sum = 0;
    for (const uint64_t count : ended) sum += count;
    return sum;
  }
  uint64_t Ended(AssignmentEnd end) const {
    return ended[static_cast<size_t>(end)];
  }

  uint64_t issued = 0;
  uint64_t open = 0;
  std::array<uint64_t, kAssignmentEndCount> ended{};
};

TEST_P(AsynchronousRoundTest, Funnel_AddsUp_AcrossVersions) {
  Funnel funnel;
  WorldOptions options = Options(Strategy(1, 3, 1));
  options.telemetry = &funnel;
  World& world = Start(std::move(options));
  const auto slow = world.Assigned(1);
  ASSERT_TRUE(slow);
  for (int i = 0; i < 3; ++i) {
    const auto work = world.Assigned(0);
    ASSERT_TRUE(work);
    EXPECT_EQ(world.Upload(0, *work).status, ReceiptStatus::kAccepted);
    world.Turn();
    EXPECT_EQ(funnel.issued, funnel.Ended() + funnel.open) << i;
  }
  ASSERT_TRUE(world.Assigned(2));
  world.Turn();
  EXPECT_EQ(funnel.issued, 5u);
  EXPECT_EQ(funnel.open, 1u);
  EXPECT_EQ(funnel.Ended(AssignmentEnd::kAccepted), 3u);
  // Too stale after the second version, and never heard of.
  EXPECT_EQ(funnel.Ended(AssignmentEnd::kUnfinished), 1u);
  ASSERT_THAT(world.coordinator().StopTask("task", "enough", ""), IsOk());
  world.Turn();
  EXPECT_EQ(funnel.issued, funnel.Ended());
}

// ------------------------------------------------------- several coordinators

// Devices of different speeds at any of `count` coordinators, which may be
// killed, restarted and paused. Judged from the versions' differences.
void RunFleet(int count, uint64_t seed, bool faults) {
  constexpr int kDevices = 6;
  constexpr int kVersions = 8;
  WorldOptions options = Options(Strategy(3, 5, 4));
  options.devices = kDevices;
  options.rounds = kVersions;
  options.random_seed = seed;
  options.options.replicas.shared = count > 1;
  World world(std::move(options));
  for (int i = 1; i < count; ++i) EXPECT_THAT(world.AddReplica(), IsOk());
  world.SetUpTask();
  SeededRandom random(seed * 7919 + 3);
  const auto draw = [&](size_t n) {
    return static_cast<size_t>(random.Next() % n);
  };
  struct Phone {
    std::shared_ptr<std::optional<Result<CheckInAnswer>>> check_in;
    std::optional<Assignment> work;
    World::Answer answer;
    World::Answer other;
  };
  std::vector<Phone> phones(kDevices);
  std::vector<int> paused(static_cast<size_t>(count));
  std::set<size_t> accepted;  // coordinates
  const auto settle = [&](int device, Phone& phone) {
    for (World::Answer* answer : {&phone.answer, &phone.other}) {
      if (*answer == nullptr || !(*answer)->has_value()) continue;
      const Result<Receipt> result = ***answer;
      answer->reset();
      if (!result.ok() || !phone.work.has_value()) continue;
      EXPECT_NE(result->status, ReceiptStatus::kRejected) << result->message;
      if (result->status == ReceiptStatus::kAccepted) {
        accepted.insert(world.Coordinate(phone.work->round, device));
      }
      if (phone.answer == nullptr && phone.other == nullptr) {
        phone.work.reset();
      }
    }
  };
  uint64_t versions = 0;
  for (int turn = 0; turn < 20000; ++turn) {
    const auto task = world.store().GetTask("task");
    ASSERT_THAT(task, IsOk());
    versions = task->latest_version;
    if (task->state != TaskState::kRunning) break;
    std::vector<size_t> up;
    for (size_t r = 0; r < world.replica_count(); ++r) {
      if (paused[r] == 0) up.push_back(r);
    }
    if (faults && draw(40) == 0) {
      const size_t victim = up[draw(up.size())];
      if (draw(2) == 0 || up.size() == 1) {
        ASSERT_THAT(world.RestartReplica(victim), IsOk());
      } else {
        paused[victim] = static_cast<int>(10 + draw(300));
      }
      continue;
    }
    for (int device = 0; device < kDevices; ++device) {
      Phone& phone = phones[static_cast<size_t>(device)];
      settle(device, phone);
      if (phone.check_in != nullptr && phone.check_in->has_value()) {
        const auto& answer = **phone.check_in;
        if (answer.ok()) {
          if (const auto* work = std::get_if<Assignment>(&answer->work)) {
            phone.work = *work;
          }
        }
        phone.check_in.reset();
      }
      // The slowest is some twenty times slower than the fastest.
      if (draw(static_cast<size_t>(2 + 8 * device)) != 0) continue;
      world.Use(up[draw(up.size())]);
      if (phone.work.has_value()) {
        if (phone.answer != nullptr && draw(3) != 0) continue;
        phone.answer = world.SendOneHot(device, *phone.work);
        if (draw(3) == 0) {
          world.Use(up[draw(up.size())]);
          phone.other = world.SendOneHot(device, *phone.work);
        }
      } else {
        if (phone.check_in != nullptr && draw(3) != 0) continue;
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
  ASSERT_EQ(versions, static_cast<uint64_t>(kVersions));

  // A coordinate's round is that of the assignment. None was abandoned, so its
  // base version is one less.
  const uint64_t task = world.store().GetTask("task")->id;
  std::vector<float> before = world.Model(0);
  std::set<size_t> counted;
  size_t stale = 0;
  for (uint64_t version = 1; version <= versions; ++version) {
    SCOPED_TRACE("version " + std::to_string(version));
    EXPECT_EQ(world.store().GetRound({task, version})->state,
              RoundState::kCommitted);
    const std::vector<float> after = world.Model(version);
    std::map<size_t, double> weights;
    double sum = 0;
    for (size_t i = 0; i < after.size(); ++i) {
      if (after[i] == before[i]) continue;
      EXPECT_TRUE(counted.insert(i).second) << "counted twice: " << i;
      const uint64_t base = i / kDevices;
      ASSERT_LE(base, version - 1);
      const uint64_t staleness = version - 1 - base;
      EXPECT_LE(staleness, 4u);
      stale += staleness > 0 ? 1 : 0;
      sum += weights[i] = Weight(staleness);
    }
    EXPECT_GE(weights.size(), 3u);
    for (const auto& [i, weight] : weights) {
      EXPECT_NEAR(after[i] - before[i], weight / sum, 1e-6);
    }
    before = after;
  }
  EXPECT_GT(stale, 0u);
  for (const size_t i : accepted) {
    // What was acknowledged and is in no version was of the last buffer.
    const uint64_t round = i / kDevices + 1;
    EXPECT_TRUE(counted.contains(i) || round + 4 >= versions) << i;
  }
  size_t in_store = 0;
  for (uint64_t number = 1; number <= versions; ++number) {
    const auto rows = world.store().ListAssignments({task, number});
    ASSERT_THAT(rows, IsOk());
    for (const AssignmentRecord& row : *rows) {
      in_store += row.assignment.state == AssignmentState::kAccepted ? 1 : 0;
    }
  }
  EXPECT_EQ(in_store, counted.size());
}

TEST(AsynchronousReplicasTest, OneCoordinator_KilledAtAnyMoment) {
  for (uint64_t seed = 1; seed <= 50 * kSeedFactor; ++seed) {
    SCOPED_TRACE(seed);
    RunFleet(1, seed, true);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(AsynchronousReplicasTest, AnyDeviceToAnyReplica_KilledAndPaused) {
  for (uint64_t seed = 1; seed <= 50 * kSeedFactor; ++seed) {
    SCOPED_TRACE(seed);
    RunFleet(3, seed, true);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace selvage::coordinator::test
