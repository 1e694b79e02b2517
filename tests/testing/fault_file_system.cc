#include "tests/testing/fault_file_system.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"

namespace selvage::test {
namespace {

constexpr uint64_t kUnlimited = uint64_t{1} << 40;

// A file or a folder.
struct Inode {
  bool is_directory = false;

  Bytes data;
  Bytes durable_data;
  size_t dirty_from = 0;  // data[dirty_from..] waits for a Sync
  int mode = 0;

  std::map<std::string, std::shared_ptr<Inode>> entries;
  std::map<std::string, std::shared_ptr<Inode>> durable_entries;
};
using InodePtr = std::shared_ptr<Inode>;

std::string Quoted(const Path& path) { return "'" + path.string() + "'"; }

// The names from the root to `path`.
std::vector<std::string> Names(const Path& path) {
  std::vector<std::string> names;
  for (const Path& part : path.lexically_normal()) {
    const std::string name = part.string();
    if (!name.empty() && name != "/" && name != ".") names.push_back(name);
  }
  return names;
}

uint64_t SizeOf(const Inode& inode) {
  uint64_t size = inode.data.size();
  for (const auto& [unused, child] : inode.entries) size += SizeOf(*child);
  return size;
}

bool Coin(RandomSource& random) { return UniformBelow(random, 2) == 0; }

// Makes what is durable all there is, from `inode` down. With `random`, lets
// some of the rest become durable first.
void Forget(Inode& inode, RandomSource* random) {
  if (inode.is_directory) {
    if (random != nullptr) {
      std::map<std::string, InodePtr> kept = inode.entries;
      kept.insert(inode.durable_entries.begin(), inode.durable_entries.end());
      for (const auto& [name, unused] : kept) {
        if (!Coin(*random)) continue;
        const auto now = inode.entries.find(name);
        if (now == inode.entries.end()) {
          inode.durable_entries.erase(name);
        } else {
          inode.durable_entries[name] = now->second;
        }
      }
    }
    inode.entries = inode.durable_entries;
    for (const auto& [unused, child] : inode.entries) Forget(*child, random);
    return;
  }
  if (random != nullptr && inode.dirty_from < inode.data.size()) {
    const size_t kept = inode.dirty_from +
                        static_cast<size_t>(UniformBelow(
                            *random, inode.data.size() - inode.dirty_from + 1));
    if (kept > inode.dirty_from) {
      inode.durable_data.resize(kept);
      std::copy(inode.data.begin() + static_cast<ptrdiff_t>(inode.dirty_from),
                inode.data.begin() + static_cast<ptrdiff_t>(kept),
                inode.durable_data.begin() +
                    static_cast<ptrdiff_t>(inode.dirty_from));
    }
  }
  inode.data = inode.durable_data;
  inode.dirty_from = inode.data.size();
}

}  // namespace

struct FaultFileSystem::State {
  State() { root->is_directory = true; }

  // Counts an operation; an error if it is one that shall fail.
  Status Enter(std::string_view what, const Path& path) SELVAGE_REQUIRES(mu) {
    ++operations;
    if (countdown > 0) {
      --countdown;
      return OkStatus();
    }
    if (failures_left == 0) return OkStatus();
    if (failures_left != kForever) --failures_left;
    return Status(code, "injected fault: cannot " + std::string(what) + " " +
                            Quoted(path));
  }

  // Null if there is nothing at `path`.
  InodePtr Find(const Path& path) const SELVAGE_REQUIRES(mu) {
    InodePtr inode = root;
    for (const std::string& name : Names(path)) {
      const auto it = inode->entries.find(name);
      if (it == inode->entries.end()) return nullptr;
      inode = it->second;
    }
    return inode;
  }
  // The folder that `path` is or would be in.
  Result<InodePtr> FindParent(const Path& path) const SELVAGE_REQUIRES(mu) {
    if (Names(path).empty()) return InvalidArgument("no file name");
    Path parent = "/";
    for (const std::string& name : Names(path)) parent /= name;
    const InodePtr folder = Find(parent.parent_path());
    if (folder == nullptr || !folder->is_directory) {
      return NotFound("the folder of " + Quoted(path) + " does not exist");
    }
    return folder;
  }
  Status CheckRoom(const Path& path) const SELVAGE_REQUIRES(mu) {
    if (Free() > 0) return OkStatus();
    return ResourceExhausted("no space left for " + Quoted(path));
  }
  uint64_t Free() const SELVAGE_REQUIRES(mu) {
    if (!capacity.has_value()) return kUnlimited;
    const uint64_t used = SizeOf(*root);
    return used < *capacity ? *capacity - used : 0;
  }

