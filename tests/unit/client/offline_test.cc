// Without a coordinator for a month; and many clients, threads and lives in one
// process.
#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include <gmock/gmock.h>

#include "tests/unit/client/life_fixture.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using test::IsOk;
using test::StatusIs;

class OfflineTest : public test::LifeFixture {
 protected:
  static size_t EntriesOf(const char* directory) {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      (void)entry;
      ++count;
    }
    return count;
  }
};

TEST_F(OfflineTest, ThirtyDaysAlone_ServesLearnsForgetsAndReconciles) {
  constexpr uint64_t kPerDay = 20;
  constexpr uint64_t kCountMax = 100;
  Open();
  ASSERT_THAT(client_->DeclareCollection(
                  "numbers", {.ttl = hours(24 * 10), .count_max = kCountMax}),
              IsOk());
  ASSERT_THAT(
      client_->InstallModel(plan::CanonicalJson(server_->plan),
                            plan::CanonicalJson(server_->program), {},
                            plan::WriteSafetensors(server_->program.table,
                                                   server_->checkpoint, {})),
      IsOk());
  server_->hook = [](const std::string&) {
    return Unavailable("no coordinator");
  };
  const std::uintmax_t quota = 8 << 20;
  for (int day = 1; day <= 30; ++day) {
    SCOPED_TRACE("day " + std::to_string(day));
    AddExamples(kPerDay);
    EXPECT_LE(*client_->CountExamples("numbers"), kCountMax);
    EXPECT_GE(*client_->CountExamples("numbers"),
              std::min(kPerDay * static_cast<uint64_t>(day), kCountMax));
    ASSERT_THAT(Train(), IsOk());
    EXPECT_TRUE(Info().personal_serving);
    EXPECT_NEAR(*PredictOne(), 5.7, 0.8);
    if (day % 3 == 0) {
      WaitForTurn();
      const RunOutcome outcome = Run();
      EXPECT_EQ(outcome.result, RunResult::kFailed);
      EXPECT_LE(outcome.next_run - clock_.Now(), hours(24));
    }
    if (day % 7 == 0) Open();  // the app was restarted
    EXPECT_LE(std::filesystem::file_size(state_dir_ / "client.db"), quota);
    clock_.Advance(hours(24));
  }
  EXPECT_EQ(server_->enrolments, 0);

  // Everything is caught up with in one session.
  server_->hook = [](const std::string&) { return OkStatus(); };
  server_->Give(server_->NewAssignment());
  WaitForTurn();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kContributed) << outcome.reason;
  EXPECT_TRUE(outcome.enrolled);
  EXPECT_EQ(server_->updates.size(), 1U);
  EXPECT_GT(server_->weights["round-1"], 50U);
  EXPECT_TRUE(Info().personal_serving);
}

// Training holds a lock for as long as this test holds the training; whoever
// waited for it would wait for ever.
TEST_F(OfflineTest, Predict_WhileTrainingStands_GoesOn) {
  Open();
  AddExamples(24);
  Install(1, 3);
  ASSERT_THAT(PredictOne(), IsOk());
  std::promise<void> begun;
  std::promise<void> go_on;
  std::shared_future<void> may_go_on = go_on.get_future().share();
  std::atomic<bool> first{true};
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step" && first.exchange(false)) {
      begun.set_value();
      may_go_on.wait();
    }
    return OkStatus();
  };
  std::thread training([&] { EXPECT_THAT(Train(), IsOk()); });
  begun.get_future().wait();
  for (int i = 0; i < 100; ++i) EXPECT_THAT(PredictOne(), IsOk());
  go_on.set_value();
  training.join();
  EXPECT_THAT(PredictOne(), IsOk());
}

TEST_F(OfflineTest, Predict_FromThreadsWhileModelsChange_AlwaysAnswers) {
  Open();
  AddExamples(24);
  Install(1, 3);
  std::atomic<bool> stop{false};
  std::atomic<int> answers{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        const Result<ServedPrediction> prediction =
            client_->Predict("digits", Bytes(32, 0), 2);
        EXPECT_THAT(prediction, IsOk());
        ++answers;
      }
    });
  }
  for (int i = 0; i < 10; ++i) EXPECT_THAT(Train(), IsOk());
  while (answers.load() < 100) std::this_thread::yield();
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(OfflineTest, TwoClientsOfOneProcess_DoNotMeet) {
  struct Device {
    Device() {
      clock.Advance(hours(24 * 365 * 53));
      server = std::make_unique<test::FakeServer>(clock);
    }
    test::ScratchFolder directory;
    test::FakeClock clock;
    SeededRandom random{5};
    std::ostringstream log;
    StreamEventSink events{log, clock, StreamEventSink::Format::kText,
                           LogLevel::kInfo};
    PosixFileSystem files;
    test::FakeTrainer trainer;
    std::unique_ptr<test::FakeServer> server;
    RunResult result = RunResult::kFailed;
  };
  std::array<Device, 2> devices;
  std::vector<std::thread> threads;
  for (Device& device : devices) {
    device.server->Give(device.server->NewAssignment());
    threads.emplace_back([&device] {
      ClientOptions options;
      options.state_dir = device.directory.path() / "state";
      options.cache_dir = device.directory.path() / "cache";
      options.population = "demo";
      options.enrolment_bundle = device.server->Bundle();
      options.device_name = "dev-7";
      Result<std::unique_ptr<Client>> client =
          Client::Open(options, {.clock = device.clock,
                                 .random = device.random,
                                 .events = device.events,
                                 .files = device.files,
                                 .trainer = device.trainer,
                                 .transport = device.server->Transports()});
      ASSERT_THAT(client, IsOk());
      for (int i = 0; i < 24; ++i) {
        Bytes label;
        AppendLe(label, int64_t{6});
        EXPECT_THAT((*client)->AddExample("numbers", {{Bytes(16, 1), label}}),
                    IsOk());
      }
      const CancelToken cancel;
      device.result = (*client)->RunOnce({}, cancel)->result;
      EXPECT_THAT((*client)->Predict("digits", Bytes(16, 0), 1), IsOk());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Device& device : devices) {
    EXPECT_EQ(device.result, RunResult::kContributed);
    EXPECT_EQ(device.server->updates.size(), 1U);
  }
}

TEST_F(OfflineTest, Open_AThousandTimes_LeavesNothingBehind) {
  Open();
  AddExamples(8);
  Install(1, 3);
  client_.reset();
  Open();
  ASSERT_THAT(PredictOne(), IsOk());
  client_.reset();
  const size_t descriptors = EntriesOf("/proc/self/fd");
  const size_t threads = EntriesOf("/proc/self/task");
  for (int i = 0; i < 1000; ++i) {
    Open();
    if (i % 100 == 0) {
      ASSERT_THAT(PredictOne(), IsOk());
    }
    client_->Close();
    client_.reset();
  }
  EXPECT_EQ(EntriesOf("/proc/self/fd"), descriptors);
  EXPECT_EQ(EntriesOf("/proc/self/task"), threads);
}

}  // namespace
}  // namespace selvage::client
