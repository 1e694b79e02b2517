#include "coordinator/server/membership.h"

#include <algorithm>
#include <set>
#include <utility>

#include "coordinator/store/file_blob_store.h"
#include "crypto/digest.h"

namespace selvage::coordinator {
namespace {

constexpr char kMarks[] = "replicas";

// A file name for any name of a replica.
std::string TagOf(const std::string& name) {
  return crypto::Sha256(AsBytes(name)).ToHex().substr(0, 16);
}

}  // namespace

Membership::Membership(Options options, FileSystem& files, PostgresStore& store,
                       EventSink& events)
    : options_(std::move(options)),
      files_(files),
      store_(store),
      events_(events) {}

Result<std::unique_ptr<Membership>> Membership::Join(Options options,
                                                     FileSystem& files,
                                                     PostgresStore& store,
                                                     EventSink& events) {
  std::unique_ptr<Membership> membership(
      new Membership(std::move(options), files, store, events));
  SELVAGE_RETURN_IF_ERROR(membership->Enter());
  membership->thread_ = std::thread([self = membership.get()] { self->Run(); });
  return membership;
}

Membership::~Membership() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  // If it cannot be said, it expires.
  if (entered_) static_cast<void>(store_.RemoveReplica(options_.row));
}

std::string Membership::writer() const {
  return options_.row.shared ? TagOf(options_.row.name) : "";
}

Status Membership::Enter() {
  const Path& blobs = options_.blobs_dir;
  std::vector<std::string> leftovers;
  if (options_.row.shared) {
    const Path marks = blobs / kMarks;
    for (const Path& directory : {marks, blobs / "incoming"}) {
      const Status made = files_.CreateDirectories(directory);
      if (!made.ok()) return made.WithContext("blobs_dir");
    }
    SELVAGE_RETURN_IF_ERROR(
        WriteFileDurably(files_, marks / TagOf(options_.row.name),
                         AsBytes(options_.row.name + "\n"), 0600));
    // Before the others are asked for: whose file is there now is among them,
    // or has ended.
    SELVAGE_ASSIGN_OR_RETURN(leftovers, FileBlobStore::Incoming(files_, blobs));
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<std::string> others,
      store_.KeepReplica(options_.row, options_.lease, /*enter=*/true));
  entered_ = true;
  if (!options_.row.shared) return OkStatus();
  SELVAGE_RETURN_IF_ERROR(CheckBlobs(others));
  std::set<std::string> live;
  for (const std::string& other : others) live.insert(TagOf(other));
  for (const std::string& name : leftovers) {
    if (live.contains(name.substr(0, name.find('.')))) continue;
    SELVAGE_RETURN_IF_ERROR(FileBlobStore::RemoveIncoming(files_, blobs, name));
  }
  return OkStatus();
}

Status Membership::CheckBlobs(const std::vector<std::string>& others) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> marks,
                           files_.List(options_.blobs_dir / kMarks));
  for (const std::string& other : others) {
    if (std::find(marks.begin(), marks.end(), TagOf(other)) != marks.end()) {
      continue;
    }
    return FailedPrecondition(
        "blobs_dir " + options_.blobs_dir.string() +
        " is not the directory of the replica " + other +
        ": all replicas need the same one, on a shared mount");
  }
  return OkStatus();
}

void Membership::Run() {
  const Duration pause = options_.lease / 4;
  std::unique_lock<std::mutex> lock(mu_);
  while (!wake_.wait_for(lock, pause, [this] { return stopping_; })) {
    lock.unlock();
    const Status kept =
        store_.KeepReplica(options_.row, options_.lease, /*enter=*/false)
            .status();
    const bool lost = kept.code() == StatusCode::kAborted ||
                      kept.code() == StatusCode::kFailedPrecondition;
    if (!kept.ok()) {
      events_.Write(
          lost ? LogLevel::kError : LogLevel::kWarning,
          lost ? "replica_lost" : "replica_not_renewed",
          {{"replica", options_.row.name}, {"reason", kept.ToString()}});
    }
    if (lost) {
      options_.on_lost(kept);
      return;
    }
    lock.lock();
  }
}

}  // namespace selvage::coordinator
