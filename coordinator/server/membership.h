// This process among those that have its PostgreSQL database open: written down
// in the database and, of several, in the blobs' directory; kept up by a thread
// of its own for as long as the process lives.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/file_system.h"
#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/postgres/postgres_store.h"

namespace selvage::coordinator {

class Membership {
 public:
  struct Options {
    ReplicaRow row;
    Duration lease{};
    Path blobs_dir;
    // Another process has the place (ABORTED), or may not be shared with
    // (FAILED_PRECONDITION): this one must end without another write. Called
    // once, from the thread.
    std::function<void(const Status& why)> on_lost;
  };
  // FAILED_PRECONDITION as of PostgresStore::KeepReplica(), and if another
  // replica has other blobs. What earlier processes left unfinished in the
  // directory of the blobs goes. All but `options` must outlive it.
  static Result<std::unique_ptr<Membership>> Join(Options options,
                                                  FileSystem& files,
                                                  PostgresStore& store,
                                                  EventSink& events);
  // Leaves.
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  // For FileBlobStore::Open(); empty unless the row is shared.
  std::string writer() const;

 private:
  Membership(Options options, FileSystem& files, PostgresStore& store,
             EventSink& events);
  Status Enter();
  // The others' marks are where this one's is.
  Status CheckBlobs(const std::vector<std::string>& others);
  void Run();

  const Options options_;
  FileSystem& files_;
  PostgresStore& store_;
  EventSink& events_;
  bool entered_ = false;
  std::mutex mu_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace selvage::coordinator
