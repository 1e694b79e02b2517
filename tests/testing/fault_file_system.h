// A FileSystem in memory that forgets what a power cut would forget.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"

namespace selvage::test {

// POSIX at its worst, deterministic and thread-safe:
//   - appended bytes are durable after the file's Sync;
//   - names (create, rename, remove) are durable after SyncDirectory of their
//     folder, whether or not the contents are;
//   - Create on an existing file empties it on the disk at once;
//   - directories are durable when CreateDirectories returns, as there;
//   - bytes whose Sync failed never become durable (they read as zeros if later
//     bytes do), although the file shows them until the crash.
//
// "/" exists; relative paths start there. The object may go away before the
// files opened through it.
class FaultFileSystem final : public FileSystem {
 public:
  static constexpr uint64_t kForever = std::numeric_limits<uint64_t>::max();

  FaultFileSystem();
  ~FaultFileSystem() override;

  Result<std::unique_ptr<WritableFile>> Create(const Path& path,
                                               int mode) override;
  Result<std::unique_ptr<ReadableFile>> Open(const Path& path) override;
  Status Rename(const Path& from, const Path& to) override;
  Status SyncDirectory(const Path& directory) override;
  Status Remove(const Path& path) override;
  Status CreateDirectories(const Path& path) override;
  Result<std::vector<std::string>> List(const Path& directory) override;
  Result<uint64_t> FreeBytes(const Path& path) override;

  // The machine loses power and starts again: nothing that is not durable is
  // left. Files that were open answer INTERNAL from now on. Faults and the free
  // space stay as set.
  void Crash();

  // As Crash(), but of what is not durable some survives, as chance has it: of
  // every file a prefix of the bytes not synced, of every folder some of the
  // names not synced.
  void CrashTorn(RandomSource& random);

  // After `operations` more operations, the next `times` fail with `code` and
  // do nothing. Every call of FileSystem, WritableFile and ReadableFile except
  // size() is one operation.
  void FailAfter(uint64_t operations, StatusCode code,
                 uint64_t times = kForever);
  void ClearFaults();

  // The disk has room for `bytes` more: then Append writes what fits and says
  // RESOURCE_EXHAUSTED, and without room no file or folder can be created.
  // Removing files makes room. nullopt: no limit (1 TiB is shown).
  void SetFreeBytes(std::optional<uint64_t> bytes);

  // Operations so far, those that failed included.
  uint64_t operations() const;
  // The permissions of a file, as Create was told. NOT_FOUND.
  Result<int> Mode(const Path& path) const;

  struct State;  // shared with the open files

 private:
  std::shared_ptr<State> state_;
};

}  // namespace selvage::test