  mutable Mutex mu;
  const InodePtr root = std::make_shared<Inode>();
  uint64_t crashes SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t operations SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t countdown SELVAGE_GUARDED_BY(mu) = 0;
  uint64_t failures_left SELVAGE_GUARDED_BY(mu) = 0;
  StatusCode code SELVAGE_GUARDED_BY(mu) = StatusCode::kInternal;
  std::optional<uint64_t> capacity SELVAGE_GUARDED_BY(mu);
};

namespace {

using State = FaultFileSystem::State;

// What a reading and a writing file have in common.
struct OpenFile {
  // Counts an operation on the file. INTERNAL if the machine crashed since.
  Status Enter(std::string_view what) const SELVAGE_REQUIRES(state->mu) {
    SELVAGE_RETURN_IF_ERROR(state->Enter(what, path));
    if (!Alive()) {
      return Internal(Quoted(path) + " was open when the machine crashed");
    }
    return OkStatus();
  }

  bool Alive() const SELVAGE_REQUIRES(state->mu) {
    return state->crashes == opened_in;
  }

  std::shared_ptr<State> state;
  InodePtr inode;
  Path path;
  uint64_t opened_in = 0;  // State::crashes
};

class FaultWritableFile final : public WritableFile {
 public:
  explicit FaultWritableFile(OpenFile file) : file_(std::move(file)) {}

  Status Append(ByteSpan bytes) override {
    const MutexLock lock(file_.state->mu);
    SELVAGE_RETURN_IF_ERROR(EnterOpen("write"));
    const size_t room = static_cast<size_t>(
        std::min<uint64_t>(bytes.size(), file_.state->Free()));
    AppendBytes(file_.inode->data, bytes.first(room));
    if (room < bytes.size()) {
      return ResourceExhausted("no space left for " + Quoted(file_.path));
    }
    return OkStatus();
  }
  Status Sync() override {
    const MutexLock lock(file_.state->mu);
    Inode& inode = *file_.inode;
    if (Status status = EnterOpen("sync"); !status.ok()) {
      // After a failed fsync the kernel holds the pages for clean.
      if (file_.Alive()) inode.dirty_from = inode.data.size();
      return status;
    }
    const auto from = static_cast<ptrdiff_t>(inode.dirty_from);
    if (inode.dirty_from < inode.data.size()) {
      inode.durable_data.resize(inode.data.size());
      std::copy(inode.data.begin() + from, inode.data.end(),
                inode.durable_data.begin() + from);
      inode.dirty_from = inode.data.size();
    }
    return OkStatus();
  }
  Status Close() override {
    const MutexLock lock(file_.state->mu);
    const Status status = file_.Enter("close");
    closed_ = true;
    return status;
  }

 private:
  Status EnterOpen(std::string_view what) SELVAGE_REQUIRES(file_.state->mu) {
    SELVAGE_RETURN_IF_ERROR(file_.Enter(what));
    if (closed_) return Internal(Quoted(file_.path) + " is closed");
    return OkStatus();
  }

  const OpenFile file_;
  bool closed_ = false;
};

class FaultReadableFile final : public ReadableFile {
 public:
  FaultReadableFile(OpenFile file, uint64_t size)
      : file_(std::move(file)), size_(size) {}

  uint64_t size() const override { return size_; }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    const MutexLock lock(file_.state->mu);
    SELVAGE_RETURN_IF_ERROR(file_.Enter("read"));
    const ByteSpan data = file_.inode->data;
    if (offset >= data.size()) return size_t{0};
    const ByteSpan rest = data.subspan(static_cast<size_t>(offset));
    const size_t count = std::min(out.size(), rest.size());
    std::copy_n(rest.begin(), count, out.begin());
    return count;
  }

 private:
  const OpenFile file_;
  const uint64_t size_;
};

}  // namespace

FaultFileSystem::FaultFileSystem() : state_(std::make_shared<State>()) {}
FaultFileSystem::~FaultFileSystem() = default;

Result<std::unique_ptr<WritableFile>> FaultFileSystem::Create(const Path& path,
                                                              int mode) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("create", path));
  SELVAGE_ASSIGN_OR_RETURN(const InodePtr folder, state_->FindParent(path));
  InodePtr inode = state_->Find(path);
  if (inode == nullptr) {
    SELVAGE_RETURN_IF_ERROR(state_->CheckRoom(path));
    inode = std::make_shared<Inode>();
    folder->entries[Names(path).back()] = inode;
  } else if (inode->is_directory) {
    return Internal(Quoted(path) + " is a folder");
  }
  inode->data.clear();
  inode->durable_data.clear();
  inode->dirty_from = 0;
  inode->mode = mode;
  return std::unique_ptr<WritableFile>(new FaultWritableFile(
      OpenFile{state_, std::move(inode), path, state_->crashes}));
}

