#include "coordinator/server/heartbeat.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include <gtest/gtest.h>

namespace selvage::coordinator {
namespace {

TEST(WatchdogPeriodTest, Variables_TableOfCases) {
  const auto second = std::chrono::seconds(1);
  EXPECT_EQ(WatchdogPeriod("1000000", std::nullopt, 7), second);
  EXPECT_EQ(WatchdogPeriod("1000000", "7", 7), second);
  EXPECT_EQ(WatchdogPeriod(std::nullopt, "7", 7), Duration::zero());
  EXPECT_EQ(WatchdogPeriod("1000000", "8", 7), Duration::zero());
  EXPECT_EQ(WatchdogPeriod("1000000", "7x", 7), Duration::zero());
  for (const char* bad : {"", "0", "-1", "1s", "1000000 ",
                          "18446744073709551616", "18446744073709551615"}) {
    EXPECT_EQ(WatchdogPeriod(bad, std::nullopt, 7), Duration::zero()) << bad;
  }
}

TEST(PulseTest, WhoHangs_HasNone) {
  Pulse pulse;
  EXPECT_TRUE(pulse.Moved(0));
  EXPECT_FALSE(pulse.Moved(0));
  EXPECT_TRUE(pulse.Moved(5));
  EXPECT_FALSE(pulse.Moved(5));
}

TEST(HeartbeatTest, MovingThread_IsToldOf_AndTheEndWaitsForNothing) {
  std::mutex mu;
  std::condition_variable told;
  int beats = 0;
  std::atomic<uint64_t> turns{0};
  {
    const Heartbeat heartbeat(
        std::chrono::milliseconds(1), [&] { return turns.fetch_add(1); },
        [&] {
          const std::lock_guard<std::mutex> lock(mu);
          ++beats;
          told.notify_all();
        });
    std::unique_lock<std::mutex> lock(mu);
    told.wait(lock, [&] { return beats >= 3; });
  }
  const Heartbeat never(
      std::chrono::hours(1), [&] { return turns.load(); }, [] {});
}

}  // namespace
}  // namespace selvage::coordinator
