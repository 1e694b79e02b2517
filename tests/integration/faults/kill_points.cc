#include "tests/integration/faults/kill_points.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <utility>

#include <sqlite3.h>

namespace selvage::test {

KillPoints::Target KillPoints::TargetFromEnvironment() {
  const char* const value = std::getenv("SELVAGE_TEST_KILL_AT");
  if (value == nullptr) return {};
  const std::string text = value;
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    return {"", std::strtoull(value, nullptr, 10)};
  }
  return {text.substr(0, colon), std::strtoull(value + colon + 1, nullptr, 10)};
}

void KillPoints::Reach(std::string_view name) {
  if (!armed_ || (!target_.name.empty() && target_.name != name)) return;
  if (++reached_ != target_.nth) return;
  raise(SIGKILL);
  for (;;) pause();  // this thread goes no further, whatever the others do
}

namespace {

class KillingFile final : public WritableFile {
 public:
  KillingFile(std::unique_ptr<WritableFile> base, KillPoints& points)
      : base_(std::move(base)), points_(points) {}

  Status Append(ByteSpan bytes) override {
    points_.Reach("before.file.append");
    return base_->Append(bytes);
  }
  Status Sync() override {
    points_.Reach("before.file.sync");
    return base_->Sync();
  }
  Status Close() override { return base_->Close(); }

 private:
  const std::unique_ptr<WritableFile> base_;
  KillPoints& points_;
};

}  // namespace

Result<std::unique_ptr<WritableFile>> KillingFileSystem::Create(
    const Path& path, int mode) {
  points_.Reach("before.file.create");
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           base_.Create(path, mode));
  return std::unique_ptr<WritableFile>(
      new KillingFile(std::move(file), points_));
}
Result<std::unique_ptr<ReadableFile>> KillingFileSystem::Open(
    const Path& path) {
  return base_.Open(path);
}
Status KillingFileSystem::Rename(const Path& from, const Path& to) {
  points_.Reach("before.file.rename");
  return base_.Rename(from, to);
}
Status KillingFileSystem::SyncDirectory(const Path& directory) {
  points_.Reach("before.directory.sync");
  return base_.SyncDirectory(directory);
}
Status KillingFileSystem::Remove(const Path& path) {
  points_.Reach("before.file.remove");
  return base_.Remove(path);
}
Status KillingFileSystem::CreateDirectories(const Path& path) {
  points_.Reach("before.directory.create");
  return base_.CreateDirectories(path);
}
Result<std::vector<std::string>> KillingFileSystem::List(
    const Path& directory) {
  return base_.List(directory);
}
Result<uint64_t> KillingFileSystem::FreeBytes(const Path& path) {
  return base_.FreeBytes(path);
}

// ------------------------------------------------------------------ SQLite

namespace {

// What SQLite allocates for a file of ours: the file of the VFS below follows
// it in the same memory.
struct KillingVfsFile {
  sqlite3_file base;
  KillPoints* points;
  // Of the database and its log: a write after a sync begins something new.
  bool clean;

