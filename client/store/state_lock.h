// One client per state directory, enforced by flock(2): the kernel releases it
// however the process ends.
#pragma once

#include <memory>

#include "base/file_system.h"
#include "base/status.h"

namespace selvage::client {

class StateLock {
 public:
  // Locks DIRECTORY/lock, creating it. FAILED_PRECONDITION if another process,
  // or another client of this one, holds it.
  static Result<std::unique_ptr<StateLock>> Acquire(const Path& directory);
  ~StateLock();
  StateLock(const StateLock&) = delete;
  StateLock& operator=(const StateLock&) = delete;

 private:
  explicit StateLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace selvage::client
