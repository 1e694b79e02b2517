// Where a process may die: numbered points around everything that makes
// something durable, in the order in which they happen. A test starts a
// program of its own that dies at the N-th, restarts the shipped one on what is
// left, and looks at what survived.
//
//   file system:  before each Create, Append, Sync, Rename, SyncDirectory,
//                 Remove and CreateDirectories
//   SQLite:       before the first write of a transaction, before each xSync,
//                 after each xSync (durable, and nobody knows yet)
//
// These are test-only: no shipped program links them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"

namespace selvage::test {

// Thread-safe.
class KillPoints {
 public:
  // Dies (SIGKILL) at point `target`, from 1; 0: never.
  explicit KillPoints(uint64_t target) : target_(target) {}
  // From the environment variable SELVAGE_TEST_KILL_AT; absent: never.
  static uint64_t TargetFromEnvironment();

  void Reach();
  uint64_t reached() const { return reached_.load(); }

 private:
  const uint64_t target_;
  std::atomic<uint64_t> reached_{0};
};

// `base` with a point before every operation that changes something. Both must
// outlive it.
class KillingFileSystem final : public FileSystem {
 public:
  KillingFileSystem(FileSystem& base, KillPoints& points)
      : base_(base), points_(points) {}

  Result<std::unique_ptr<WritableFile>> Create(const Path& path,
                                               int mode) override;
  Result<std::unique_ptr<ReadableFile>> Open(const Path& path) override;
  Status Rename(const Path& from, const Path& to) override;
  Status SyncDirectory(const Path& directory) override;
  Status Remove(const Path& path) override;
  Status CreateDirectories(const Path& path) override;
  Result<std::vector<std::string>> List(const Path& directory) override;
  Result<uint64_t> FreeBytes(const Path& path) override;

 private:
  FileSystem& base_;
  KillPoints& points_;
};

// Makes SQLite's default VFS of this process one that has kill points. Before
// any database is opened; once. `points` must live until the process ends.
// INTERNAL if SQLite refuses.
Status InstallKillingVfs(KillPoints& points);

}  // namespace selvage::test
