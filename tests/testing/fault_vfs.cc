#include "tests/testing/fault_vfs.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/mutex.h"

namespace selvage::test {
namespace {

constexpr int kPathSizeMax = 512;
constexpr int kSectorSize = 4096;  // as SQLite's VFS for unix has it
constexpr uint64_t kRandomSeed = 0x5E1A6E;
// Noon of 1 January 2027, in SQLite's milliseconds since -4713-11-24 12:00.
constexpr sqlite3_int64 kJulianMillis = 212'668'804'800'000;

struct Handle;

// A write not synced yet, or a truncation to `offset` (no bytes).
struct Change {
  bool truncation = false;
  size_t offset = 0;
  Bytes bytes;
};

void Apply(const Change& change, Bytes& data) {
  if (change.truncation) {
    data.resize(std::min(data.size(), change.offset));
    return;
  }
  data.resize(std::max(data.size(), change.offset + change.bytes.size()));
  std::copy(change.bytes.begin(), change.bytes.end(),
            data.begin() + static_cast<ptrdiff_t>(change.offset));
}

// The memory that the connections of a WAL database share.
struct SharedMemory {
  std::vector<std::unique_ptr<std::byte[]>> regions;
  struct Slot {
    int shared = 0;
    const Handle* exclusive = nullptr;
  };
  std::array<Slot, SQLITE_SHM_NLOCK> slots{};
};

struct Inode {
  Bytes data;
  Bytes durable_data;
  std::vector<Change>
      pending;  // data = durable_data + pending (+ what is lost)

  // SQLite's five-level lock (sqlite.org/lockingv3.html).
  int shared = 0;
  const Handle* reserved = nullptr;
  const Handle* pending_lock = nullptr;

  std::shared_ptr<SharedMemory> memory;
};
using InodePtr = std::shared_ptr<Inode>;
using Names = std::map<std::string, InodePtr>;

std::string FolderOf(const std::string& path) {
  return path.substr(0, path.rfind('/') + 1);
}

bool Coin(RandomSource& random) { return UniformBelow(random, 2) == 0; }

}  // namespace

struct FaultVfs::State {
  // Counts an operation; true if it is one that shall fail.
  bool Fails() SELVAGE_REQUIRES(mu) {
    ++operations;
    if (countdown > 0) {
      --countdown;
      return false;
    }
    if (failures_left == 0) return false;
    if (failures_left != kForever) --failures_left;
    return true;
  }
  uint64_t Used() const SELVAGE_REQUIRES(mu) {
    uint64_t used = 0;
    for (const auto& [unused, inode] : names) used += inode->data.size();
    return used;
  }
  // Makes the names in `folder` durable.
  void SyncFolder(const std::string& folder) SELVAGE_REQUIRES(mu) {
    const auto in_folder = [&folder](const auto& entry) {
      return FolderOf(entry.first) == folder;
    };
    std::erase_if(durable_names, in_folder);
    std::copy_if(names.begin(), names.end(),
                 std::inserter(durable_names, durable_names.end()), in_folder);
  }
  void Forget(RandomSource* random) SELVAGE_REQUIRES(mu);

  sqlite3_vfs vfs{};
  std::string name;
  sqlite3_vfs* system = nullptr;  // for sleeping only

  mutable Mutex mu;
  Names names SELVAGE_GUARDED_BY(mu);
  Names durable_names SELVAGE_GUARDED_BY(mu);
  SeededRandom random SELVAGE_GUARDED_BY(mu){kRandomSeed};
  uint64_t crashes SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t operations SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t syncs SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t countdown SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t failures_left SELVAGE_GUARDED_BY(mu) = 0;
  std::optional<uint64_t> capacity SELVAGE_GUARDED_BY(mu);
  int open_files SELVAGE_GUARDED_BY(mu) = 0;
};

void FaultVfs::State::Forget(RandomSource* chance) {
  ++crashes;
  if (chance != nullptr) {
    Names all = names;
    all.insert(durable_names.begin(), durable_names.end());
    for (const auto& [path, unused] : all) {
      if (!Coin(*chance)) continue;
      const auto now = names.find(path);
      if (now == names.end()) {
        durable_names.erase(path);
      } else {
        durable_names[path] = now->second;
      }
    }
  }
  // New inodes: the old ones belong to the connections of before.
  Names fresh;
  for (const auto& [path, old] : durable_names) {
    auto inode = std::make_shared<Inode>();
    inode->durable_data = old->durable_data;
    if (chance != nullptr) {
      for (const Change& change : old->pending) {
        if (Coin(*chance)) Apply(change, inode->durable_data);
      }
    }
    inode->data = inode->durable_data;
    fresh.emplace(path, std::move(inode));
  }
  names = fresh;
  durable_names = std::move(fresh);
}

namespace {

using State = FaultVfs::State;

// One open file of one connection.
struct Handle {
  // False once the machine has crashed.
  bool Alive() const SELVAGE_REQUIRES(state.mu) {
    return opened_in == state.crashes;
  }

