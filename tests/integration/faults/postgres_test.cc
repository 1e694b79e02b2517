// The shipped coordinator on PostgreSQL, from `migrate` to the last round, with
// the coordinator and then the server killed in the middle: the model is the
// same to the bit as that of an undisturbed coordinator on SQLite.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/faults/harness.h"
#include "tests/testing/postgres_server.h"

namespace selvage::test {
namespace {

constexpr size_t kDevices = 6;
constexpr size_t kElements = 33;
constexpr uint64_t kRounds = 2;
constexpr char kTask[] = "one-hot";
constexpr char kTaskFile[] = R"(
name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 2, cohort: 6, min_updates: 6, over_selection: 1, round_deadline: 10m}
update: {codec: float32, weight_cap: 1}
)";

// Values whose sums round.
Bytes AwkwardUpdate(size_t device, uint64_t round) {
  Bytes bytes;
  for (size_t i = 0; i < kElements; ++i) {
    AppendLe(bytes, 0.1F * static_cast<float>(device + 1) /
                        static_cast<float>(i + 2 + round));
  }
  return bytes;
}

class PostgresFaultsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto missing = PostgresServer::Missing()) {
      GTEST_SKIP() << *missing;
    }
    root_ = FreshDirectory();
  }
  void TearDown() override {
    if (!root_.empty()) std::filesystem::remove_all(root_);
  }

  void StartDatabase() {
    postgres_ = Take(PostgresServer::Start(), "initdb");
    ASSERT_TRUE(postgres_->CreateDatabase("fleet", "template0").ok());
    UseDatabase("fleet");
  }

  void UseDatabase(const std::string& database) {
    flags_ = {"--store-postgres", postgres_->Address(database),
              "--pace-retry-min", "10ms",
              "--pace-retry-max", "50ms"};
  }

  void StartCoordinator(const Path& data_dir) {
    server_ = nullptr;  // the lock of the data directory
    server_ = std::make_unique<CoordinatorUnderTest>(
        data_dir, CoordinatorUnderTest::Options{.binary = {}, .flags = flags_});
    ASSERT_TRUE(server_->serving()) << server_->process().output();
  }

  void Connect() {
    devices_.clear();
    for (const DeviceCredentials& credentials : credentials_) {
      devices_.push_back(std::make_unique<RawDevice>(*server_, credentials));
    }
  }

  // A device as devices are: asks until it has an assignment of this round and
  // sends until it has a receipt.
  void TakePart(size_t device, uint64_t round) {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      const auto work = devices_[device]->CheckIn();
      if (work.ok() && work->has_assignment() &&
          work->assignment().round() == round) {
        const Bytes update = AwkwardUpdate(device, round);
        const auto answer = devices_[device]->Upload(
            OneHotHeader(work->assignment(), update), update);
        if (answer.receipt.has_value()) {
          ASSERT_EQ(answer.receipt->status(), v1::Receipt::ACCEPTED)
              << answer.receipt->ShortDebugString();
          ++accepted_;
          return;
        }
      }
      // The round needs all of them: those that wait for it ask again, too.
      for (const auto& waiting : devices_) {
        static_cast<void>(waiting->CheckIn());
      }
      ASSERT_FALSE(server_->process()
                       .WaitForExit(std::chrono::milliseconds(20))
                       .has_value())
          << server_->process().output();
    }
    FAIL() << "no receipt\n" << server_->process().output();
  }

  // Both rounds; `disturb` comes before each device's turn.
  plan::Checkpoint RunTask(const Path& data_dir,
                           const std::function<void()>& disturb) {
    accepted_ = 0;
    credentials_.clear();
    StartCoordinator(data_dir);
    EXPECT_TRUE(server_->CreatePopulation().ok());
    const std::string bundle = Take(server_->CreateBundle(kDevices));
    for (size_t i = 0; i < kDevices; ++i) {
      credentials_.push_back(
          Take(EnrolDevice(*server_, bundle, "device-" + std::to_string(i)),
               "enrol"));
    }
    Connect();
    const plan::Program program = OneHotProgram(kElements);
    EXPECT_TRUE(server_->CreateTask(kTaskFile, program).ok());
    for (uint64_t round = 1; round <= kRounds; ++round) {
      for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) {
        disturb();
        TakePart(i, round);
      }
    }
    if (HasFatalFailure()) return {};
    EXPECT_TRUE(server_->WatchUntilEnded(kTask).ok());
    const auto rounds = Take(server_->ListRounds(kTask));
    EXPECT_EQ(rounds.size(), kRounds);
    for (const v1::Round& round : rounds) {
      EXPECT_EQ(round.state(), v1::Round::COMMITTED);
      EXPECT_EQ(round.funnel().accepted(), kDevices);
    }
    plan::Checkpoint model = Take(server_->LatestModel(kTask, program.table));
    EXPECT_EQ(server_->process().Stop(SIGTERM), 0);
    return model;
  }

  Path root_;
  std::vector<std::string> flags_;
  std::unique_ptr<PostgresServer> postgres_;
  std::unique_ptr<CoordinatorUnderTest> server_;
  std::vector<DeviceCredentials> credentials_;
  std::vector<std::unique_ptr<RawDevice>> devices_;
  size_t accepted_ = 0;
};

