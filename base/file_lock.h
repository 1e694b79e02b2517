// One owner of a directory at a time, enforced by flock(2) on a file in it: the
// kernel releases it however the process ends. Children that were forked
// meanwhile do not hold it once it is released here.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string_view>

#include "base/file_system.h"
#include "base/status.h"

namespace selvage {

class FileLock {
 public:
  // Locks the file at `path`, creating it (0600). FAILED_PRECONDITION if
  // another process, or another FileLock of this one, holds it; it names the
  // directory and says "another `owner`". INTERNAL if it cannot be opened or
  // locked.
  static Result<std::unique_ptr<FileLock>> Acquire(const Path& path,
                                                   std::string_view owner);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int fd);
  const int fd_;
  const pid_t process_;
};

}  // namespace selvage
