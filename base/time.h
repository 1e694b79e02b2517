// Time as the state machines see it: a value handed in, never asked for.
#pragma once

#include <chrono>
#include <cstdint>

namespace selvage {

using Duration = std::chrono::duration<int64_t, std::micro>;

// A tag clock: it has no now(), so code that holds a Time cannot quietly read
// the machine's clock. Only Clock (below) produces one.
struct LogicalClock {
  using rep = int64_t;
  using period = std::micro;
  using duration = Duration;
  using time_point = std::chrono::time_point<LogicalClock>;
  static constexpr bool is_steady = true;
};
using Time = LogicalClock::time_point;

// "Never": the deadline of something that has none.
inline constexpr Time kNever = Time::max();

// The one place that reads the machine's clock. Production wiring owns a
// SystemClock; tests own a FakeClock (tests/testing/fake_clock.h).
class Clock {
 public:
  virtual ~Clock() = default;
  // Microseconds since the Unix epoch. May jump, also backwards: whoever needs
  // monotone time across restarts asks its Store (coordinator::Store::Now()).
  // Thread-safe.
  virtual Time Now() = 0;
};

class SystemClock final : public Clock {
 public:
  Time Now() override {
    return Time(std::chrono::duration_cast<Duration>(
        std::chrono::system_clock::now().time_since_epoch()));
  }
};

// Microseconds since the Unix epoch, as stored and sent.
constexpr int64_t ToMicros(Time t) { return t.time_since_epoch().count(); }
constexpr Time FromMicros(int64_t micros) { return Time(Duration(micros)); }

}  // namespace selvage
