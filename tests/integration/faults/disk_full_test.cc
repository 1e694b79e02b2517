// T-11: the shipped coordinator while its disk is full or refuses to grow
// files. Nothing is acknowledged that is not durable, and it goes on when there
// is room again.
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/faults/harness.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;

// Large enough that an update's partial is more than the slack of a database
// file or its log: 512 KiB.
constexpr size_t kElements = 64 << 10;
constexpr size_t kDevices = 3;
constexpr char kTask[] = "one-hot";
constexpr char kTaskFile[] = R"(
name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 1, cohort: 3, over_selection: 1, round_deadline: 10m}
update: {codec: float32, weight_cap: 1}
)";

class DiskFullTest : public ::testing::Test {
 protected:
  // Devices with assignments of an open round.
  void StartRound(const Path& data_dir) {
    server = std::make_unique<CoordinatorUnderTest>(data_dir);
    ASSERT_TRUE(server->serving()) << server->process().output();
    ASSERT_TRUE(server->CreatePopulation().ok());
    const std::string bundle = Take(server->CreateBundle(kDevices));
    for (size_t i = 0; i < kDevices; ++i) {
      credentials.push_back(
          Take(EnrolDevice(*server, bundle, "device-" + std::to_string(i))));
    }
    Take(server->CreateTask(kTaskFile, OneHotProgram(kElements)));
    Connect();
    assignments.assign(kDevices, {});
    for (int pass = 0; pass < 10'000; ++pass) {
      bool all = true;
      for (size_t i = 0; i < kDevices; ++i) {
        assignments[i] = Take(devices[i]->CheckIn()).assignment();
        all = all && !assignments[i].id().empty();
      }
      if (all) return;
    }
    FAIL() << server->process().output();
  }
  void Connect() {
    devices.clear();
    for (const DeviceCredentials& one : credentials) {
      devices.push_back(std::make_unique<RawDevice>(*server, one));
    }
  }
  RawDevice::UploadAnswer Upload(size_t i) {
    const Bytes update = OneHotUpdate(kElements, i);
    return devices[i]->Upload(OneHotHeader(assignments[i], update), update);
  }
  // Devices come again while the coordinator looks at the round anew.
  void UploadUntilAccepted(size_t i) {
    for (int attempt = 0; attempt < 20'000; ++attempt) {
      const RawDevice::UploadAnswer answer = Upload(i);
      if (answer.Name() == "ACCEPTED") return;
      ASSERT_EQ(answer.Name(), "UNAVAILABLE") << answer.status;
    }
    FAIL() << "device " << i << " is never accepted\n"
           << server->process().output();
  }
  // The writes that failed left nothing that counts, before and after a
  // restart.
  void FinishAndVerify() {
    for (size_t i = 0; i < kDevices; ++i) {
      UploadUntilAccepted(i);
      if (HasFatalFailure()) return;
    }
    Take(server->WatchUntilEnded(kTask), "watch");
    const plan::Checkpoint model =
        Take(server->LatestModel(kTask, OneHotProgram(kElements).table));
    const std::vector<int> counted = Take(CountedUpdates(model, kDevices));
    for (size_t i = 0; i < kElements; ++i) {
      ASSERT_EQ(counted[i], i < kDevices ? 1 : 0) << i;
    }
    const v1::Round round = Take(server->GetRound(kTask, 1));
    EXPECT_EQ(round.state(), v1::Round::COMMITTED);
    EXPECT_EQ(round.funnel().accepted(), kDevices);
    const Path data_dir = server->data_dir();
    EXPECT_EQ(server->process().Stop(SIGTERM), 0);
    server = nullptr;
    server = std::make_unique<CoordinatorUnderTest>(data_dir);
    ASSERT_TRUE(server->serving());
    Connect();
    EXPECT_EQ(Upload(0).Name(), "ACCEPTED");
  }

  std::unique_ptr<CoordinatorUnderTest> server;
  std::vector<DeviceCredentials> credentials;
  std::vector<std::unique_ptr<RawDevice>> devices;
  std::vector<v1::Assignment> assignments;
};

TEST_F(DiskFullTest, NoSpaceLeft_NothingAcknowledged_GoesOnWithRoom) {
  const Path root = FreshDirectory();
  if (mount("tmpfs", root.c_str(), "tmpfs", 0, "size=24m") != 0) {
    GTEST_SKIP() << "needs a small file system of its own, and mount(2) says: "
                 << std::strerror(errno);
  }
  const struct Unmount {
    Path path;
    ~Unmount() { umount2(path.c_str(), MNT_DETACH); }
  } unmount{root};
  StartRound(root / "data");
  if (HasFatalFailure()) return;

  // The last page.
  {
    std::ofstream ballast(root / "ballast", std::ios::binary);
    const std::string page(4096, 'x');
    while (ballast.write(page.data(), 4096).flush()) {
    }
  }
  struct statvfs space {};
  ASSERT_EQ(statvfs(root.c_str(), &space), 0);
  ASSERT_EQ(space.f_bavail, 0U);
  for (size_t i = 0; i < kDevices; ++i) {
    const RawDevice::UploadAnswer answer = Upload(i);
    EXPECT_FALSE(answer.receipt.has_value()) << answer.Name();
    EXPECT_THAT(answer.status.code(),
                AnyOf(StatusCode::kUnavailable, StatusCode::kResourceExhausted))
        << answer.status;
  }
  // It still answers, says what is the matter, and counts nobody.
  EXPECT_EQ(Take(server->Info()).free_bytes(), 0U);
  EXPECT_EQ(Take(server->GetRound(kTask, 1)).funnel().accepted(), 0U);
  EXPECT_THAT(server->process().output(),
              ::testing::HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_FALSE(server->CreateBundle(1).ok());

  fs::remove(root / "ballast");
  FinishAndVerify();
  server = nullptr;
}

// The same without a file system of one's own: write(2) fails with EFBIG.
TEST_F(DiskFullTest, FilesMayNotGrow_NothingAcknowledged_GoesOnWhenTheyMay) {
  StartRound(FreshDirectory() / "data");
  if (HasFatalFailure()) return;
  rlimit before{};
  const rlimit none{.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
  ASSERT_EQ(prlimit(server->process().pid(), RLIMIT_FSIZE, &none, &before), 0)
      << std::strerror(errno);
  for (size_t i = 0; i < kDevices; ++i) {
    const RawDevice::UploadAnswer answer = Upload(i);
    EXPECT_FALSE(answer.receipt.has_value()) << answer.Name();
    EXPECT_FALSE(answer.status.ok());
  }
  EXPECT_EQ(Take(server->GetRound(kTask, 1)).funnel().accepted(), 0U);
  ASSERT_EQ(prlimit(server->process().pid(), RLIMIT_FSIZE, &before, nullptr),
            0);
  FinishAndVerify();
}

}  // namespace
}  // namespace selvage::test
