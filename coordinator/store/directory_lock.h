// One process per data directory, enforced by flock(2): the kernel releases it
// however the process ends.
#pragma once

#include <memory>

#include "base/file_system.h"
#include "base/status.h"

namespace selvage::coordinator {

class DirectoryLock {
 public:
  // Locks DIRECTORY/LOCK, creating it. FAILED_PRECONDITION if another process
  // (or another DirectoryLock of this one) holds it.
  static Result<std::unique_ptr<DirectoryLock>> Acquire(const Path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace selvage::coordinator
