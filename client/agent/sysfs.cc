#include "client/agent/sysfs.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <vector>

namespace selvage::agent {
namespace {

// What a file of sysfs says, without its end of line; "" if it does not.
std::string ReadText(const Path& path) {
  std::ifstream in(path);
  char buffer[256];
  in.read(buffer, sizeof buffer);
  std::string text(
      buffer, static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  text.erase(std::find_if(text.begin(), text.end(),
                          [](char c) { return c == '\n' || c == '\0'; }),
             text.end());
  return text;
}

std::optional<int64_t> ReadNumber(const Path& path) {
  const std::string text = ReadText(path);
  int64_t value = 0;
  const auto result =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::vector<Path> Entries(const Path& folder) {
  std::vector<Path> out;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end;
       !error && it != end; it.increment(error)) {
    out.push_back(it->path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

struct Battery {
  double level = 0;
  std::optional<int64_t> energy_full;
};

// 0..1 of PREFIX_now and PREFIX_full.
std::optional<double> Share(const Path& supply, const std::string& prefix,
                            std::optional<int64_t>* full_out = nullptr) {
  const std::optional<int64_t> now = ReadNumber(supply / (prefix + "_now"));
  const std::optional<int64_t> full = ReadNumber(supply / (prefix + "_full"));
  if (!now.has_value() || !full.has_value() || *now < 0 || *full <= 0 ||
      *now > *full + *full / 4) {
    return std::nullopt;
  }
  if (full_out != nullptr) *full_out = full;
  return std::min(1.0, static_cast<double>(*now) / static_cast<double>(*full));
}

Battery ReadBattery(const Path& supply) {
  Battery battery;
  const std::optional<double> energy =
      Share(supply, "energy", &battery.energy_full);
  const std::optional<int64_t> capacity = ReadNumber(supply / "capacity");
  if (capacity.has_value() && *capacity >= 0 && *capacity <= 100) {
    battery.level = static_cast<double>(*capacity) / 100;
  } else if (energy.has_value()) {
    battery.level = *energy;
  } else {
    battery.level = Share(supply, "charge").value_or(0);
  }
  return battery;
}

}  // namespace

PowerState ReadPower(const Path& root) {
  std::vector<Battery> batteries;
  bool any_supply = false;
  bool online = false;
  bool discharging = false;
  bool filling = false;
  for (const Path& supply : Entries(root / "class" / "power_supply")) {
    const std::string type = ReadText(supply / "type");
    if (ReadText(supply / "scope") == "Device") continue;
    if (type == "Battery" || type == "UPS") {
      if (ReadNumber(supply / "present") == 0) continue;
      const std::string status = ReadText(supply / "status");
      discharging |= status == "Discharging";
      filling |=
          status == "Charging" || status == "Full" || status == "Not charging";
      batteries.push_back(ReadBattery(supply));
    } else if (!type.empty()) {
      any_supply = true;
      online |= ReadNumber(supply / "online").value_or(0) > 0;
    }
  }
  if (batteries.empty()) return {};
  const bool weighed =
      std::all_of(batteries.begin(), batteries.end(),
                  [](const Battery& b) { return b.energy_full.has_value(); });
  double sum = 0;
  double weights = 0;
  for (const Battery& battery : batteries) {
    const double weight =
        weighed ? static_cast<double>(*battery.energy_full) : 1;
    sum += weight * battery.level;
    weights += weight;
  }
  return {.charging = !discharging && (any_supply ? online : filling),
          .level = sum / weights};
}

int32_t ReadThermal(const Path& root) {
  constexpr int64_t kMargin = 5000;  // millidegrees
  constexpr int kTripsMax = 32;
  int32_t worst = SELVAGE_THERMAL_NOMINAL;
  for (const Path& zone : Entries(root / "class" / "thermal")) {
    if (!zone.filename().string().starts_with("thermal_zone") ||
        ReadText(zone / "mode") == "disabled") {
      continue;
    }
    const std::optional<int64_t> temperature = ReadNumber(zone / "temp");
    if (!temperature.has_value() || *temperature < -100'000 ||
        *temperature > 250'000) {
      continue;
    }
    for (int i = 0; i < kTripsMax; ++i) {
      const std::string trip = "trip_point_" + std::to_string(i);
      const std::string type = ReadText(zone / (trip + "_type"));
      if (type.empty()) break;
      const std::optional<int64_t> point = ReadNumber(zone / (trip + "_temp"));
      if (!point.has_value() || *point <= 0) continue;
      int32_t level = SELVAGE_THERMAL_NOMINAL;
      if ((type == "critical" && *temperature >= *point - kMargin) ||
          (type == "hot" && *temperature >= *point)) {
        level = SELVAGE_THERMAL_CRITICAL;
      } else if (type == "passive" && *temperature >= *point) {
        level = SELVAGE_THERMAL_SERIOUS;
      } else if (type == "passive" && *temperature >= *point - kMargin) {
        level = SELVAGE_THERMAL_FAIR;
      }
      worst = std::max(worst, level);
    }
  }
  return worst;
}

std::optional<double> ParseLoad(std::string_view loadavg) {
  double value = 0;
  const auto result =
      std::from_chars(loadavg.data(), loadavg.data() + loadavg.size(), value);
  if (result.ec != std::errc() || !std::isfinite(value) || value < 0) {
    return std::nullopt;
  }
  return value;
}

bool IdleMeter::Update(Time now, double load, Duration cpu) {
  if (last_.has_value() && now > *last_) {
    const double seconds = static_cast<double>((now - *last_).count()) / 1e6;
    const double used =
        static_cast<double>((cpu - last_cpu_).count()) / 1e6 / seconds;
    const double keep = std::exp(-seconds / 60);
    own_ = own_ * keep + used * (1 - keep);
  }
  last_ = now;
  last_cpu_ = cpu;
  return load - own_ < load_max_;
}

DeviceState::DeviceState(DeviceStateOptions options, Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      idle_(options_.idle_load_max * options_.cpus) {}

host::Conditions DeviceState::Now() {
  const Time now = clock_.Now();
  if (read_.has_value() && now >= *read_ &&
      now - *read_ < std::chrono::seconds(1)) {
    return last_;
  }
  read_ = now;
  const PowerState power = ReadPower(options_.sys);
  last_.charging = power.charging;
  last_.battery = power.level;
  last_.thermal = ReadThermal(options_.sys);
  std::error_code ignored;
  last_.unmetered = !options_.metered &&
                    (options_.metered_file.empty() ||
                     !std::filesystem::exists(options_.metered_file, ignored));
  last_.idle = true;
  if (options_.idle_load_max > 0) {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto micros = [](const timeval& t) {
      return Duration(int64_t{t.tv_sec} * 1'000'000 + t.tv_usec);
    };
    const std::optional<double> load =
        ParseLoad(ReadText(options_.proc / "loadavg"));
    last_.idle = load.has_value() &&
                 idle_.Update(now, *load,
                              micros(usage.ru_utime) + micros(usage.ru_stime));
  }
  return last_;
}

}  // namespace selvage::agent
