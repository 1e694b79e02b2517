// Pace steering against simulated fleets on virtual time.
#include "coordinator/pace.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace selvage::coordinator {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// Devices that obey their windows. While the server is away a device draws
// again from the window it was told last, from its start (full jitter).
class Fleet {
 public:
  Fleet(const PaceOptions& options, size_t devices, Duration first_within,
        uint64_t seed = 1)
      : options_(options), random_(seed), pace_(options, Time{}) {
    told_.resize(devices, RetryWindow{Duration{}, options.floor.max});
    for (size_t i = 0; i < devices; ++i) {
      queue_.push({Time{} + Draw({Duration{}, first_within}), i});
    }
  }

  // The share of its check-ins that a device makes at a time.
  std::function<double(Time)> activity = [](Time) { return 1.0; };
  Gathering gathering{};
  Time down_from = kNever;
  Time down_until = kNever;

  // A process that knows nothing takes over.
  void Restart(Time now) { pace_ = Pace(options_, now); }

  void Run(Time until) {
    while (!queue_.empty() && queue_.top().first < until) {
      const auto [now, device] = queue_.top();
      queue_.pop();
      RetryWindow& told = told_[device];
      if (now >= down_from && now < down_until) {
        queue_.push({now + Draw({Duration{}, told.max}), device});
        continue;
      }
      if (UniformDouble() < activity(now)) {
        arrivals_.push_back(now);
        told = pace_.Reject(now, gathering);
        EXPECT_GE(told.min, Duration::zero());
        EXPECT_LE(told.min, told.max);
        EXPECT_LE(told.max, options_.window_max);
      }
      queue_.push({now + Draw(told), device});
    }
  }

  double Rate(Time from, Time to) const {
    const auto count =
        std::count_if(arrivals_.begin(), arrivals_.end(),
                      [&](Time at) { return at >= from && at < to; });
    return static_cast<double>(count) / Seconds(to - from);
  }
  const std::vector<Time>& arrivals() const { return arrivals_; }
  const Pace& pace() const { return pace_; }

 private:
  double UniformDouble() {
    return static_cast<double>(UniformBelow(random_, 1u << 30)) / (1u << 30);
  }
  Duration Draw(const RetryWindow& window) {
    const auto width = static_cast<uint64_t>((window.max - window.min).count());
    return window.min +
           Duration(static_cast<int64_t>(UniformBelow(random_, width + 1)));
  }

  using Due = std::pair<Time, size_t>;
  PaceOptions options_;
  SeededRandom random_;
  Pace pace_;
  std::vector<RetryWindow> told_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> queue_;
  std::vector<Time> arrivals_;
};

PaceOptions Target(double per_second) {
  PaceOptions options;
  options.target_per_second = per_second;
  return options;
}

TEST(PaceTest, Reject_FleetBelowTarget_ToldTheFloor) {
  Fleet fleet(Target(10), 20, seconds(90));
  fleet.Run(Time{} + hours(2));
  EXPECT_EQ(fleet.pace().window(), seconds(90));
  EXPECT_NEAR(fleet.Rate(Time{} + hours(1), Time{} + hours(2)), 20.0 / 90,
              0.1 * 20 / 90);
}

TEST(PaceTest, Reject_ThousandDevices_ConvergeToTheTarget) {
  Fleet fleet(Target(1), 1000, seconds(1));
  fleet.Run(Time{} + hours(12));
  EXPECT_NEAR(fleet.Rate(Time{} + hours(4), Time{} + hours(12)), 1.0, 0.15);
  EXPECT_NEAR(Seconds(fleet.pace().window()), 1000, 250);
}

