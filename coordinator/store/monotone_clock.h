// Time that never goes back: a Clock plus an offset that grows by whatever the
// Clock loses. After a jump back by an hour it goes on from where it was, at
// the usual speed, instead of standing still for an hour.
#pragma once

#include <algorithm>

#include "base/mutex.h"
#include "base/time.h"

namespace selvage::coordinator {

// Thread-safe.
class MonotoneClock {
 public:
  // Never returns less than `floor`. `clock` must outlive this.
  MonotoneClock(Clock& clock, Time floor) : clock_(clock), last_(floor) {}

  Time Now() SELVAGE_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const Time raw = clock_.Now();
    if (raw + offset_ < last_) offset_ = last_ - raw;
    last_ = raw + offset_;
    return last_;
  }
  // Another clock shows `time` now: goes on from there, or from where it was if
  // that is later.
  void Observe(Time time) SELVAGE_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const Time raw = clock_.Now();
    offset_ = std::max(time, last_) - raw;
    last_ = raw + offset_;
  }
  // The latest time that was returned or observed, or the floor.
  Time last() SELVAGE_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return last_;
  }

 private:
  Clock& clock_;
  Mutex mu_;
  Duration offset_ SELVAGE_GUARDED_BY(mu_){};
  Time last_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator
