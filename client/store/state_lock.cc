#include "client/store/state_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace selvage::client {

Result<std::unique_ptr<StateLock>> StateLock::Acquire(const Path& directory) {
  const Path path = directory / "lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return Internal("cannot open " + path.string() + ": " +
                    std::generic_category().message(errno));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(fd);
    if (error == EWOULDBLOCK) {
      return FailedPrecondition("state directory " + directory.string() +
                                " is in use by another client");
    }
    return Internal("cannot lock " + path.string() + ": " +
                    std::generic_category().message(error));
  }
  return std::unique_ptr<StateLock>(new StateLock(fd));
}

StateLock::StateLock(int fd) : fd_(fd), process_(::getpid()) {}

StateLock::~StateLock() {
  // A forked child has the same open file: closing ours would leave the lock
  // with it. The other way round, it must not take our lock away.
  if (::getpid() == process_) ::flock(fd_, LOCK_UN);
  ::close(fd_);
}

}  // namespace selvage::client
