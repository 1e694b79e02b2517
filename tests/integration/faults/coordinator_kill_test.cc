// The coordinator killed with SIGKILL at every point where it makes something
// durable, and in every state of a round; then started again on what is left.
// The one-hot oracle says whether an acknowledged update was lost or counted
// twice.
#include <csignal>
#include <filesystem>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "tests/integration/faults/harness.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t kDevices = 8;
constexpr uint64_t kCohort = 7;  // so one of the eight comes too late
constexpr char kTask[] = "one-hot";
// With sanitizers every program starts slowly: then every fourth point.
#if defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kStride = 4;
#else
constexpr uint64_t kStride = 1;
#endif
constexpr char kTaskFile[] = R"(
name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 1, cohort: 7, min_updates: 7, over_selection: 1.14, round_deadline: 10m}
update: {codec: float32, weight_cap: 1}
)";

// The state of the newest round in a database that nobody has open; 0: none.
// Works on a copy, so that the restart finds what the crash left.
int RoundStateIn(const Path& data_dir, const Path& scratch) {
  fs::remove_all(scratch);
  fs::create_directories(scratch);
  for (const char* name : {"coordinator.db", "coordinator.db-wal"}) {
    if (fs::exists(data_dir / name)) fs::copy(data_dir / name, scratch / name);
  }
  sqlite3* db = nullptr;
  int state = 0;
  if (sqlite3_open((scratch / "coordinator.db").c_str(), &db) == SQLITE_OK) {
    sqlite3_stmt* query = nullptr;
    sqlite3_prepare_v2(db, "SELECT state FROM round ORDER BY number DESC", -1,
                       &query, nullptr);
    if (query != nullptr && sqlite3_step(query) == SQLITE_ROW) {
      state = sqlite3_column_int(query, 0);
    }
    sqlite3_finalize(query);
  }
  sqlite3_close(db);
  return state;
}

// One round of eight devices against a coordinator that may die, once or more
// often. Devices go on as devices do: they ask again and send again.
class Campaign {
 public:
  // Decides, before each thing that a device or the person does, whether the
  // coordinator is to be killed now.
  using KillNow = std::function<bool(Campaign&)>;

  Campaign(Path data_dir, const std::vector<DeviceCredentials>& devices)
      : data_dir_(std::move(data_dir)),
        scratch_(data_dir_.string() + "-copy"),
        credentials_(devices),
        devices_(devices.size()) {}

