#include "client/agent/sysfs.h"

#include <fstream>

#include <gmock/gmock.h>

#include "client/agent/schedule.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::agent {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using test::IsOk;
using test::StatusIs;

class SysfsTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const Path file = root_ / "class" / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  void Battery(const std::string& name, const std::string& status,
               const std::string& capacity) {
    Write("power_supply/" + name + "/type", "Battery");
    Write("power_supply/" + name + "/status", status);
    Write("power_supply/" + name + "/capacity", capacity);
  }
  void Mains(const std::string& online) {
    Write("power_supply/AC/type", "Mains");
    Write("power_supply/AC/online", online);
  }
  void Zone(const std::string& temperature) {
    Write("thermal/thermal_zone0/temp", temperature);
    Write("thermal/thermal_zone0/trip_point_0_type", "passive");
    Write("thermal/thermal_zone0/trip_point_0_temp", "80000");
    Write("thermal/thermal_zone0/trip_point_1_type", "critical");
    Write("thermal/thermal_zone0/trip_point_1_temp", "100000");
  }

  test::ScratchFolder directory_;
  Path root_ = directory_.path();
};

TEST_F(SysfsTest, ReadPower_NoBattery_RunsOnMains) {
  EXPECT_TRUE(ReadPower(root_).charging);
  EXPECT_EQ(ReadPower(root_).level, 1);
  Mains("0");
  EXPECT_TRUE(ReadPower(root_).charging);
  // A mouse's.
  Battery("hidpp", "Discharging", "5");
  Write("power_supply/hidpp/scope", "Device");
  EXPECT_TRUE(ReadPower(root_).charging);
}

TEST_F(SysfsTest, ReadPower_Battery_FollowsTheSupply) {
  Battery("BAT0", "Discharging", "42");
  Mains("0");
  EXPECT_FALSE(ReadPower(root_).charging);
  EXPECT_DOUBLE_EQ(ReadPower(root_).level, 0.42);
  Battery("BAT0", "Not charging", "80");
  EXPECT_FALSE(ReadPower(root_).charging);
  Mains("1");
  EXPECT_TRUE(ReadPower(root_).charging);
  // A charger that is too weak.
  Battery("BAT0", "Discharging", "80");
  EXPECT_FALSE(ReadPower(root_).charging);
}

TEST_F(SysfsTest, ReadPower_BatteryWithoutSupply_GoesByItsStatus) {
  for (const auto& [status, charging] : {std::pair{"Charging", true},
                                         {"Full", true},
                                         {"Discharging", false},
                                         {"Unknown", false},
                                         {"", false}}) {
    Battery("BAT0", status, "50");
    EXPECT_EQ(ReadPower(root_).charging, charging) << status;
  }
}

TEST_F(SysfsTest, ReadPower_SeveralBatteries_AreWeighedByEnergy) {
  Battery("BAT0", "Full", "100");
  Battery("BAT1", "Charging", "0");
  EXPECT_DOUBLE_EQ(ReadPower(root_).level, 0.5);
  Write("power_supply/BAT0/energy_now", "30");
  Write("power_supply/BAT0/energy_full", "30");
  Write("power_supply/BAT1/energy_now", "0");
  Write("power_supply/BAT1/energy_full", "10");
  EXPECT_DOUBLE_EQ(ReadPower(root_).level, 0.75);
  Write("power_supply/BAT1/present", "0");
  EXPECT_DOUBLE_EQ(ReadPower(root_).level, 1);
}

TEST_F(SysfsTest, ReadPower_Garbage_CountsAsEmpty) {
  for (const char* capacity : {"", "full", "-3", "101", "50%", "9e9"}) {
    Battery("BAT0", "Charging", capacity);
    EXPECT_EQ(ReadPower(root_).level, 0) << capacity;
  }
  Write("power_supply/BAT0/charge_now", "900");
  Write("power_supply/BAT0/charge_full", "1000");
  EXPECT_DOUBLE_EQ(ReadPower(root_).level, 0.9);
}

TEST_F(SysfsTest, ReadThermal_TripPoints_DecideTheLevel) {
  EXPECT_EQ(ReadThermal(root_), SELVAGE_THERMAL_NOMINAL);
  for (const auto& [temperature, level] :
       {std::pair{"40000", SELVAGE_THERMAL_NOMINAL},
        {"76000", SELVAGE_THERMAL_FAIR},
        {"80000", SELVAGE_THERMAL_SERIOUS},
        {"95000", SELVAGE_THERMAL_CRITICAL},
        {"999999", SELVAGE_THERMAL_NOMINAL},
        {"hot", SELVAGE_THERMAL_NOMINAL}}) {
    Zone(temperature);
    EXPECT_EQ(ReadThermal(root_), static_cast<int32_t>(level)) << temperature;
  }
  Zone("99000");
  Write("thermal/thermal_zone0/mode", "disabled");
  EXPECT_EQ(ReadThermal(root_), SELVAGE_THERMAL_NOMINAL);
}

