// T-03: a device killed with SIGKILL at every point where it makes something
// durable, from its first start to the receipt of its update, then started
// again: it contributes exactly once.
#include <csignal>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/faults/harness.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t kKilled = 1;  // the other one is device 0
#if defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kStride = 4;
#else
constexpr uint64_t kStride = 1;
#endif

// A long round: what a device waits for is skipped by its clock.
std::string TaskFile(const std::string& name) {
  return "name: " + name + "\npopulation: " + name + R"(
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 1, cohort: 2, over_selection: 1, round_deadline: 7d}
update: {codec: float32, weight_cap: 1}
data: {holdout: 0}
)";
}

TEST(DeviceKillTest, EveryDurableOperation_ContributesExactlyOnce) {
  const Path root = FreshDirectory();
  CoordinatorUnderTest server(root / "data");
  ASSERT_TRUE(server.serving());
  uint64_t point = 1;
  for (;; point += kStride) {
    SCOPED_TRACE("kill point " + std::to_string(point));
    const std::string name = "point-" + std::to_string(point);
    ASSERT_TRUE(server.CreatePopulation(name).ok());
    const std::string bundle = Take(server.CreateBundle(2, name));
    const std::string bundle_file = (root / "bundle.json").string();
    std::ofstream(bundle_file) << bundle;
    Take(server.CreateTask(TaskFile(name), OneHotProgram(2)), "create task");
    Take(server.Watch(name, [](const v1::TaskSnapshot& snapshot) {
      return snapshot.has_round();
    }));
    RawDevice other(server, Take(EnrolDevice(server, bundle, "other")), name);
    Take(other.CheckIn());

    const std::vector<std::string> command = {
        SELVAGE_DEVICE_WITH_FAULTS, (root / name).string(), bundle_file, name,
        std::to_string(kKilled)};
    bool died = false;
    {
      ChildProcess device(command,
                          {{"SELVAGE_TEST_KILL_AT", std::to_string(point)}});
      const std::optional<int> code = device.WaitForExit();
      died = code == 128 + SIGKILL;
      ASSERT_TRUE(died || code == 0) << device.output();
    }
    if (died) {
      ChildProcess device(command);
      ASSERT_EQ(device.WaitForExit(), 0) << device.output();
    }

    v1::Assignment assignment;
    for (int pass = 0; pass < 10'000 && assignment.id().empty(); ++pass) {
      assignment = Take(other.CheckIn()).assignment();
    }
    const Bytes update = OneHotUpdate(2, 0);
    EXPECT_EQ(other.Upload(OneHotHeader(assignment, update), update).Name(),
              "ACCEPTED");
    Take(server.WatchUntilEnded(name), "watch");
    const v1::Round round = Take(server.GetRound(name, 1));
    EXPECT_EQ(round.state(), v1::Round::COMMITTED);
    EXPECT_EQ(round.funnel().assigned(), 2U);
    EXPECT_EQ(round.funnel().accepted(), 2U);
    EXPECT_EQ(Take(CountedUpdates(
                  Take(server.LatestModel(name, OneHotProgram(2).table)), 2)),
              (std::vector<int>{1, 1}));
    fs::remove_all(root / name);
    if (HasFailure() || !died) break;
    ASSERT_LT(point, 1000U);
  }
  std::printf("%d kill points\n", static_cast<int>(point - 1));
  EXPECT_GT(point, 20U);
  fs::remove_all(root);
}

}  // namespace
}  // namespace selvage::test
