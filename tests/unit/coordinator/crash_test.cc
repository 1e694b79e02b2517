// The one-hot oracle over power cuts: the machine dies at every k-th operation
// of the file system or the database, everything that was not synced is gone,
// and the service starts again. Whatever was acknowledged is counted exactly
// once; nothing is counted twice.
#include <set>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::milliseconds;

constexpr int kDevices = 4;
constexpr int kRounds = 2;

// A device that never gives up: it keeps its assignment and its update until a
// receipt is final, through any number of restarts of the service.
struct Device {
  std::optional<Assignment> work;
  World::Answer answer;  // of an upload under way
};

// What devices were told, round by round.
struct Acknowledged {
  std::map<uint64_t, std::set<int>> accepted;
};

class CrashRun {
 public:
  explicit CrashRun(uint64_t seed, bool held = false) {
    WorldOptions options;
    options.sqlite = true;
    options.devices = kDevices;
    options.rounds = kRounds;
    options.strategy =
        "cohort: 3, min_updates: 3, over_selection: 1.3, round_deadline: 60s, "
        "selection_window: 2s";
    if (held) {
      // Keeps every update by itself, and of these takes the mean of all.
      options.strategy_name = "multikrum";
      options.strategy += ", num_malicious_nodes: 0";
    }
    options.random_seed = seed;
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
    devices_.resize(kDevices);
  }
  World& world() { return *world_; }

  // One turn of everybody. Errors are part of the game.
  void Turn() {
    for (int i = 0; i < kDevices; ++i) Act(i);
    world_->Turn(milliseconds(300));
    for (int i = 0; i < kDevices; ++i) Hear(i);
  }
  bool Finished() {
    const auto task = world_->store().GetTask("task");
    return task.ok() && task->state == TaskState::kFinished;
  }
  // The power fails, with everything unanswered.
  void Crash(RandomSource* torn) {
    world_->Close();
    world_->files.ClearFaults();
    world_->vfs.ClearFaults();
    if (torn != nullptr) {
      world_->files.CrashTorn(*torn);
      world_->vfs.CrashTorn(*torn);
    } else {
      world_->files.Crash();
      world_->vfs.Crash();
    }
    for (int i = 0; i < kDevices; ++i) {
      Hear(i);  // the answers that still came out
      devices_[static_cast<size_t>(i)].answer = nullptr;
    }
    ASSERT_THAT(world_->Reopen(), IsOk());
  }
  void RunToTheEnd() {
    for (int turn = 0; turn < 2000 && !Finished(); ++turn) Turn();
    ASSERT_TRUE(Finished());
  }

  // I1 and I2, judged from outside.
  void CheckModel() {
    std::set<uint64_t> counted_rounds;
    for (uint64_t version = 1; version <= kRounds; ++version) {
      const auto info = world_->coordinator().GetModelVersion("task", version);
      ASSERT_THAT(info, IsOk());
      const auto round = world_->coordinator().GetRound("task", info->round);
      ASSERT_THAT(round, IsOk());
      ASSERT_EQ(round->state, RoundState::kCommitted);
      ASSERT_EQ(round->result_version, version);
      ASSERT_TRUE(counted_rounds.insert(info->round).second);
      const uint64_t n = round->funnel.accepted;
      ASSERT_GE(n, 3u);
      const float once = static_cast<float>(1.0 / static_cast<double>(n));
      const std::vector<float> model = world_->Model(version);
      uint64_t counted = 0;
      for (int i = 0; i < kDevices; ++i) {
        const float value = model[Coordinate(info->round, i)];
        ASSERT_TRUE(value == 0.0f || value == once)
            << "device " << i << " counted " << value / once << " times";
        if (value == once) ++counted;
        if (acknowledged_.accepted[info->round].contains(i)) {
          ASSERT_EQ(value, once) << "lost the update of device " << i;
        }
      }
      ASSERT_EQ(counted, n);
    }
  }