TEST_F(SysfsTest, Now_MeteredFile_IsLookedAtAgainAfterASecond) {
  test::FakeClock clock;
  clock.Advance(hours(1));
  const Path metered = root_ / "metered";
  DeviceState state({.sys = root_, .metered_file = metered}, clock);
  EXPECT_TRUE(state.Now().unmetered);
  std::ofstream(metered) << "";
  EXPECT_TRUE(state.Now().unmetered);
  clock.Advance(seconds(1));
  EXPECT_FALSE(state.Now().unmetered);
  DeviceState always({.sys = root_, .metered = true}, clock);
  EXPECT_FALSE(always.Now().unmetered);
}

TEST_F(SysfsTest, Update_OwnWork_IsNotSomebodyElses) {
  IdleMeter meter(0.5);
  Time now = FromMicros(0);
  EXPECT_TRUE(meter.Update(now, 0.2, Duration::zero()));
  EXPECT_FALSE(meter.Update(now, 0.9, Duration::zero()));
  // A load of two, all of it ours, for five minutes.
  Duration cpu{};
  for (int i = 0; i < 300; ++i) {
    now += seconds(1);
    cpu += seconds(2);
    meter.Update(now, 2, cpu);
  }
  EXPECT_TRUE(meter.Update(now, 2, cpu));
  EXPECT_FALSE(meter.Update(now, 3, cpu));
  EXPECT_EQ(ParseLoad("0.52 0.58 0.59 1/389 12"), 0.52);
  EXPECT_EQ(ParseLoad("much"), std::nullopt);
}

TEST(ScheduleTest, Ran_LibrarysWindow_WinsWhenItIsLater) {
  SeededRandom random(3);
  const Time start = FromMicros(1'000'000'000);
  Schedule schedule({.every = hours(1), .jitter = minutes(10)}, start, random);
  EXPECT_GE(schedule.Due(start), start);
  EXPECT_LT(schedule.Due(start), start + minutes(10));
  std::set<Time> dues;
  for (int i = 0; i < 50; ++i) {
    schedule.Ran(start, start + minutes(1));
    EXPECT_GE(schedule.Due(start), start + hours(1));
    EXPECT_LT(schedule.Due(start), start + hours(1) + minutes(10));
    dues.insert(schedule.Due(start));
  }
  EXPECT_GT(dues.size(), 40U);
  schedule.Ran(start, start + hours(5));
  EXPECT_EQ(schedule.Due(start), start + hours(5));
  schedule.Hurry(start + minutes(1));
  EXPECT_EQ(schedule.Due(start + minutes(1)), start + minutes(1));
}

TEST(ScheduleTest, Due_ClockSetBack_IsNotDelayedByIt) {
  SeededRandom random(3);
  const Time start = FromMicros(0) + hours(24 * 365);
  Schedule schedule({.every = hours(1)}, start, random);
  schedule.Ran(start, start);
  const Time back = start - hours(24 * 30);
  EXPECT_EQ(schedule.Due(back), back + hours(1));
  EXPECT_EQ(schedule.Due(back + minutes(5)), back + hours(1));
}

TEST(ScheduleTest, Ran_NoTimer_IsTheWindow) {
  SeededRandom random(3);
  const Time start = FromMicros(1'000'000'000);
  Schedule schedule({}, start, random);
  EXPECT_EQ(schedule.Due(start), start);
  schedule.Ran(start, start + minutes(3));
  EXPECT_EQ(schedule.Due(start), start + minutes(3));
}

TEST(ScheduleTest, ParseDuration_Units_AreKnown) {
  EXPECT_EQ(*ParseDuration("250ms"), std::chrono::milliseconds(250));
  EXPECT_EQ(*ParseDuration("10m"), minutes(10));
  EXPECT_EQ(*ParseDuration("0s"), Duration::zero());
  EXPECT_EQ(*ParseDuration("366d"), hours(366 * 24));
  for (const char* text : {"", "1", "h", "-1s", "1.5h", "1w", "367d",
                           "99999999999999999999s", "1h30m"}) {
    EXPECT_THAT(ParseDuration(text), StatusIs(StatusCode::kInvalidArgument))
        << text;
  }
}

}  // namespace
}  // namespace selvage::agent
