// An asynchronous task over the wire: a device that is at work while a version
// is made, and while the coordinator is killed, counts in the next one, once.
#include <cmath>
#include <csignal>

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/integration/faults/harness.h"

namespace selvage::test {
namespace {

constexpr size_t kDevices = 3;
constexpr char kTask[] = "one-hot";
constexpr char kTaskFile[] = R"(
name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 2, cohort: 2, round_deadline: 10m, asynchronous: {concurrency: 3, max_staleness: 4}}
update: {codec: float32, weight_cap: 1, max_abs: {default: 8}}
)";

// Until it has work, as a device does.
v1::Assignment WorkFor(RawDevice& device) {
  for (int i = 0; i < 10'000; ++i) {
    v1::Assignment assignment = Take(device.CheckIn()).assignment();
    if (!assignment.id().empty()) return assignment;
  }
  ADD_FAILURE() << "no work";
  return {};
}

std::string Upload(RawDevice& device, size_t index,
                   const v1::Assignment& work) {
  const Bytes update = OneHotUpdate(kDevices, index);
  return device.Upload(OneHotHeader(work, update), update).Name();
}

TEST(AsynchronousWireTest, KilledBetweenVersions_TheStaleUpdateCountsOnce) {
  const Path folder = FreshDirectory() / "data";
  auto server = std::make_unique<CoordinatorUnderTest>(folder);
  ASSERT_TRUE(server->serving()) << server->process().output();
  ASSERT_TRUE(server->CreatePopulation().ok());
  const std::string bundle = Take(server->CreateBundle(kDevices));
  std::vector<DeviceCredentials> credentials;
  std::vector<std::unique_ptr<RawDevice>> devices;
  const auto connect = [&] {
    devices.clear();
    for (const DeviceCredentials& who : credentials) {
      devices.push_back(std::make_unique<RawDevice>(*server, who));
    }
  };
  for (size_t i = 0; i < kDevices; ++i) {
    credentials.push_back(
        Take(EnrolDevice(*server, bundle, "device-" + std::to_string(i))));
  }
  connect();
  const plan::Program program = OneHotProgram(kDevices);
  Take(server->CreateTask(kTaskFile, program));

  std::vector<v1::Assignment> work;
  for (const auto& device : devices) work.push_back(WorkFor(*device));
  EXPECT_EQ(work[2].base_version(), 0u);
  EXPECT_EQ(Upload(*devices[0], 0, work[0]), "ACCEPTED");
  EXPECT_EQ(Upload(*devices[1], 1, work[1]), "ACCEPTED");
  Take(server->Watch(kTask, [](const v1::TaskSnapshot& snapshot) {
    return snapshot.task().committed_rounds() == 1;
  }));
  // The next one begins with the version; the slow one is still at work.
  const v1::Assignment next = WorkFor(*devices[0]);
  EXPECT_EQ(next.base_version(), 1u);
  EXPECT_EQ(WorkFor(*devices[2]).id(), work[2].id());

  server->process().Stop(SIGKILL);
  server = std::make_unique<CoordinatorUnderTest>(folder);
  ASSERT_TRUE(server->serving()) << server->process().output();
  connect();

  EXPECT_EQ(Upload(*devices[2], 2, work[2]), "ACCEPTED");
  EXPECT_EQ(Upload(*devices[2], 2, work[2]), "ACCEPTED");
  EXPECT_EQ(Upload(*devices[0], 0, next), "ACCEPTED");
  Take(server->WatchUntilEnded(kTask));
  EXPECT_EQ(Upload(*devices[2], 2, work[2]), "ACCEPTED");

  const plan::Checkpoint model =
      Take(server->LatestModel(kTask, program.table));
  const double fresh = 65'535;
  const double stale = std::round(65'535 / std::sqrt(2.0));
  const double value = 0.25;
  EXPECT_NEAR(model.floats[1], value / 2, 1e-7);
  EXPECT_NEAR(model.floats[2], value * stale / (fresh + stale), 1e-7);
  EXPECT_NEAR(model.floats[0], value / 2 + value * fresh / (fresh + stale),
              1e-7);
  for (uint64_t number = 1; number <= 2; ++number) {
    EXPECT_EQ(Take(server->GetRound(kTask, number)).funnel().accepted(), 2u);
  }
}

}  // namespace
}  // namespace selvage::test
