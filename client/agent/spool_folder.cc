#include "client/agent/spool_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "client/agent/json.h"

namespace selvage::agent {
namespace {

constexpr size_t kUnitsMax = 10'000;
constexpr int kDepthMax = 8;
constexpr const char* kDone = "done";
constexpr const char* kFailed = "failed";
constexpr const char* kTrash = ".selvage-trash";

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status StatusOfErrno(int error, const std::string& what) {
  const std::string text = what + ": " + std::strerror(error);
  switch (error) {
    case ENOENT:
      return NotFound(text);
    case EACCES:
    case EPERM:
      return PermissionDenied(text);
    case ELOOP:
    case ENOTDIR:
    case ENXIO:
    case ENAMETOOLONG:
      return InvalidArgument(text);
    case ENOSPC:
    case EDQUOT:
      return ResourceExhausted(text);
    default:
      return Internal(text);
  }
}

bool IsPassedOver(const std::string& name) {
  return name.starts_with(".") || name.ends_with(".tmp") ||
         name.ends_with(".part") || name == kDone || name == kFailed;
}

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The regular files and folders in a folder below `fd`, by `time_of` their
// stat, then by name.
template <typename TimeOf>
Result<std::vector<SpoolUnit>> ListFolder(int fd, const char* folder,
                                          TimeOf time_of) {
  // Of its own: reading moves a position that duplicates share.
  const int at =
      openat(fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (at < 0) return StatusOfErrno(errno, Quoted(folder));
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(fdopendir(at), closedir);
  if (directory == nullptr) {
    const int error = errno;
    close(at);
    return StatusOfErrno(error, Quoted(folder));
  }
  std::vector<SpoolUnit> units;
  while (units.size() < kUnitsMax) {
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    struct stat info {};
    if (name == "." || name == ".." ||
        fstatat(at, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      continue;
    }
    const bool is_folder = S_ISDIR(info.st_mode);
    if (!is_folder && !S_ISREG(info.st_mode)) continue;
    units.push_back({.name = name,
                     .folder = is_folder,
                     .modified_ns = Nanoseconds(time_of(info)),
                     .inode = info.st_ino});
  }
  std::sort(
      units.begin(), units.end(), [](const SpoolUnit& a, const SpoolUnit& b) {
        return a.modified_ns != b.modified_ns ? a.modified_ns < b.modified_ns
                                              : a.name < b.name;
      });
  return units;
}

}  // namespace

Result<SpoolFolder> SpoolFolder::Open(const Path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return FailedPrecondition("the spool " + path.string() +
                              " cannot be opened: " + std::strerror(errno));
  }
  SpoolFolder spool(path, fd);
  for (const char* folder : {kDone, kFailed}) {
    // For the writers' group too, whatever the umask.
    const bool made = mkdirat(fd, folder, 0770) == 0;
    if (made ? fchmodat(fd, folder, 0770, 0) != 0 : errno != EEXIST) {
      return FailedPrecondition("the spool " + path.string() + " takes no " +
                                folder + "/: " + std::strerror(errno));
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(path / kTrash, ignored);
  return spool;
}

SpoolFolder::~SpoolFolder() {
  if (fd_ >= 0) close(fd_);
}

SpoolFolder::SpoolFolder(SpoolFolder&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

Result<std::vector<SpoolUnit>> SpoolFolder::List() const {
  SELVAGE_ASSIGN_OR_RETURN(std::vector<SpoolUnit> units,
                           ListFolder(fd_, ".", [](const struct stat& info) {
                             return info.st_mtim;
                           }));
  std::erase_if(units,
                [](const SpoolUnit& unit) { return IsPassedOver(unit.name); });
  return units;
}

Result<SpoolFile> SpoolFolder::Read(const std::string& relative,
                                    uint64_t size_max) const {
  const std::string what = Quoted(relative);
  // Component by component, so that no link on the way is followed.
  Descriptor at(openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (at.get() < 0) return StatusOfErrno(errno, what);
  size_t begin = 0;
  for (int depth = 0;; ++depth) {
    const size_t slash = relative.find('/', begin);
    const std::string part = relative.substr(
        begin, slash == std::string::npos ? slash : slash - begin);
    if (part.empty() || part == "." || part == ".." || depth > kDepthMax ||
        part.find('\0') != std::string::npos) {
      return InvalidArgument(what + " is no path below the spool");
    }
    const bool last = slash == std::string::npos;
    Descriptor next(
        openat(at.get(), part.c_str(),
               last ? O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
                    : O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (next.get() < 0) return StatusOfErrno(errno, what);
    at = std::move(next);
    if (last) break;
    begin = slash + 1;
  }
  struct stat info {};
  if (fstat(at.get(), &info) != 0) return StatusOfErrno(errno, what);
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(what + " is no regular file");
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > size_max) {
    return ResourceExhausted(what + " has " + std::to_string(size) +
                             " bytes, more than " + std::to_string(size_max));
  }
  SpoolFile file;
  file.bytes.resize(static_cast<size_t>(size));
  size_t done = 0;
  while (done < file.bytes.size()) {
    const ssize_t count =
        read(at.get(), file.bytes.data() + done, file.bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return StatusOfErrno(errno, what);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  if (done != file.bytes.size()) {
    return InvalidArgument(what + " became shorter while it was read");
  }
  file.identity = std::to_string(info.st_ino) + "." + std::to_string(size) +
                  "." + std::to_string(Nanoseconds(info.st_mtim));
  return file;
}

Result<size_t> SpoolFolder::TrimKept(size_t kept_max) {
  size_t removed = 0;
  for (const char* folder : {kDone, kFailed}) {
    // Being moved changes a file's status, so this is when it came here.
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<SpoolUnit> units,
        ListFolder(fd_, folder,
                   [](const struct stat& info) { return info.st_ctim; }));
    for (size_t i = 0; i + kept_max < units.size(); ++i) {
      std::error_code error;
      std::filesystem::remove_all(path_ / folder / units[i].name, error);
      if (error) {
        return StatusOfErrno(error.value(),
                             std::string(folder) + "/" + Quoted(units[i].name));
      }
      ++removed;
    }
  }
  return removed;
}

Result<std::string> SpoolFolder::Move(const SpoolUnit& unit,
                                      const std::string& folder) {
  constexpr int kSameNameMax = 100'000;
  for (int i = 0; i < kSameNameMax; ++i) {
    const std::string name =
        i == 0 ? unit.name : unit.name + "." + std::to_string(i);
    const std::string to = folder + "/" + name;
    struct stat info {};
    if (fstatat(fd_, to.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) continue;
    if (renameat(fd_, unit.name.c_str(), fd_, to.c_str()) != 0) {
      return StatusOfErrno(errno, Quoted(unit.name) + " to " + folder + "/");
    }
    return name;
  }
  return ResourceExhausted(folder + "/ has " + std::to_string(kSameNameMax) +
                           " of " + Quoted(unit.name));
}

Status SpoolFolder::Delete(const SpoolUnit& unit) {
  if (!unit.folder) {
    if (unlinkat(fd_, unit.name.c_str(), 0) == 0 || errno == ENOENT) {
      return OkStatus();
    }
    return StatusOfErrno(errno, Quoted(unit.name));
  }
  // Out of sight in one step: half a folder would be taken for a bad one.
  if (mkdirat(fd_, kTrash, 0770) != 0 && errno != EEXIST) {
    return StatusOfErrno(errno, kTrash);
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::string name, Move(unit, kTrash));
  std::error_code error;
  std::filesystem::remove_all(path_ / kTrash / name, error);
  if (!error) return OkStatus();
  return StatusOfErrno(error.value(), Quoted(unit.name));
}

Status SpoolFolder::MoveToDone(const SpoolUnit& unit) {
  return Move(unit, kDone).status();
}

Status SpoolFolder::MoveToFailed(const SpoolUnit& unit,
                                 const std::string& reason) {
  SELVAGE_ASSIGN_OR_RETURN(const std::string name, Move(unit, kFailed));
  const std::string path = std::string(kFailed) + "/" + name + ".error";
  const Descriptor file(
      openat(fd_, path.c_str(),
             O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0660));
  if (file.get() < 0) return StatusOfErrno(errno, Quoted(path));
  const std::string text = reason + "\n";
  if (fchmod(file.get(), 0660) != 0 ||
      write(file.get(), text.data(), text.size()) !=
          static_cast<ssize_t>(text.size())) {
    return StatusOfErrno(errno, Quoted(path));
  }
  return OkStatus();
}

}  // namespace selvage::agent
