// A clock that runs like the machine's, except that whoever would have to wait
// jumps ahead instead.
#pragma once

#include <atomic>

#include "base/time.h"

namespace selvage::test {

// Thread-safe.
class JumpingClock final : public Clock {
 public:
  explicit JumpingClock(Duration ahead = Duration::zero())
      : ahead_(ahead.count()) {}
  Time Now() override { return clock_.Now() + Duration(ahead_.load()); }
  // It is at least `t` now.
  void JumpTo(Time t) {
    const Duration wait = t - Now();
    if (wait > Duration::zero()) ahead_ += wait.count();
  }

 private:
  SystemClock clock_;
  std::atomic<int64_t> ahead_;  // microseconds
};

}  // namespace selvage::test
