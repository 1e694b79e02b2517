// The spool's folder: what has arrived in it, and where it goes. Never follows
// a symbolic link below the folder itself, and takes nothing but regular files
// and folders of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/status.h"

namespace selvage::agent {

// One thing that was put into the spool.
struct SpoolUnit {
  std::string name;
  bool folder = false;
  int64_t modified_ns = 0;
  uint64_t inode = 0;

  friend bool operator==(const SpoolUnit&, const SpoolUnit&) = default;
};

struct SpoolFile {
  Bytes bytes;
  // Of this very file: another one has another, even under the same name.
  std::string identity;
};

// Thread-compatible.
class SpoolFolder {
 public:
  // Creates done/ and failed/ and removes what an earlier process had begun to
  // delete. FAILED_PRECONDITION names the folder and why it cannot be used.
  static Result<SpoolFolder> Open(const Path& path);
  ~SpoolFolder();
  SpoolFolder(SpoolFolder&& other) noexcept;
  SpoolFolder(const SpoolFolder&) = delete;
  SpoolFolder& operator=(const SpoolFolder&) = delete;
  SpoolFolder& operator=(SpoolFolder&&) = delete;

  const Path& path() const { return path_; }

  // By time of modification, then by name. Left out: what begins with a dot or
  // ends in .tmp or .part, done, failed, and symbolic links. At most 10,000.
  Result<std::vector<SpoolUnit>> List() const;

  // A file, or one in a folder; `relative` has no "..". NOT_FOUND,
  // INVALID_ARGUMENT (a link, no regular file, a path that leads away),
  // RESOURCE_EXHAUSTED (more than `size_max` bytes), PERMISSION_DENIED.
  Result<SpoolFile> Read(const std::string& relative, uint64_t size_max) const;

  // A disk must not fill because nobody tidies done/ and failed/.
  static constexpr size_t kKeptMax = 1000;
  // Deletes what lies in each of them above `kept_max` entries (an .error is
  // one), what came first before the rest. Returns how many it deleted.
  Result<size_t> TrimKept(size_t kept_max);

  // After these the unit is not in the spool any more.
  Status Delete(const SpoolUnit& unit);
  Status MoveToDone(const SpoolUnit& unit);
  // And writes `reason` beside it, NAME.error.
  Status MoveToFailed(const SpoolUnit& unit, const std::string& reason);

 private:
  SpoolFolder(Path path, int fd) : path_(std::move(path)), fd_(fd) {}
  // The new name in `folder`.
  Result<std::string> Move(const SpoolUnit& unit, const std::string& folder);

  Path path_;
  int fd_;
};

}  // namespace selvage::agent
