// The one door to files, so that tests can lose whatever was not synced, fail
// the n-th write, or fill the disk (tests/testing/fault_file_system.h).
//
// SQLite has a door of its own (a VFS); see tests/testing/fault_vfs.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage {

using Path = std::filesystem::path;

// A file being written. Thread-compatible. The destructor closes it and ignores
// errors: call Close() to see them.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  // RESOURCE_EXHAUSTED if the disk is full, INTERNAL on another I/O error.
  virtual Status Append(ByteSpan bytes) = 0;
  // fsync: the contents are durable once this returns OK. An error means they
  // may be lost even if a later Sync succeeds; throw the file away.
  virtual Status Sync() = 0;
  virtual Status Close() = 0;
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual uint64_t size() const = 0;
  // Fills `out` with what is at `offset`; returns the bytes read, fewer only
  // at the end of the file. Thread-safe.
  virtual Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) = 0;
};

// Thread-safe. Errors: NOT_FOUND if the path does not exist, ALREADY_EXISTS,
// PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk or quota full), INTERNAL.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Creates or truncates `path`; either way its permissions become `mode` (e.g.
  // 0600), whatever the umask.
  virtual Result<std::unique_ptr<WritableFile>> Create(const Path& path,
                                                       int mode) = 0;
  virtual Result<std::unique_ptr<ReadableFile>> Open(const Path& path) = 0;
  // Atomic on POSIX; durable only after SyncDirectory(to.parent_path()).
  virtual Status Rename(const Path& from, const Path& to) = 0;
  virtual Status SyncDirectory(const Path& directory) = 0;
  virtual Status Remove(const Path& path) = 0;
  // Creates missing parents too, each with permissions 0700. The directories it
  // created are durable when it returns OK.
  virtual Status CreateDirectories(const Path& path) = 0;
  // File names (not paths) in `directory`, sorted.
  virtual Result<std::vector<std::string>> List(const Path& directory) = 0;
  virtual Result<uint64_t> FreeBytes(const Path& path) = 0;
};

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<WritableFile>> Create(const Path& path,
                                               int mode) override;
  Result<std::unique_ptr<ReadableFile>> Open(const Path& path) override;
  Status Rename(const Path& from, const Path& to) override;
  Status SyncDirectory(const Path& directory) override;
  Status Remove(const Path& path) override;
  Status CreateDirectories(const Path& path) override;
  Result<std::vector<std::string>> List(const Path& directory) override;
  Result<uint64_t> FreeBytes(const Path& path) override;
};

// Write to `path` + ".tmp", fsync, rename, fsync the directory: after OK the
// whole file is there through any power cut; on error `path` is as it was.
// One writer per path at a time.
Status WriteFileDurably(FileSystem& fs, const Path& path, ByteSpan contents,
                        int mode = 0600);

// RESOURCE_EXHAUSTED if the file is larger than `size_max` bytes.
Result<Bytes> ReadFile(FileSystem& fs, const Path& path, uint64_t size_max);

}  // namespace selvage