Result<std::unique_ptr<ReadableFile>> FaultFileSystem::Open(const Path& path) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("open", path));
  InodePtr inode = state_->Find(path);
  if (inode == nullptr) return NotFound(Quoted(path) + " does not exist");
  if (inode->is_directory) return Internal(Quoted(path) + " is a folder");
  const uint64_t size = inode->data.size();
  return std::unique_ptr<ReadableFile>(new FaultReadableFile(
      OpenFile{state_, std::move(inode), path, state_->crashes}, size));
}

Status FaultFileSystem::Rename(const Path& from, const Path& to) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("rename", from));
  const InodePtr inode = state_->Find(from);
  if (inode == nullptr) return NotFound(Quoted(from) + " does not exist");
  SELVAGE_ASSIGN_OR_RETURN(const InodePtr from_folder,
                           state_->FindParent(from));
  SELVAGE_ASSIGN_OR_RETURN(const InodePtr to_folder, state_->FindParent(to));
  const InodePtr replaced = state_->Find(to);
  if (replaced == inode) return OkStatus();
  if (replaced != nullptr && replaced->is_directory) {
    return Internal(Quoted(to) + " is a folder");
  }
  from_folder->entries.erase(Names(from).back());
  to_folder->entries[Names(to).back()] = inode;
  return OkStatus();
}

Status FaultFileSystem::SyncDirectory(const Path& directory) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("sync", directory));
  const InodePtr folder = state_->Find(directory);
  if (folder == nullptr || !folder->is_directory) {
    return NotFound("the folder " + Quoted(directory) + " does not exist");
  }
  folder->durable_entries = folder->entries;
  return OkStatus();
}

Status FaultFileSystem::Remove(const Path& path) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("remove", path));
  const InodePtr inode = state_->Find(path);
  if (inode == nullptr) return NotFound(Quoted(path) + " does not exist");
  if (inode->is_directory) return Internal(Quoted(path) + " is a folder");
  SELVAGE_ASSIGN_OR_RETURN(const InodePtr folder, state_->FindParent(path));
  folder->entries.erase(Names(path).back());
  return OkStatus();
}

Status FaultFileSystem::CreateDirectories(const Path& path) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("create the folder", path));
  InodePtr folder = state_->root;
  for (const std::string& name : Names(path)) {
    const auto it = folder->entries.find(name);
    InodePtr entry;
    if (it != folder->entries.end()) {
      entry = it->second;
    } else {
      SELVAGE_RETURN_IF_ERROR(state_->CheckRoom(path));
      entry = std::make_shared<Inode>();
      entry->is_directory = true;
      folder->entries[name] = entry;
      folder->durable_entries[name] = entry;
    }
    if (!entry->is_directory) {
      return AlreadyExists(Quoted(path) + " exists and is not a directory");
    }
    folder = std::move(entry);
  }
  return OkStatus();
}

Result<std::vector<std::string>> FaultFileSystem::List(const Path& directory) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("list", directory));
  const InodePtr folder = state_->Find(directory);
  if (folder == nullptr || !folder->is_directory) {
    return NotFound("the folder " + Quoted(directory) + " does not exist");
  }
  std::vector<std::string> names;
  for (const auto& [name, unused] : folder->entries) names.push_back(name);
  return names;
}

Result<uint64_t> FaultFileSystem::FreeBytes(const Path& path) {
  const MutexLock lock(state_->mu);
  SELVAGE_RETURN_IF_ERROR(state_->Enter("inspect", path));
  if (state_->Find(path) == nullptr) {
    return NotFound(Quoted(path) + " does not exist");
  }
  return state_->Free();
}

void FaultFileSystem::Crash() {
  const MutexLock lock(state_->mu);
  ++state_->crashes;
  Forget(*state_->root, nullptr);
}

void FaultFileSystem::CrashTorn(RandomSource& random) {
  const MutexLock lock(state_->mu);
  ++state_->crashes;
  Forget(*state_->root, &random);
}

void FaultFileSystem::FailAfter(uint64_t operations, StatusCode code,
                                uint64_t times) {
  SELVAGE_CHECK(code != StatusCode::kOk);
  const MutexLock lock(state_->mu);
  state_->countdown = operations;
  state_->failures_left = times;
  state_->code = code;
}

void FaultFileSystem::ClearFaults() {
  const MutexLock lock(state_->mu);
  state_->countdown = 0;
  state_->failures_left = 0;
}

void FaultFileSystem::SetFreeBytes(std::optional<uint64_t> bytes) {
  const MutexLock lock(state_->mu);
  state_->capacity = bytes;
  if (bytes.has_value()) *state_->capacity += SizeOf(*state_->root);
}

uint64_t FaultFileSystem::operations() const {
  const MutexLock lock(state_->mu);
  return state_->operations;
}

Result<int> FaultFileSystem::Mode(const Path& path) const {
  const MutexLock lock(state_->mu);
  const InodePtr inode = state_->Find(path);
  if (inode == nullptr) return NotFound(Quoted(path) + " does not exist");
  return inode->mode;
}

}  // namespace selvage::test