TEST(PaceTest, Reject_HundredThousandDevices_ConvergeToTheTarget) {
  Fleet fleet(Target(50), 100'000, seconds(30));
  fleet.Run(Time{} + hours(8));
  EXPECT_NEAR(fleet.Rate(Time{} + hours(4), Time{} + hours(8)), 50, 5);
  for (int i = 6; i < 16; ++i) {
    const double rate =
        fleet.Rate(Time{} + i * minutes(30), Time{} + (i + 1) * minutes(30));
    EXPECT_LE(rate, 100) << i;
    EXPECT_GE(rate, 25) << i;
  }
}

// I12. The first moment is what devices do who were away; what the server says
// then decides how they come back.
TEST(PaceTest, Reject_AfterAnyOutage_AtMostTwiceTheTarget) {
  for (const Duration outage : {Duration(minutes(1)), Duration(minutes(20)),
                                Duration(hours(1)), Duration(hours(6))}) {
    for (const bool forgets : {false, true}) {
      Fleet fleet(Target(20), 20'000, seconds(60), 7);
      const Time down = Time{} + hours(5);
      fleet.down_from = down;
      fleet.down_until = down + outage;
      fleet.Run(fleet.down_until);
      if (forgets) fleet.Restart(fleet.down_until);
      const Duration window = seconds(1000);
      fleet.Run(fleet.down_until + 6 * window);
      for (int i = 0; i < 5; ++i) {
        const Time from = fleet.down_until + i * window;
        EXPECT_LE(fleet.Rate(from, from + window), 2 * 20.0)
            << Seconds(outage) << " s, forgets " << forgets << ", window " << i;
      }
    }
  }
}

// Everybody at one moment, with a server that knows nothing: the moment itself
// cannot be helped, what follows it is spread.
TEST(PaceTest, Reject_Stampede_SpreadsWhatFollows) {
  Fleet fleet(Target(20), 20'000, milliseconds(10), 3);
  fleet.Run(Time{} + seconds(3000));
  for (int i = 0; i < 29; ++i) {
    const Time from = Time{} + seconds(1) + i * seconds(100);
    EXPECT_LE(fleet.Rate(from, from + seconds(100)), 2.2 * 20) << i;
  }
}

TEST(PaceTest, Reject_DiurnalSwingOfFour_StaysStable) {
  Fleet fleet(Target(10), 20'000, seconds(600), 5);
  fleet.activity = [](Time now) {
    const double day = Seconds(now.time_since_epoch()) / 86'400;
    return 0.625 + 0.375 * std::sin(2 * 3.14159265358979 * day);
  };
  fleet.Run(Time{} + hours(72));
  for (int hour = 12; hour < 72; ++hour) {
    const double rate =
        fleet.Rate(Time{} + hours(hour), Time{} + hours(hour + 1));
    EXPECT_LE(rate, 20) << hour;
    EXPECT_GE(rate, 5) << hour;
  }
}

TEST(PaceTest, Reject_SmallFleet_MeetsWithinTheSelectionWindow) {
  Fleet fleet(Target(100), 20, seconds(90));
  fleet.gathering = {.devices_wanted = 20, .selection_window = seconds(10)};
  fleet.Run(Time{} + hours(1));
  // Every device is at one place of the grid of 50 s, at most 10 s late.
  for (const Time at : fleet.arrivals()) {
    if (at < Time{} + minutes(10)) continue;
    EXPECT_LE(at.time_since_epoch() % seconds(50), seconds(10));
  }
  // ... and never told less or more than an operator allows.
  for (int i = 0; i < 1000; ++i) {
    Pace pace(Target(100), Time{});
    (void)pace.Reject(Time{}, fleet.gathering);
    const RetryWindow told = pace.Reject(
        Time{} + seconds(90) + i * milliseconds(137), fleet.gathering);
    EXPECT_GE(told.min, seconds(60));
    EXPECT_LE(told.max, seconds(120));
    EXPECT_EQ(told.max - told.min, seconds(10));
  }
}

TEST(PaceTest, Reject_ClockGoesBack_CountsAsNoTime) {
  Pace pace(Target(1), Time{} + hours(1));
  EXPECT_EQ(pace.Reject(Time{}, {}).min, seconds(60));
  EXPECT_EQ(pace.Reject(Time{} + hours(1), {}).min, seconds(60));
}

TEST(PaceTest, AfterWork_AcceptedMin_HoldsForAcceptedAlone) {
  PaceOptions options = Target(1);
  options.accepted_min = hours(2);
  const Pace pace(options, Time{});
  EXPECT_EQ(pace.AfterWork(true).min, hours(2));
  EXPECT_EQ(pace.AfterWork(true).max, hours(2) + seconds(60));
  EXPECT_EQ(pace.AfterWork(false).max, options.floor.max);
}

TEST(PaceTest, Validate_OutOfBounds_NamesTheField) {
  PaceOptions options;
  EXPECT_TRUE(options.Validate().ok());
  options.target_per_second = 0;
  EXPECT_NE(options.Validate().message().find("target_per_second"),
            std::string::npos);
  options.target_per_second = std::nan("");
  EXPECT_FALSE(options.Validate().ok());
  options = {};
  options.window_max = seconds(119);
  EXPECT_NE(options.Validate().message().find("window_max"), std::string::npos);
  options = {};
  options.accepted_min = hours(25);
  EXPECT_NE(options.Validate().message().find("accepted_min"),
            std::string::npos);
  options = {};
  options.floor = {seconds(2), seconds(1)};
  EXPECT_FALSE(options.Validate().ok());
}

TEST(TokenBucketTest, Take_OverAnyStretch_AtMostBurstAndRate) {
  SeededRandom random(11);
  TokenBucket bucket(5, 20, Time{});
  Time now{};
  uint64_t taken = 0;
  for (int i = 0; i < 10'000; ++i) {
    now += Duration(static_cast<int64_t>(UniformBelow(random, 100'000)));
    taken += bucket.Take(now) ? 1 : 0;
    EXPECT_LE(static_cast<double>(taken),
              20 + 5 * Seconds(now.time_since_epoch()) + 1);
  }
  EXPECT_GE(static_cast<double>(taken),
            0.99 * 5 * Seconds(now.time_since_epoch()));
  EXPECT_FALSE(TokenBucket(bucket).Take(Time{}) && bucket.Take(Time{}) &&
               bucket.Take(Time{}) && bucket.Take(Time{}) &&
               bucket.Take(Time{}) && bucket.Take(Time{}));
}

TEST(PaceSteeringTest, Admit_BeyondTheBurst_Refused) {
  PaceSteering steering(Target(1));
  int admitted = 0;
  for (int i = 0; i < 100; ++i) {
    admitted += steering.Admit("p", Time{}) ? 1 : 0;
  }
  EXPECT_EQ(admitted, 20);
  EXPECT_TRUE(steering.Admit("another", Time{}));
  EXPECT_TRUE(steering.Admit("p", Time{} + seconds(1)));
  EXPECT_EQ(steering.View("another").target_per_second, 1);
  EXPECT_EQ(steering.View("nobody").window, Duration::zero());
}

}  // namespace
}  // namespace selvage::coordinator