TEST_F(PostgresFaultsTest, KilledInTheMiddle_TheModelIsThatOfSqlite) {
  const plan::Checkpoint wanted = RunTask(root_ / "sqlite", [] {});
  ASSERT_FALSE(HasFailure());
  StartDatabase();
  // Without `migrate` it does not start, and says why.
  {
    CoordinatorUnderTest refused(
        root_ / "refused",
        CoordinatorUnderTest::Options{.binary = {}, .flags = flags_});
    EXPECT_FALSE(refused.serving());
    EXPECT_EQ(refused.process().WaitForExit(), 6);
  }
  flags_.push_back("--store-migrate");

  std::set<size_t> done;
  const plan::Checkpoint model = RunTask(root_ / "postgres", [&] {
    if (accepted_ % kDevices != kDevices / 2 ||
        !done.insert(accepted_).second) {
      return;
    }
    if (accepted_ < kDevices) {
      server_->process().Stop(SIGKILL);
      StartCoordinator(root_ / "postgres");
      Connect();
    } else {
      ASSERT_TRUE(postgres_->KillAndRestart().ok());
    }
  });

  EXPECT_EQ(done.size(), 2U);
  EXPECT_EQ(model, wanted);
}

// The database's own tools put an older state back (docs/decisions/0013): the
// round that was open then is over, what was handed out since is worth nothing,
// and the task goes on under numbers that nobody has seen.
TEST_F(PostgresFaultsTest, OlderState_AfterBeginEpoch_ResurrectsNothing) {
  StartDatabase();
  flags_.push_back("--store-migrate");
  const Path data_dir = root_ / "data";
  StartCoordinator(data_dir);
  ASSERT_TRUE(server_->CreatePopulation().ok());
  const std::string bundle = Take(server_->CreateBundle(kDevices));
  for (size_t i = 0; i < kDevices; ++i) {
    credentials_.push_back(Take(
        EnrolDevice(*server_, bundle, "device-" + std::to_string(i)), "enrol"));
  }
  Connect();
  const plan::Program program = OneHotProgram(kElements);
  ASSERT_TRUE(server_->CreateTask(kTaskFile, program).ok());
  const auto await_work = [&](size_t device) -> v1::Assignment {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      const auto work = devices_[device]->CheckIn();
      if (work.ok() && work->has_assignment()) return work->assignment();
      for (const auto& waiting : devices_) {
        static_cast<void>(waiting->CheckIn());
      }
      static_cast<void>(
          server_->process().WaitForExit(std::chrono::milliseconds(20)));
    }
    ADD_FAILURE() << "no work\n" << server_->process().output();
    return {};
  };
  for (size_t i = 0; i < 3; ++i) TakePart(i, 1);
  ASSERT_FALSE(HasFatalFailure());
  const v1::Assignment of_the_backup = await_work(3);

  // In the middle of the round. Nobody may be connected to what is copied. The
  // devices sleep on their connections, for which gRPC would wait 20 s.
  const auto stopping = std::chrono::steady_clock::now();
  ASSERT_EQ(server_->process().Stop(SIGTERM), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - stopping,
            std::chrono::seconds(15));
  ASSERT_TRUE(postgres_->CreateDatabase("backup", "fleet").ok());
  StartCoordinator(data_dir);
  Connect();
  for (size_t i = 3; i < kDevices; ++i) TakePart(i, 1);
  ASSERT_FALSE(HasFatalFailure());
  const v1::Assignment since = await_work(0);
  ASSERT_EQ(since.round(), 2U);

  const auto begin_epoch = [&](const std::string& database) {
    ChildProcess process({SELVAGE_COORDINATOR, "begin-epoch",
                          "--store-postgres", postgres_->Address(database)});
    const std::optional<int> code = process.WaitForExit();
    return std::pair(code.value_or(-1), process.output());
  };
  // Not beneath a coordinator.
  const auto refused = begin_epoch("fleet");
  EXPECT_EQ(refused.first, 6);
  EXPECT_THAT(refused.second, ::testing::HasSubstr("the database is in use"));
  EXPECT_EQ(Take(server_->ListRounds(kTask)).back().number(), 2U);

  EXPECT_EQ(server_->process().Stop(SIGKILL), 128 + SIGKILL);
  const auto begun = begin_epoch("backup");
  EXPECT_EQ(begun.first, 0) << begun.second;
  UseDatabase("backup");
  StartCoordinator(data_dir);
  Connect();
  EXPECT_THAT(begun.second,
              ::testing::HasSubstr(Take(postgres_->Ask(
                  "SELECT instance_id FROM selvage.meta", "backup"))));

  // Old sessions: of the round of the backup, and of one since.
  for (const auto& [device, work] :
       {std::pair(size_t{3}, of_the_backup), std::pair(size_t{0}, since)}) {
    const Bytes update = AwkwardUpdate(device, work.round());
    EXPECT_EQ(
        devices_[device]->Upload(OneHotHeader(work, update), update).Name(),
        "BAD_TOKEN");
  }
  EXPECT_FALSE(EnrolDevice(*server_, bundle, "latecomer").ok());
  auto rounds = Take(server_->ListRounds(kTask));
  ASSERT_GE(rounds.size(), 2U);
  EXPECT_EQ(rounds[0].number(), 1U);
  EXPECT_EQ(rounds[0].state(), v1::Round::ABANDONED);
  EXPECT_EQ(rounds[0].reason(), "an older state was restored");
  // Both rounds are still to be done, under numbers that nobody has seen.
  for (uint64_t n = 0; n < kRounds; ++n) {
    const uint64_t number = await_work(0).round();
    EXPECT_GT(number, 1'000'000U);
    for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) {
      TakePart(i, number);
    }
  }
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_TRUE(server_->WatchUntilEnded(kTask).ok());
  uint64_t committed = 0;
  for (const v1::Round& round : Take(server_->ListRounds(kTask))) {
    if (round.state() != v1::Round::COMMITTED) continue;
    ++committed;
    EXPECT_EQ(round.funnel().accepted(), kDevices);
  }
  EXPECT_EQ(committed, kRounds);
}

}  // namespace
}  // namespace selvage::test
