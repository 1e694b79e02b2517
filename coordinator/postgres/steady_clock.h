// Time since the machine started: for what passes between two looks at the
// database's clock, and for how long a call may still take. Only differences
// mean anything.
#pragma once

#include <chrono>

#include "base/time.h"

namespace selvage::coordinator {

class SteadyClock final : public Clock {
 public:
  Time Now() override {
    return Time(std::chrono::duration_cast<Duration>(
        std::chrono::steady_clock::now().time_since_epoch()));
  }
};

}  // namespace selvage::coordinator
