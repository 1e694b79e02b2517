#include "base/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace selvage {
namespace {

Status FromErrno(int error, std::string_view what, const Path& path) {
  std::string message(what);
  message += " " + path.string() + ": " +
             std::error_code(error, std::generic_category()).message();
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return NotFound(std::move(message));
    case EEXIST:
      return AlreadyExists(std::move(message));
    case EACCES:
    case EPERM:
    case EROFS:
      return PermissionDenied(std::move(message));
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EFBIG:
      return ResourceExhausted(std::move(message));
    default:
      return Internal(std::move(message));
  }
}

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(int fd, Path path) : fd_(fd), path_(std::move(path)) {}
  ~PosixWritableFile() override {
    if (fd_ >= 0) ::close(fd_);
  }
  PosixWritableFile(const PosixWritableFile&) = delete;
  PosixWritableFile& operator=(const PosixWritableFile&) = delete;

  Status Append(ByteSpan bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FromErrno(errno, "cannot write", path_);
      bytes = bytes.subspan(static_cast<size_t>(n));
      unstarted_ += n;
    }
    StartWriting();
    return OkStatus();
  }
  Status Sync() override {
    if (::fsync(fd_) != 0) return FromErrno(errno, "cannot sync", path_);
    return OkStatus();
  }
  Status Close() override {
    const int fd = std::exchange(fd_, -1);
    if (fd >= 0 && ::close(fd) != 0) {
      return FromErrno(errno, "cannot close", path_);
    }
    return OkStatus();
  }

 private:
  // Has the kernel begin to move what was appended to the disk, so that Sync()
  // finds less to wait for. Only a hint: whether it works, Sync() tells.
  void StartWriting() {
#ifdef SYNC_FILE_RANGE_WRITE
    if (unstarted_ < kStartBytes) return;
    const off_t end = ::lseek(fd_, 0, SEEK_CUR);
    if (end >= unstarted_) {
      static_cast<void>(::sync_file_range(fd_, end - unstarted_, unstarted_,
                                          SYNC_FILE_RANGE_WRITE));
    }
    unstarted_ = 0;
#endif
  }

  static constexpr off_t kStartBytes = off_t{1} << 20;

  int fd_;
  off_t unstarted_ = 0;  // appended since StartWriting() did something
  const Path path_;
};

class PosixReadableFile final : public ReadableFile {
 public:
  PosixReadableFile(int fd, uint64_t size, Path path)
      : fd_(fd), size_(size), path_(std::move(path)) {}
  ~PosixReadableFile() override { ::close(fd_); }
  PosixReadableFile(const PosixReadableFile&) = delete;
  PosixReadableFile& operator=(const PosixReadableFile&) = delete;

  uint64_t size() const override { return size_; }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done,
                                static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FromErrno(errno, "cannot read", path_);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

 private:
  const int fd_;
  const uint64_t size_;
  const Path path_;
};

}  // namespace

Result<std::unique_ptr<WritableFile>> PosixFileSystem::Create(const Path& path,
                                                              int mode) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                        static_cast<mode_t>(mode));
  if (fd < 0) return FromErrno(errno, "cannot create", path);
  // open() leaves the permissions of a file that was there already.
  if (::fchmod(fd, static_cast<mode_t>(mode)) != 0) {
    const int error = errno;
    ::close(fd);
    return FromErrno(error, "cannot set the permissions of", path);
  }
  return std::unique_ptr<WritableFile>(new PosixWritableFile(fd, path));
}

Result<std::unique_ptr<ReadableFile>> PosixFileSystem::Open(const Path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FromErrno(errno, "cannot open", path);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    const int error = S_ISREG(info.st_mode) ? errno : EISDIR;
    ::close(fd);
    return FromErrno(error, "cannot open", path);
  }
  return std::unique_ptr<ReadableFile>(
      new PosixReadableFile(fd, static_cast<uint64_t>(info.st_size), path));
}

Status PosixFileSystem::Rename(const Path& from, const Path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return FromErrno(errno, "cannot rename to", to);
  }
  return OkStatus();
}

Status PosixFileSystem::SyncDirectory(const Path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FromErrno(errno, "cannot open directory", directory);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0) return FromErrno(error, "cannot sync directory", directory);
  return OkStatus();
}

Status PosixFileSystem::Remove(const Path& path) {
  if (::unlink(path.c_str()) != 0) {
    return FromErrno(errno, "cannot remove", path);
  }
  return OkStatus();
}

Status PosixFileSystem::CreateDirectories(const Path& path) {
  Path so_far;
  for (const Path& part : path) {
    so_far /= part;
    if (::mkdir(so_far.c_str(), 0700) == 0) {
      const Path parent = so_far.parent_path();
      SELVAGE_RETURN_IF_ERROR(SyncDirectory(parent.empty() ? "." : parent));
    } else if (errno != EEXIST) {
      return FromErrno(errno, "cannot create directory", so_far);
    }
  }
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    return AlreadyExists(path.string() + " exists and is not a directory");
  }
  return OkStatus();
}

Result<std::vector<std::string>> PosixFileSystem::List(const Path& directory) {
  std::error_code error;
  std::filesystem::directory_iterator it(directory, error);
  if (error) return FromErrno(error.value(), "cannot list", directory);
  std::vector<std::string> names;
  for (; it != std::filesystem::directory_iterator(); it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  // An increment that fails also ends the loop.
  if (error) return FromErrno(error.value(), "cannot list", directory);
  std::sort(names.begin(), names.end());
  return names;
}

Result<uint64_t> PosixFileSystem::FreeBytes(const Path& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) {
    return FromErrno(errno, "cannot inspect the file system of", path);
  }
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

Status WriteFileDurably(FileSystem& fs, const Path& path, ByteSpan contents,
                        int mode) {
  Path temporary = path;
  temporary += ".tmp";
  const auto write = [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                             fs.Create(temporary, mode));
    SELVAGE_RETURN_IF_ERROR(file->Append(contents));
    SELVAGE_RETURN_IF_ERROR(file->Sync());
    SELVAGE_RETURN_IF_ERROR(file->Close());
    return fs.Rename(temporary, path);
  };
  if (Status status = write(); !status.ok()) {
    (void)fs.Remove(temporary);  // best effort: the write's error matters more
    return status;
  }
  return fs.SyncDirectory(path.has_parent_path() ? path.parent_path()
                                                 : Path("."));
}

Result<Bytes> ReadFile(FileSystem& fs, const Path& path, uint64_t size_max) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file,
                           fs.Open(path));
  if (file->size() > size_max) {
    return ResourceExhausted(
        path.string() + " is " + std::to_string(file->size()) +
        " bytes, the limit is " + std::to_string(size_max));
  }
  Bytes contents(static_cast<size_t>(file->size()));
  SELVAGE_ASSIGN_OR_RETURN(const size_t read, file->ReadAt(0, contents));
  contents.resize(read);
  return contents;
}

}  // namespace selvage
