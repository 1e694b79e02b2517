// The state of the device as the kernel tells it: what a plan's conditions are
// compared with.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/file_system.h"
#include "base/time.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

struct PowerState {
  bool charging = true;
  double level = 1;  // 0..1
};

// ROOT/class/power_supply (Documentation/ABI/testing/sysfs-class-power).
//
// Without a battery of the system (scope "Device" is a mouse's) the device runs
// on mains. With several, the level is that of all together, by their energy
// where each tells it. A battery whose level cannot be read, or makes no sense,
// counts as empty. Charging: a supply is online, or without any supply a
// battery says Charging, Full or Not charging; but never while a battery says
// Discharging.
PowerState ReadPower(const Path& root);

// ROOT/class/thermal: the hottest zone against its own trip points: CRITICAL
// from `hot`, or 5 degrees below `critical`; SERIOUS from `passive`; FAIR from
// 5 degrees below `passive`. Zones that are disabled, or whose temperature is
// not in -100..250 degrees, are passed over, and so are trip points that are
// not above zero.
int32_t ReadThermal(const Path& root);

// The first number of /proc/loadavg.
std::optional<double> ParseLoad(std::string_view loadavg);

// Whether somebody else uses the machine: the load without what this process
// adds to it, which is averaged over the same minute. Thread-compatible.
class IdleMeter {
 public:
  // Idle below `load_max` (per CPU: divide by their number).
  explicit IdleMeter(double load_max) : load_max_(load_max) {}

  // `cpu`: what this process has used since it started.
  bool Update(Time now, double load, Duration cpu);

 private:
  const double load_max_;
  std::optional<Time> last_;
  Duration last_cpu_{};
  double own_ = 0;
};

struct DeviceStateOptions {
  Path sys = "/sys";
  Path proc = "/proc";
  bool metered = false;      // the network costs
  Path metered_file = {};    // it costs while this exists; empty: none
  double idle_load_max = 0;  // 0: always idle
  int cpus = 1;
};

// What the library's conditions callback answers. Looked at again after a
// second: training steps are shorter. Thread-compatible.
class DeviceState {
 public:
  // `clock` must outlive it.
  DeviceState(DeviceStateOptions options, Clock& clock);
  host::Conditions Now();

 private:
  const DeviceStateOptions options_;
  Clock& clock_;
  IdleMeter idle_;
  std::optional<Time> read_;
  host::Conditions last_;
};

}  // namespace selvage::agent
