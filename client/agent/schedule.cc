#include "client/agent/schedule.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

namespace selvage::agent {

Result<Duration> ParseDuration(std::string_view text) {
  constexpr std::pair<std::string_view, int64_t> kUnits[] = {
      {"ms", 1000},
      {"s", 1'000'000},
      {"m", 60'000'000},
      {"h", 3'600'000'000},
      {"d", 86'400'000'000}};
  constexpr int64_t kMost = 366 * int64_t{86'400'000'000};
  int64_t number = -1;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  for (const auto& [name, micros] : kUnits) {
    if (error == std::errc() && unit == name && number >= 0 &&
        number <= kMost / micros) {
      return Duration(number * micros);
    }
  }
  return InvalidArgument("the time (" + std::string(text) +
                         ") is not like 90s, 10m, 2h or 1d, up to 366d");
}

Schedule::Schedule(const ScheduleOptions& options, Time now,
                   RandomSource& random)
    : options_(options),
      random_(random),
      planned_(now),
      next_(now + Jitter()) {}

Duration Schedule::Jitter() {
  return Duration(static_cast<int64_t>(
      UniformUnit(random_) * static_cast<double>(options_.jitter.count())));
}

Time Schedule::Due(Time now) {
  if (now < planned_) {
    next_ = now + (next_ - planned_);
    planned_ = now;
  }
  return next_;
}

void Schedule::Ran(Time now, Time window) {
  planned_ = now;
  next_ = std::max(now, window);
  if (options_.every > Duration::zero()) {
    next_ = std::max(next_, now + options_.every + Jitter());
  }
}

void Schedule::Hurry(Time now) {
  planned_ = now;
  next_ = now;
}

}  // namespace selvage::agent
