// When the next session is due: by timer with jitter, and never before the
// library's own window.
#pragma once

#include <string_view>

#include "base/random.h"
#include "base/status.h"
#include "base/time.h"

namespace selvage::agent {

// "250ms", "90s", "10m", "2h", "1d"; at most 366 days. INVALID_ARGUMENT.
Result<Duration> ParseDuration(std::string_view text);

struct ScheduleOptions {
  Duration every{};   // zero: only the library's window counts
  Duration jitter{};  // up to this much later, evenly drawn
};

// Thread-compatible.
class Schedule {
 public:
  // The first session comes within `jitter` from now. `random` must outlive it.
  Schedule(const ScheduleOptions& options, Time now, RandomSource& random);

  // When the next one is due. If the clock was set back since it was planned,
  // as much later as it was planned, but no more.
  Time Due(Time now);
  // After a session that ended now; `window`: when the library wants to be
  // called again.
  void Ran(Time now, Time window);
  // At once.
  void Hurry(Time now);

 private:
  Duration Jitter();

  const ScheduleOptions options_;
  RandomSource& random_;
  Time planned_;  // when next_ was decided
  Time next_;
};

}  // namespace selvage::agent