  State& state;
  InodePtr inode;
  std::string path;        // empty: a temporary file without a name
  uint64_t opened_in = 0;  // State::crashes
  bool delete_on_close = false;
  bool sync_folder = false;  // with the next xSync

  int lock = SQLITE_LOCK_NONE;

  std::shared_ptr<SharedMemory> memory;
  std::array<bool, SQLITE_SHM_NLOCK> shared{};  // slots held
};

// What SQLite allocates for an open file.
struct SqliteFile {
  sqlite3_file base;
  Handle* handle;
};

Handle& HandleOf(sqlite3_file* file) {
  return *reinterpret_cast<SqliteFile*>(file)->handle;
}
State& StateOf(sqlite3_vfs* vfs) { return *static_cast<State*>(vfs->pAppData); }

// ---- Locks -----------------------------------------------------------------

void ReleaseTo(Handle& handle, int level) {
  Inode& inode = *handle.inode;
  if (handle.lock <= level) return;
  if (inode.reserved == &handle) inode.reserved = nullptr;
  if (inode.pending_lock == &handle) inode.pending_lock = nullptr;
  if (level == SQLITE_LOCK_NONE) --inode.shared;
  handle.lock = level;
}

int Lock(sqlite3_file* file, int level) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (!handle.Alive()) return SQLITE_IOERR_LOCK;
  if (handle.lock >= level) return SQLITE_OK;
  Inode& inode = *handle.inode;
  const bool foreign_pending =
      inode.pending_lock != nullptr && inode.pending_lock != &handle;
  const bool foreign_reserved =
      inode.reserved != nullptr && inode.reserved != &handle;
  if (level == SQLITE_LOCK_SHARED) {
    if (foreign_pending) return SQLITE_BUSY;
    ++inode.shared;
    handle.lock = SQLITE_LOCK_SHARED;
    return SQLITE_OK;
  }
  if (foreign_pending || foreign_reserved) return SQLITE_BUSY;
  inode.reserved = &handle;
  if (level == SQLITE_LOCK_RESERVED) {
    handle.lock = SQLITE_LOCK_RESERVED;
    return SQLITE_OK;
  }
  // Pending keeps new readers out while the last ones finish.
  inode.pending_lock = &handle;
  handle.lock = SQLITE_LOCK_PENDING;
  if (inode.shared > 1) return SQLITE_BUSY;
  handle.lock = SQLITE_LOCK_EXCLUSIVE;
  return SQLITE_OK;
}

int Unlock(sqlite3_file* file, int level) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  ReleaseTo(handle, level);
  return SQLITE_OK;
}

int CheckReservedLock(sqlite3_file* file, int* out) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  *out = handle.inode->reserved != nullptr ? 1 : 0;
  return SQLITE_OK;
}

// ---- Shared memory ---------------------------------------------------------

void ReleaseSlot(Handle& handle, size_t i) {
  SharedMemory::Slot& slot = handle.memory->slots[i];
  if (slot.exclusive == &handle) slot.exclusive = nullptr;
  if (handle.shared[i]) {
    handle.shared[i] = false;
    --slot.shared;
  }
}

int ShmMap(sqlite3_file* file, int region, int size, int extend,
           void volatile** out) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  *out = nullptr;
  if (!handle.Alive()) return SQLITE_IOERR_SHMMAP;
  if (handle.inode->memory == nullptr) {
    handle.inode->memory = std::make_shared<SharedMemory>();
  }
  if (handle.memory == nullptr) handle.memory = handle.inode->memory;
  auto& regions = handle.memory->regions;
  const auto index = static_cast<size_t>(region);
  while (extend != 0 && regions.size() <= index) {
    regions.push_back(std::make_unique<std::byte[]>(static_cast<size_t>(size)));
  }
  if (index < regions.size()) *out = regions[index].get();
  return SQLITE_OK;
}