 private:
  // Rounds may be abandoned, so numbers grow beyond kRounds: fold them in.
  static uint64_t Slot(uint64_t round) { return (round - 1) % kRounds + 1; }
  size_t Coordinate(uint64_t round, int device) const {
    return world_->Coordinate(Slot(round), device);
  }

  void Act(int i) {
    Device& device = devices_[static_cast<size_t>(i)];
    if (device.answer != nullptr) return;
    if (!device.work.has_value()) {
      check_ins_[i] = world_->CheckIn(i);
      return;
    }
    const Bytes bytes = world_->OneHot(Slot(device.work->round), i);
    device.answer = world_->Send(i, world_->Header(*device.work, bytes), bytes);
  }
  void Hear(int i) {
    Device& device = devices_[static_cast<size_t>(i)];
    if (const auto it = check_ins_.find(i); it != check_ins_.end()) {
      const auto answer = it->second;
      if (answer->has_value() && (*answer)->ok()) {
        if (const auto* work = std::get_if<Assignment>(&(**answer)->work)) {
          device.work = *work;
        }
      }
      check_ins_.erase(it);
    }
    if (device.answer == nullptr || !device.answer->has_value()) return;
    const Result<Receipt> receipt = **device.answer;
    device.answer = nullptr;
    if (!receipt.ok()) return;  // again
    if (receipt->status == ReceiptStatus::kAccepted) {
      acknowledged_.accepted[device.work->round].insert(i);
    }
    ASSERT_NE(receipt->status, ReceiptStatus::kRejected) << receipt->message;
    device.work.reset();
  }

  std::unique_ptr<World> world_;
  std::vector<Device> devices_;
  std::map<int, std::shared_ptr<std::optional<Result<CheckInAnswer>>>>
      check_ins_;
  Acknowledged acknowledged_;
};

enum class Victim { kFiles, kDatabase };

// Runs until the k-th operation of the victim, cuts the power, goes on. False
// if the whole run needs fewer operations.
bool CrashAt(Victim victim, uint64_t k, bool torn, bool held) {
  SCOPED_TRACE("k=" + std::to_string(k));
  CrashRun run(1000 + k, held);
  World& world = run.world();
  const auto operations = [&] {
    return victim == Victim::kFiles ? world.files.operations()
                                    : world.vfs.operations();
  };
  const uint64_t last = operations() + k;
  // From the k-th operation on nothing works any more: the power is going.
  if (victim == Victim::kFiles) {
    world.files.FailAfter(k, StatusCode::kInternal);
  } else {
    world.vfs.FailAfter(k);
  }
  bool reached = false;
  for (int turn = 0; turn < 400 && !reached && !run.Finished(); ++turn) {
    run.Turn();
    reached = operations() > last;
  }
  SeededRandom random(k);
  run.Crash(torn ? &random : nullptr);
  if (::testing::Test::HasFatalFailure()) return false;
  run.RunToTheEnd();
  if (::testing::Test::HasFatalFailure()) return false;
  run.CheckModel();
  return reached && !::testing::Test::HasFatalFailure();
}

// Every `stride`-th operation, until a run finishes before the cut.
void Sweep(Victim victim, uint64_t stride, bool torn, bool held = false) {
  uint64_t cuts = 0;
  for (uint64_t k = 0; CrashAt(victim, k, torn, held); k += stride) ++cuts;
  EXPECT_FALSE(::testing::Test::HasFatalFailure());
  EXPECT_GT(cuts, 20u);
  ::testing::Test::RecordProperty("cuts", static_cast<int>(cuts));
}

TEST(CrashTest, PowerCut_AtEveryFileOperation_CountsAcknowledgedOnce) {
  Sweep(Victim::kFiles, 1, /*torn=*/false);
}

TEST(CrashTest, PowerCut_AtEveryFileOperation_Torn) {
  Sweep(Victim::kFiles, 2, /*torn=*/true);
}

