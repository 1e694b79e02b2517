// Artefacts that people upload: programs, archives, initial models.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "base/mutex.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

inline constexpr uint64_t kArtefactSizeMax = uint64_t{4} << 30;
inline constexpr size_t kArtefactUploadsMax = 64;  // at a time

// Thread-safe; the methods are those of AdminApi.
class ArtefactUploads {
 public:
  ArtefactUploads(Store& store, BlobStore& blobs)
      : store_(store), blobs_(blobs) {}

  Result<std::optional<uint64_t>> Begin(const crypto::Digest& digest,
                                        uint64_t size_bytes);
  Status Append(uint64_t id, ByteSpan chunk);
  Status Finish(uint64_t id);
  void Drop(uint64_t id);

 private:
  struct Upload {
    Mutex mu;
    crypto::Digest digest;
    uint64_t size_bytes = 0;
    uint64_t received SELVAGE_GUARDED_BY(mu) = 0;
    std::unique_ptr<BlobWriter> writer SELVAGE_GUARDED_BY(mu);
  };
  std::shared_ptr<Upload> Find(uint64_t id) SELVAGE_EXCLUDES(mu_);
  std::shared_ptr<Upload> Take(uint64_t id) SELVAGE_EXCLUDES(mu_);

  Store& store_;
  BlobStore& blobs_;
  Mutex mu_;
  std::map<uint64_t, std::shared_ptr<Upload>> uploads_ SELVAGE_GUARDED_BY(mu_);
  uint64_t next_id_ SELVAGE_GUARDED_BY(mu_) = 1;
};

}  // namespace selvage::coordinator