int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (handle.memory == nullptr) return SQLITE_IOERR_SHMLOCK;
  const auto first = static_cast<size_t>(offset);
  const auto last = first + static_cast<size_t>(count);
  if ((flags & SQLITE_SHM_UNLOCK) != 0) {
    for (size_t i = first; i < last; ++i) ReleaseSlot(handle, i);
    return SQLITE_OK;
  }
  if (!handle.Alive()) return SQLITE_IOERR_SHMLOCK;
  auto& slots = handle.memory->slots;
  const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  for (size_t i = first; i < last; ++i) {
    const bool foreign_exclusive =
        slots[i].exclusive != nullptr && slots[i].exclusive != &handle;
    const int foreign_shared = slots[i].shared - (handle.shared[i] ? 1 : 0);
    if (foreign_exclusive || (exclusive && foreign_shared > 0)) {
      return SQLITE_BUSY;
    }
  }
  for (size_t i = first; i < last; ++i) {
    if (exclusive) {
      slots[i].exclusive = &handle;
    } else if (!handle.shared[i]) {
      handle.shared[i] = true;
      ++slots[i].shared;
    }
  }
  return SQLITE_OK;
}

void ShmBarrier(sqlite3_file* file) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const MutexLock lock(HandleOf(file).state.mu);
}

int ShmUnmap(sqlite3_file* file, int delete_memory) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (handle.memory == nullptr) return SQLITE_OK;
  for (size_t i = 0; i < handle.shared.size(); ++i) ReleaseSlot(handle, i);
  handle.memory.reset();
  if (delete_memory != 0) handle.inode->memory.reset();
  return SQLITE_OK;
}

// ---- Files -----------------------------------------------------------------

int Close(sqlite3_file* file) {
  Handle* const handle = &HandleOf(file);
  ShmUnmap(file, 0);
  const MutexLock lock(handle->state.mu);
  ReleaseTo(*handle, SQLITE_LOCK_NONE);
  if (handle->delete_on_close && handle->Alive()) {
    handle->state.names.erase(handle->path);
  }
  --handle->state.open_files;
  delete handle;
  return SQLITE_OK;
}

int Read(sqlite3_file* file, void* out, int amount, sqlite3_int64 offset) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (handle.state.Fails() || !handle.Alive()) return SQLITE_IOERR_READ;
  const Bytes& data = handle.inode->data;
  const auto size = static_cast<size_t>(amount);
  const size_t from = std::min(data.size(), static_cast<size_t>(offset));
  const size_t count = std::min(size, data.size() - from);
  std::memset(out, 0, size);
  if (count > 0) std::memcpy(out, data.data() + from, count);
  return count == size ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

int Write(sqlite3_file* file, const void* in, int amount,
          sqlite3_int64 offset) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (handle.state.Fails() || !handle.Alive()) return SQLITE_IOERR_WRITE;
  Inode& inode = *handle.inode;
  const auto* bytes = static_cast<const uint8_t*>(in);
  Change change{.truncation = false,
                .offset = static_cast<size_t>(offset),
                .bytes = Bytes(bytes, bytes + amount)};
  const size_t end = change.offset + change.bytes.size();
  if (handle.state.capacity.has_value() && end > inode.data.size() &&
      handle.state.Used() + (end - inode.data.size()) >
          *handle.state.capacity) {
    return SQLITE_FULL;
  }
  Apply(change, inode.data);
  inode.pending.push_back(std::move(change));
  return SQLITE_OK;
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (handle.state.Fails() || !handle.Alive()) return SQLITE_IOERR_TRUNCATE;
  Change change{
      .truncation = true, .offset = static_cast<size_t>(size), .bytes = {}};
  Apply(change, handle.inode->data);
  handle.inode->pending.push_back(std::move(change));
  return SQLITE_OK;
}