  sqlite3_file* below() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
static_assert(sizeof(KillingVfsFile) % alignof(void*) == 0);

KillingVfsFile* Of(sqlite3_file* file) {
  return reinterpret_cast<KillingVfsFile*>(file);
}
sqlite3_file* Below(sqlite3_file* file) { return Of(file)->below(); }

int Close(sqlite3_file* f) { return Below(f)->pMethods->xClose(Below(f)); }
int Read(sqlite3_file* f, void* out, int count, sqlite3_int64 offset) {
  return Below(f)->pMethods->xRead(Below(f), out, count, offset);
}
int Write(sqlite3_file* f, const void* data, int count, sqlite3_int64 offset) {
  if (std::exchange(Of(f)->clean, false)) {
    Of(f)->points->Reach("before.transaction.write");
  }
  return Below(f)->pMethods->xWrite(Below(f), data, count, offset);
}
int Truncate(sqlite3_file* f, sqlite3_int64 size) {
  Of(f)->points->Reach("before.log.truncate");
  return Below(f)->pMethods->xTruncate(Below(f), size);
}
int Sync(sqlite3_file* f, int flags) {
  Of(f)->points->Reach("before.transaction.sync");
  const int code = Below(f)->pMethods->xSync(Below(f), flags);
  Of(f)->clean = true;
  Of(f)->points->Reach("after.transaction.sync");
  return code;
}
int FileSize(sqlite3_file* f, sqlite3_int64* size) {
  return Below(f)->pMethods->xFileSize(Below(f), size);
}
int Lock(sqlite3_file* f, int level) {
  return Below(f)->pMethods->xLock(Below(f), level);
}
int Unlock(sqlite3_file* f, int level) {
  return Below(f)->pMethods->xUnlock(Below(f), level);
}
int CheckReservedLock(sqlite3_file* f, int* out) {
  return Below(f)->pMethods->xCheckReservedLock(Below(f), out);
}
int FileControl(sqlite3_file* f, int op, void* argument) {
  return Below(f)->pMethods->xFileControl(Below(f), op, argument);
}
int SectorSize(sqlite3_file* f) {
  return Below(f)->pMethods->xSectorSize(Below(f));
}
int DeviceCharacteristics(sqlite3_file* f) {
  return Below(f)->pMethods->xDeviceCharacteristics(Below(f));
}
int ShmMap(sqlite3_file* f, int page, int size, int extend,
           void volatile** out) {
  return Below(f)->pMethods->xShmMap(Below(f), page, size, extend, out);
}
int ShmLock(sqlite3_file* f, int offset, int count, int flags) {
  return Below(f)->pMethods->xShmLock(Below(f), offset, count, flags);
}
void ShmBarrier(sqlite3_file* f) { Below(f)->pMethods->xShmBarrier(Below(f)); }
int ShmUnmap(sqlite3_file* f, int remove) {
  return Below(f)->pMethods->xShmUnmap(Below(f), remove);
}

// Version 2: without memory-mapped pages, which would go past us.
constexpr sqlite3_io_methods kMethods = {2,
                                         Close,
                                         Read,
                                         Write,
                                         Truncate,
                                         Sync,
                                         FileSize,
                                         Lock,
                                         Unlock,
                                         CheckReservedLock,
                                         FileControl,
                                         SectorSize,
                                         DeviceCharacteristics,
                                         ShmMap,
                                         ShmLock,
                                         ShmBarrier,
                                         ShmUnmap,
                                         nullptr,
                                         nullptr};

struct KillingVfs {
  sqlite3_vfs vfs;
  sqlite3_vfs* below;
  KillPoints* points;
};
KillingVfs* Of(sqlite3_vfs* vfs) {
  return static_cast<KillingVfs*>(vfs->pAppData);
}

int OpenFile(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
             int* out_flags) {
  sqlite3_vfs* const below = Of(vfs)->below;
  KillingVfsFile* const mine = Of(file);
  mine->base.pMethods = nullptr;
  mine->points = Of(vfs)->points;
  mine->clean = true;
  const int code = below->xOpen(below, name, mine->below(), flags, out_flags);
  if (code == SQLITE_OK) mine->base.pMethods = &kMethods;
  return code;
}
int Delete(sqlite3_vfs* vfs, const char* name, int sync) {
  Of(vfs)->points->Reach("before.log.delete");
  return Of(vfs)->below->xDelete(Of(vfs)->below, name, sync);
}

}  // namespace

Status InstallKillingVfs(KillPoints& points) {
  sqlite3_vfs* const below = sqlite3_vfs_find(nullptr);
  if (below == nullptr) return Internal("SQLite has no VFS");
  // SQLite keeps it until the process ends.
  auto* const mine = new KillingVfs{*below, below, &points};
  mine->vfs.pNext = nullptr;
  mine->vfs.zName = "selvage-killing";
  mine->vfs.pAppData = mine;
  mine->vfs.szOsFile =
      below->szOsFile + static_cast<int>(sizeof(KillingVfsFile));
  mine->vfs.xOpen = OpenFile;
  mine->vfs.xDelete = Delete;
  if (sqlite3_vfs_register(&mine->vfs, /*makeDflt=*/1) != SQLITE_OK) {
    return Internal("SQLite does not take the VFS");
  }
  return OkStatus();
}

}  // namespace selvage::test
