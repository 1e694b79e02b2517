#pragma once

#include "base/mutex.h"
#include "base/time.h"

namespace selvage::test {

// A clock that moves only when the test says so.
class FakeClock final : public Clock {
 public:
  Time Now() override {
    MutexLock lock(mu_);
    return now_;
  }
  void Advance(Duration d) {
    MutexLock lock(mu_);
    now_ += d;
  }

 private:
  Mutex mu_;
  Time now_ SELVAGE_GUARDED_BY(mu_){};
};

}  // namespace selvage::test