int Sync(sqlite3_file* file, int) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  Inode& inode = *handle.inode;
  if (handle.state.Fails() || !handle.Alive()) {
    // After a failed fsync the kernel holds the pages for clean.
    inode.pending.clear();
    return SQLITE_IOERR_FSYNC;
  }
  for (const Change& change : inode.pending) Apply(change, inode.durable_data);
  inode.pending.clear();
  if (std::exchange(handle.sync_folder, false)) {
    handle.state.SyncFolder(FolderOf(handle.path));
  }
  ++handle.state.syncs;
  return SQLITE_OK;
}

int FileSize(sqlite3_file* file, sqlite3_int64* out) {
  Handle& handle = HandleOf(file);
  const MutexLock lock(handle.state.mu);
  if (handle.state.Fails() || !handle.Alive()) return SQLITE_IOERR_FSTAT;
  *out = static_cast<sqlite3_int64>(handle.inode->data.size());
  return SQLITE_OK;
}

int FileControl(sqlite3_file* file, int operation, void* argument) {
  if (operation != SQLITE_FCNTL_VFSNAME) return SQLITE_NOTFOUND;
  *static_cast<char**>(argument) =
      sqlite3_mprintf("%s", HandleOf(file).state.name.c_str());
  return SQLITE_OK;
}

int SectorSize(sqlite3_file*) { return kSectorSize; }

