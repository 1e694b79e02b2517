// The database's clock as this process sees it between two transactions: every
// transaction reads it, and a steady clock counts on from there.
#pragma once

#include <algorithm>

#include "base/mutex.h"
#include "base/time.h"

namespace selvage::coordinator {

// Thread-safe. Never goes back, whatever the database's clock does: when that
// falls behind (a failover to a machine whose clock is slow), it goes on from
// where it was at the usual speed.
class DatabaseClock {
 public:
  // Of `clock` only differences matter; it must outlive this. Zero until the
  // first Observe().
  explicit DatabaseClock(Clock& clock) : clock_(clock) {}

  // The database's clock was `database` a moment ago.
  void Observe(Time database) SELVAGE_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const Time raw = clock_.Now();
    offset_ = std::max(database, last_) - raw;
    last_ = raw + offset_;
  }
  Time Now() SELVAGE_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const Time raw = clock_.Now();
    if (raw + offset_ < last_) offset_ = last_ - raw;
    last_ = raw + offset_;
    return last_;
  }

 private:
  Clock& clock_;
  Mutex mu_;
  Duration offset_ SELVAGE_GUARDED_BY(mu_){};
  Time last_ SELVAGE_GUARDED_BY(mu_){};
};

}  // namespace selvage::coordinator