  void Run(const CoordinatorUnderTest::Options& first, KillNow kill_now = {}) {
    kill_now_ = std::move(kill_now);
    Start(first);
    if (HasFatalFailure()) return;
    Until("create task", [&] {
      return StatusOf(server_->CreateTask(kTaskFile, OneHotProgram(kDevices)));
    });
    for (int pass = 0; pass < 500 && !HasFatalFailure(); ++pass) {
      if (AssignEverybody()) break;
      // On a slow disk the round is not open yet. If the program dies of it,
      // the next one who asks sees that.
      static_cast<void>(
          server_->process().WaitForExit(std::chrono::milliseconds(20)));
    }
    for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) Upload(i);
    if (HasFatalFailure()) return;
    Until("watch", [&] { return StatusOf(server_->WatchUntilEnded(kTask)); });
    if (!HasFatalFailure()) Verify();
  }

  // The program that died at its kill point did so, or there was none left.
  bool died() const { return deaths_ > 0; }
  int state_at_death() const { return state_at_death_; }
  uint64_t accepted() const { return accepted_; }
  CoordinatorUnderTest& server() { return *server_; }

 private:
  struct Device {
    std::unique_ptr<RawDevice> connection;
    std::optional<v1::Assignment> assignment;
    std::optional<v1::Receipt> receipt;
  };

  template <typename T>
  static Status StatusOf(const Result<T>& result) {
    return result.status();
  }
  static bool HasFatalFailure() { return ::testing::Test::HasFatalFailure(); }

  void Start(const CoordinatorUnderTest::Options& options) {
    server_ = nullptr;  // the lock of the data directory
    server_ = std::make_unique<CoordinatorUnderTest>(data_dir_, options);
    if (!server_->serving()) {
      // It may die while it starts, too.
      ASSERT_EQ(server_->process().WaitForExit(), 128 + SIGKILL)
          << server_->process().output();
      Restart();
      return;
    }
    for (size_t i = 0; i < kDevices; ++i) {
      devices_[i].connection =
          std::make_unique<RawDevice>(*server_, credentials_[i]);
    }
  }

  void Restart() {
    ++deaths_;
    ASSERT_LT(deaths_, 3);
    state_at_death_ = RoundStateIn(data_dir_, scratch_);
    Start(CoordinatorUnderTest::Options{});
    ASSERT_TRUE(server_->serving());
    participants_checked_ = false;
  }

  // Does `act` again, against the coordinator's next life, if it died of it.
  void Until(const char* what, const std::function<Status()>& act) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      if (kill_now_ && kill_now_(*this)) {
        kill_now_ = nullptr;
        server_->process().Stop(SIGKILL);
        Restart();
        if (HasFatalFailure()) return;
      }
      const Status status = act();
      if (status.ok()) return;
      // The coordinator may live and have to look at the round again first.
      ASSERT_EQ(status.code(), StatusCode::kUnavailable)
          << what << ": " << status << "\n"
          << server_->process().output();
      if (server_->process()
              .WaitForExit(std::chrono::milliseconds(20))
              .has_value()) {
        Restart();
        if (HasFatalFailure()) return;
      }
    }
    FAIL() << what << " never succeeded\n" << server_->process().output();
  }

  // True once every device holds an assignment; every device that asks again
  // is told the same.
  bool AssignEverybody() {
    bool all = true;
    for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) {
      if (devices_[i].assignment.has_value()) continue;
      CheckIn(i);
      all = all && devices_[i].assignment.has_value();
    }
    return all;
  }

  void CheckIn(size_t i) {
    Device& device = devices_[i];
    v1::CheckInResponse answer;
    Until("check in", [&] {
      Result<v1::CheckInResponse> result = device.connection->CheckIn();
      if (result.ok()) answer = *std::move(result);
      return StatusOf(result);
    });
    if (HasFatalFailure() || !answer.has_assignment()) return;
    if (device.assignment.has_value()) {
      EXPECT_EQ(answer.assignment().id(), device.assignment->id());
      EXPECT_EQ(answer.assignment().token(), device.assignment->token());
      EXPECT_EQ(answer.assignment().seed(), device.assignment->seed());
    }
    device.assignment = answer.assignment();
  }

  void Upload(size_t i) {
    Device& device = devices_[i];
    ASSERT_TRUE(device.assignment.has_value()) << server_->process().output();
    const Bytes update = OneHotUpdate(kDevices, i);
    const v1::UploadHeader header = OneHotHeader(*device.assignment, update);
    Until("upload", [&]() -> Status {
      // After a restart the participants are the same.
      if (deaths_ > 0 && !participants_checked_) {
        participants_checked_ = true;
        for (size_t j = 0; j < kDevices; ++j) {
          if (!devices_[j].receipt.has_value()) CheckIn(j);
        }
      }
      const RawDevice::UploadAnswer answer =
          device.connection->Upload(header, update);
      if (answer.receipt.has_value()) {
        device.receipt = answer.receipt;
        return OkStatus();
      }
      return answer.status.ok() ? Unavailable("no receipt") : answer.status;
    });
    if (device.receipt.has_value() &&
        device.receipt->status() == v1::Receipt::ACCEPTED) {
      ++accepted_;
    }
  }

  void Verify() {
    const v1::Round round = Take(server_->GetRound(kTask, 1), "GetRound");
    EXPECT_EQ(round.state(), v1::Round::COMMITTED) << round.ShortDebugString();
    EXPECT_EQ(round.result_version(), 1U);
    EXPECT_EQ(round.funnel().assigned(), kDevices);
    // The goal was reached; with all eight if the coordinator died between the
    // seventh update and the end of the round, and the eighth was quicker than
    // that end after the restart.
    EXPECT_GE(round.funnel().accepted(), kCohort);
    EXPECT_EQ(round.funnel().accepted(), accepted_);
    EXPECT_EQ(Take(server_->ListRounds(kTask)).size(), 1U);
    const plan::Checkpoint model =
        Take(server_->LatestModel(kTask, OneHotProgram(kDevices).table));
    const std::vector<int> counted =
        Take(CountedUpdates(model, round.funnel().accepted()));
    ASSERT_EQ(counted.size(), kDevices);
    for (size_t i = 0; i < kDevices; ++i) {
      ASSERT_TRUE(devices_[i].receipt.has_value());
      // A device that was told so is counted, once; one that was not, is not.
      EXPECT_EQ(counted[i],
                devices_[i].receipt->status() == v1::Receipt::ACCEPTED ? 1 : 0)
          << "device " << i << " " << devices_[i].receipt->ShortDebugString();
      // The first answer is the answer for good.
      const Bytes update = OneHotUpdate(kDevices, i);
      const RawDevice::UploadAnswer again = devices_[i].connection->Upload(
          OneHotHeader(*devices_[i].assignment, update), update);
      ASSERT_TRUE(again.receipt.has_value()) << again.status;
      EXPECT_EQ(again.receipt->status(), devices_[i].receipt->status());
    }
    // What counted is in the model now; nothing of it is left on the disk.
    EXPECT_TRUE(fs::is_empty(data_dir_ / "blobs" / "sealed"));
    EXPECT_TRUE(fs::is_empty(data_dir_ / "blobs" / "incoming"));
  }

  const Path data_dir_;
  const Path scratch_;
  const std::vector<DeviceCredentials>& credentials_;
  std::vector<Device> devices_;
  std::unique_ptr<CoordinatorUnderTest> server_;
  KillNow kill_now_;
  int deaths_ = 0;
  int state_at_death_ = 0;
  uint64_t accepted_ = 0;
  bool participants_checked_ = false;
};

class CoordinatorKillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root = FreshDirectory();
    CoordinatorUnderTest server(root / "template");
    ASSERT_TRUE(server.serving());
    ASSERT_TRUE(server.CreatePopulation().ok());
    const std::string bundle = Take(server.CreateBundle(kDevices));
    for (size_t i = 0; i < kDevices; ++i) {
      devices.push_back(Take(
          EnrolDevice(server, bundle, "device-" + std::to_string(i)), "enrol"));
    }
    ASSERT_EQ(server.process().Stop(SIGTERM), 0);
  }
  void TearDown() override { fs::remove_all(root); }

  // The enrolled fleet before its first task.
  Path NewDataDirectory() {
    const Path path = root / "data";
    fs::remove_all(path);
    fs::copy(root / "template", path, fs::copy_options::recursive);
    return path;
  }
  static CoordinatorUnderTest::Options DiesAt(uint64_t point) {
    return {.binary = SELVAGE_COORDINATOR_WITH_FAULTS,
            .environment = {{"SELVAGE_TEST_KILL_AT", std::to_string(point)}}};
  }

  Path root;
  std::vector<DeviceCredentials> devices;
};

TEST_F(CoordinatorKillTest, NoFault_SevenOfEightAreCounted) {
  Campaign campaign(NewDataDirectory(), devices);
  campaign.Run({});
  EXPECT_FALSE(campaign.died());
}

// T-01, T-02: before and after every write, sync, rename and commit.
TEST_F(CoordinatorKillTest, EveryDurableOperation_CountsExactlyOnce) {
  std::map<int, int> deaths;  // by the state of the round they left behind
  uint64_t point = 1;
  for (;; point += kStride) {
    SCOPED_TRACE("kill point " + std::to_string(point));
    Campaign campaign(NewDataDirectory(), devices);
    campaign.Run(DiesAt(point));
    if (HasFailure() || !campaign.died()) break;
    ++deaths[campaign.state_at_death()];
    ASSERT_LT(point, 2000U);
  }
  RecordProperty("kill_points", static_cast<int>(point - 1));
  std::printf("%d kill points; round state at death:",
              static_cast<int>(point - 1));
  for (const auto& [state, count] : deaths) {
    std::printf(" %s %d",
                state == 0 ? "(none)" : v1::Round::State_Name(state).c_str(),
                count);
  }
  std::printf("\n");
  EXPECT_GT(point, 100U);
  if (kStride > 1) return;
  for (const v1::Round::State state :
       {v1::Round::SELECTING, v1::Round::COLLECTING, v1::Round::CLOSING,
        v1::Round::APPLYING, v1::Round::COMMITTED}) {
    EXPECT_GT(deaths[state], 0) << v1::Round::State_Name(state);
  }
}

// The shipped program, killed from outside while nothing is being written.
TEST_F(CoordinatorKillTest, ShippedProgram_KilledWhileSelecting_Continues) {
  Campaign campaign(NewDataDirectory(), devices);
  int acts = 0;
  // The task, then three of eight check-ins.
  campaign.Run({}, [&](Campaign&) { return ++acts == 5; });
  EXPECT_TRUE(campaign.died());
  EXPECT_EQ(campaign.state_at_death(), v1::Round::SELECTING);
}

TEST_F(CoordinatorKillTest, ShippedProgram_KilledWhileCollecting_Continues) {
  for (const uint64_t accepted : {0, 1, 6}) {
    SCOPED_TRACE(accepted);
    Campaign campaign(NewDataDirectory(), devices);
    campaign.Run({}, [&](Campaign& c) {
      const Result<v1::Round> round = c.server().GetRound(kTask, 1);
      return round.ok() && round->state() == v1::Round::COLLECTING &&
             c.accepted() == accepted;
    });
    EXPECT_TRUE(campaign.died());
    EXPECT_EQ(campaign.state_at_death(), v1::Round::COLLECTING);
  }
}

TEST_F(CoordinatorKillTest,
       ShippedProgram_KilledAfterCommit_RemembersReceipts) {
  Campaign campaign(NewDataDirectory(), devices);
  campaign.Run({}, [](Campaign& c) { return c.accepted() == kCohort; });
  EXPECT_TRUE(campaign.died());
}

}  // namespace
}  // namespace selvage::test