// As on unix: a write does not harm the bytes beside it.
int DeviceCharacteristics(sqlite3_file*) {
  return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,  // shared memory, no memory mapping
    .xClose = Close,
    .xRead = Read,
    .xWrite = Write,
    .xTruncate = Truncate,
    .xSync = Sync,
    .xFileSize = FileSize,
    .xLock = Lock,
    .xUnlock = Unlock,
    .xCheckReservedLock = CheckReservedLock,
    .xFileControl = FileControl,
    .xSectorSize = SectorSize,
    .xDeviceCharacteristics = DeviceCharacteristics,
    .xShmMap = ShmMap,
    .xShmLock = ShmLock,
    .xShmBarrier = ShmBarrier,
    .xShmUnmap = ShmUnmap,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

// ---- The VFS ---------------------------------------------------------------

int Open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags,
         int* out_flags) {
  State& state = StateOf(vfs);
  const MutexLock lock(state.mu);
  file->pMethods = nullptr;  // nothing to close until the end
  if (state.Fails()) return SQLITE_CANTOPEN;
  InodePtr inode;
  bool created = false;
  if (path == nullptr) {
    inode = std::make_shared<Inode>();
  } else if (const auto it = state.names.find(path); it != state.names.end()) {
    if ((flags & SQLITE_OPEN_EXCLUSIVE) != 0) return SQLITE_CANTOPEN;
    inode = it->second;
  } else {
    if ((flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
    inode = std::make_shared<Inode>();
    state.names.emplace(path, inode);
    created = true;
  }
  constexpr int kJournals =
      SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL;
  reinterpret_cast<SqliteFile*>(file)->handle = new Handle{
      .state = state,
      .inode = std::move(inode),
      .path = path == nullptr ? "" : path,
      .opened_in = state.crashes,
      .delete_on_close =
          path != nullptr && (flags & SQLITE_OPEN_DELETEONCLOSE) != 0,
      .sync_folder = created && (flags & kJournals) != 0,
      .memory = nullptr,
  };
  file->pMethods = &kMethods;
  ++state.open_files;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int Delete(sqlite3_vfs* vfs, const char* path, int sync_folder) {
  State& state = StateOf(vfs);
  const MutexLock lock(state.mu);
  if (state.Fails()) return SQLITE_IOERR_DELETE;
  if (state.names.erase(path) == 0) return SQLITE_IOERR_DELETE_NOENT;
  if (sync_folder != 0) state.SyncFolder(FolderOf(path));
  return SQLITE_OK;
}

int Access(sqlite3_vfs* vfs, const char* path, int flags, int* out) {
  State& state = StateOf(vfs);
  const MutexLock lock(state.mu);
  *out = 0;
  if (state.Fails()) return SQLITE_IOERR_ACCESS;
  const auto it = state.names.find(path);
  // As on unix: an empty file is as good as none.
  *out = it != state.names.end() &&
                 (flags != SQLITE_ACCESS_EXISTS || !it->second->data.empty())
             ? 1
             : 0;
  return SQLITE_OK;
}

int FullPathname(sqlite3_vfs*, const char* path, int size, char* out) {
  const int written = std::snprintf(out, static_cast<size_t>(size), "%s%s",
                                    path[0] == '/' ? "" : "/", path);
  return written < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

int Randomness(sqlite3_vfs* vfs, int size, char* out) {
  State& state = StateOf(vfs);
  const MutexLock lock(state.mu);
  state.random.Fill(
      {reinterpret_cast<uint8_t*>(out), static_cast<size_t>(size)});
  return size;
}

int Sleep(sqlite3_vfs* vfs, int micros) {
  sqlite3_vfs* const system = StateOf(vfs).system;
  return system->xSleep(system, micros);
}

int CurrentTime(sqlite3_vfs*, double* out) {
  *out = static_cast<double>(kJulianMillis) / 86'400'000.0;
  return SQLITE_OK;
}

int CurrentTimeMillis(sqlite3_vfs*, sqlite3_int64* out) {
  *out = kJulianMillis;
  return SQLITE_OK;
}

int LastError(sqlite3_vfs*, int, char*) { return 0; }

}  // namespace

FaultVfs::FaultVfs() : state_(std::make_unique<State>()) {
  char name[64];
  std::snprintf(name, sizeof name, "selvage-fault-vfs-%p",
                static_cast<const void*>(state_.get()));
  state_->name = name;
  state_->system = sqlite3_vfs_find(nullptr);
  SELVAGE_CHECK(state_->system != nullptr);
  sqlite3_vfs& vfs = state_->vfs;
  vfs.iVersion = 2;
  vfs.szOsFile = sizeof(SqliteFile);
  vfs.mxPathname = kPathSizeMax;
  vfs.zName = state_->name.c_str();
  vfs.pAppData = state_.get();
  vfs.xOpen = Open;
  vfs.xDelete = Delete;
  vfs.xAccess = Access;
  vfs.xFullPathname = FullPathname;
  vfs.xRandomness = Randomness;
  vfs.xSleep = Sleep;
  vfs.xCurrentTime = CurrentTime;
  vfs.xCurrentTimeInt64 = CurrentTimeMillis;
  vfs.xGetLastError = LastError;
  SELVAGE_CHECK(sqlite3_vfs_register(&vfs, /*makeDflt=*/0) == SQLITE_OK);
}

FaultVfs::~FaultVfs() {
  sqlite3_vfs_unregister(&state_->vfs);
  const MutexLock lock(state_->mu);
  SELVAGE_CHECK(state_->open_files == 0);
}

const std::string& FaultVfs::name() const { return state_->name; }

void FaultVfs::Crash() {
  const MutexLock lock(state_->mu);
  state_->Forget(nullptr);
}

void FaultVfs::CrashTorn(RandomSource& random) {
  const MutexLock lock(state_->mu);
  state_->Forget(&random);
}

void FaultVfs::FailAfter(uint64_t operations, uint64_t times) {
  const MutexLock lock(state_->mu);
  state_->countdown = operations;
  state_->failures_left = times;
}

void FaultVfs::ClearFaults() {
  const MutexLock lock(state_->mu);
  state_->countdown = 0;
  state_->failures_left = 0;
}

void FaultVfs::SetFreeBytes(std::optional<uint64_t> bytes) {
  const MutexLock lock(state_->mu);
  state_->capacity = bytes;
  if (bytes.has_value()) *state_->capacity += state_->Used();
}

uint64_t FaultVfs::operations() const {
  const MutexLock lock(state_->mu);
  return state_->operations;
}

uint64_t FaultVfs::syncs() const {
  const MutexLock lock(state_->mu);
  return state_->syncs;
}

std::vector<std::string> FaultVfs::Files() const {
  const MutexLock lock(state_->mu);
  std::vector<std::string> paths;
  for (const auto& [path, unused] : state_->names) paths.push_back(path);
  return paths;
}

std::optional<std::string> FaultVfs::Contents(const std::string& path) const {
  const MutexLock lock(state_->mu);
  const auto it = state_->names.find(path);
  if (it == state_->names.end()) return std::nullopt;
  return ToString(it->second->data);
}

}  // namespace selvage::test