TEST(CrashTest, PowerCut_AtDatabaseOperations_CountsAcknowledgedOnce) {
  Sweep(Victim::kDatabase, 3, /*torn=*/false);
}

TEST(CrashTest, PowerCut_AtDatabaseOperations_Torn) {
  Sweep(Victim::kDatabase, 5, /*torn=*/true);
}

TEST(CrashTest, PowerCut_HeldUpdates_AtFileOperations) {
  Sweep(Victim::kFiles, 1, /*torn=*/false, /*held=*/true);
}

TEST(CrashTest, PowerCut_HeldUpdates_AtDatabaseOperations_Torn) {
  Sweep(Victim::kDatabase, 7, /*torn=*/true, /*held=*/true);
}

TEST(CrashTest, PowerCutsAgainAndAgain_StillFinishes) {
  CrashRun run(5);
  SeededRandom random(99);
  for (int cut = 0; cut < 30; ++cut) {
    const int turns = static_cast<int>(UniformBelow(random, 4));
    for (int turn = 0; turn < turns && !run.Finished(); ++turn) run.Turn();
    run.Crash(&random);
    ASSERT_FALSE(HasFatalFailure());
  }
  run.RunToTheEnd();
  ASSERT_FALSE(HasFatalFailure());
  run.CheckModel();
}

TEST(CrashTest, SingleIoErrors_WithoutARestart_AreSurvived) {
  for (uint64_t k = 0; k < 60; ++k) {
    SCOPED_TRACE("k=" + std::to_string(k));
    CrashRun run(2000 + k);
    run.world().files.FailAfter(k, StatusCode::kInternal, 1);
    run.world().vfs.FailAfter(5 * k, 1);
    run.RunToTheEnd();
    ASSERT_FALSE(HasFatalFailure());
    run.world().files.ClearFaults();  // those that were not needed
    run.world().vfs.ClearFaults();
    run.CheckModel();
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST(CrashTest, DiskFull_NothingIsAcknowledged_UntilThereIsRoom) {
  CrashRun run(7);
  World& world = run.world();
  std::map<int, Assignment> assigned;
  for (int pass = 0; pass < 12 && assigned.size() < 4; ++pass) {
    world.Turn(milliseconds(300));
    for (const auto& [device, work] : world.DrawRound()) {
      assigned.insert_or_assign(device, work);
    }
  }
  ASSERT_EQ(assigned.size(), 4u);
  world.files.SetFreeBytes(0);
  const World::Answer full = world.SendOneHot(0, assigned.at(0));
  world.Turn();
  ASSERT_TRUE(full->has_value());
  EXPECT_THAT(**full, StatusIs(StatusCode::kUnavailable));
  world.files.SetFreeBytes(std::nullopt);
  world.vfs.SetFreeBytes(0);
  world.Turn(std::chrono::seconds(2));
  const World::Answer no_row = world.SendOneHot(0, assigned.at(0));
  if (!no_row->has_value()) world.Turn();
  ASSERT_TRUE(no_row->has_value());
  EXPECT_THAT(**no_row, StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(world.store().GetRound({1, 1})->bytes_up, 0u);

  world.vfs.SetFreeBytes(std::nullopt);
  world.Turn(std::chrono::seconds(2));
  run.RunToTheEnd();

  ASSERT_FALSE(HasFatalFailure());
  run.CheckModel();
}

TEST(CrashTest, DatabaseAndBlobs_ShowNoSumAndNoKeyOnceARoundHasEnded) {
  CrashRun run(8);
  World& world = run.world();
  run.RunToTheEnd();

  EXPECT_TRUE(world.blobs().ListSealed()->empty());
  for (uint64_t number = 1; number <= kRounds; ++number) {
    const auto round = world.store().GetRound({1, number});
    ASSERT_THAT(round, IsOk());
    EXPECT_EQ(round->wrapped_key, Bytes(round->wrapped_key.size(), 0));
  }
}

}  // namespace
}  // namespace selvage::coordinator::test
