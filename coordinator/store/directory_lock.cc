#include "coordinator/store/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace selvage::coordinator {

Result<std::unique_ptr<DirectoryLock>> DirectoryLock::Acquire(
    const Path& directory) {
  const Path path = directory / "LOCK";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return Internal("cannot open " + path.string() + ": " +
                    std::generic_category().message(errno));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(fd);
    if (error == EWOULDBLOCK) {
      return FailedPrecondition("data directory " + directory.string() +
                                " is in use by another coordinator");
    }
    return Internal("cannot lock " + path.string() + ": " +
                    std::generic_category().message(error));
  }
  return std::unique_ptr<DirectoryLock>(new DirectoryLock(fd));
}

DirectoryLock::~DirectoryLock() { ::close(fd_); }

}  // namespace selvage::coordinator
