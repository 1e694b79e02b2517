// One client per state directory, enforced by flock(2): the kernel releases it
// however the process ends. Children that were forked meanwhile do not hold it
// once it is released here.
#pragma once

#include <sys/types.h>

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
  explicit StateLock(int fd);
  const int fd_;
  const pid_t process_;
};

}  // namespace selvage::client
