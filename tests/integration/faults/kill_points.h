// Where a process may die: named and numbered points around everything that
// makes something durable, in the order in which they happen. A test starts a
// program of its own that dies at the N-th, or at the N-th of a name, restarts
// the shipped one on what is left, and looks at what survived.
//
//   file system:  before.file.create, .append, .sync, .rename, .remove;
//                 before.directory.create, .sync
//   SQLite:       before.transaction.write (its first),
//   before.transaction.sync,
//                 after.transaction.sync (durable, and nobody knows yet),
//                 before.log.truncate, before.log.delete
//   PostgreSQL:   before.transaction.commit, after.transaction.commit
//                 (postgres_kill_points.h)
//
// These are test-only: no shipped program links them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"

namespace selvage::test {

// Thread-safe.
class KillPoints {
 public:
  struct Target {
    std::string name;  // empty: any point
    uint64_t nth = 0;  // from 1; 0: never
  };
  // Dies (SIGKILL) there. Not `armed`: what is reached before Arm() does not
  // count.
  explicit KillPoints(Target target, bool armed = true)
      : target_(std::move(target)), armed_(armed) {}
  // From the environment variable SELVAGE_TEST_KILL_AT, "N" or "NAME:N";
  // absent: never.
  static Target TargetFromEnvironment();

  void Arm() { armed_ = true; }
  void Reach(std::string_view name);

 private:
  const Target target_;
  std::atomic<bool> armed_;
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
