// What the loop of a device waits with.
#pragma once

#include <memory>

#include "base/file_system.h"
#include "base/status.h"
#include "base/time.h"

namespace selvage::agent {

class Waiter {
 public:
  virtual ~Waiter() = default;
  // Until about `until`, or until something happened: Wake(), or a change in
  // the folder. May come back early. One thread at a time.
  virtual void WaitUntil(Time until) = 0;
  // Thread-safe. The next WaitUntil comes back at once, if none is under way.
  virtual void Wake() = 0;
};

// eventfd, and inotify where there is any: a hint only, folders on a network
// have none. Never waits longer than ten seconds, because the clock may be set.
// `watched`: a folder, or empty. `clock` must outlive it.
Result<std::unique_ptr<Waiter>> MakeWaiter(const Path& watched, Clock& clock);

}  // namespace selvage::agent
