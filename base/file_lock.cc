#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace selvage {

Result<std::unique_ptr<FileLock>> FileLock::Acquire(const Path& path,
                                                    std::string_view owner) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return Internal("cannot open " + path.string() + ": " +
                    std::generic_category().message(errno));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(fd);
    if (error == EWOULDBLOCK) {
      return FailedPrecondition("directory " + path.parent_path().string() +
                                " is in use by another " + std::string(owner));
    }
    return Internal("cannot lock " + path.string() + ": " +
                    std::generic_category().message(error));
  }
  return std::unique_ptr<FileLock>(new FileLock(fd));
}

FileLock::FileLock(int fd) : fd_(fd), process_(::getpid()) {}

FileLock::~FileLock() {
  // A forked child has the same open file: closing ours would leave the lock
  // with it. The other way round, it must not take our lock away.
  if (::getpid() == process_) ::flock(fd_, LOCK_UN);
  ::close(fd_);
}

}  // namespace selvage
