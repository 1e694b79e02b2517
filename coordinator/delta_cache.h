// Deltas between artefacts of the same size (aggregation/codec/delta_codec.h),
// made when the first device asks and kept for the others.
//
// Bounded in all three: memory by `bytes_max` (least recently used goes),
// processor time by one delta being made at a time, of artefacts of
// `artefact_bytes_max` at most, with `waiting_max` callers waiting for it; who
// comes beyond that is told that there is none, and takes the whole.
#pragma once

#include <atomic>
#include <compare>
#include <list>
#include <map>
#include <memory>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/status.h"
#include "coordinator/api.h"
#include "coordinator/blob_store.h"
#include "crypto/digest.h"
#include "plan/task.h"

namespace selvage::coordinator {

// Thread-safe.
class DeltaCache {
 public:
  struct Limits {
    uint64_t bytes_max = uint64_t{64} << 20;
    uint64_t artefact_bytes_max = uint64_t{32} << 20;
    int waiting_max = 16;
  };
  struct Name {
    plan::CodecName codec = plan::CodecName::kFloat16;
    crypto::Digest base;
    crypto::Digest target;
    friend auto operator<=>(const Name&, const Name&) = default;
  };

  // `blobs` must outlive the cache.
  DeltaCache(const Limits& limits, BlobStore& blobs)
      : limits_(limits), blobs_(blobs) {}

  // May take as long as making it does. NOT_FOUND if one of the artefacts is
  // not there, or there is no delta between them: other sizes, above the limit,
  // or not clearly smaller than the whole. The same name gives the same bytes.
  // The reader may outlive the cache.
  Result<std::unique_ptr<ArtefactReader>> Open(const Name& name);

  uint64_t bytes() const;  // that are kept

 private:
  using Delta = std::shared_ptr<const Bytes>;  // nullptr: there is none
  struct Entry {
    Delta delta;
    std::list<Name>::iterator used;
  };

  bool Find(const Name& name, Delta& delta);
  void Keep(const Name& name, const Delta& delta);
  Result<Delta> Make(const Name& name);
  static uint64_t CostOf(const Delta& delta);

  const Limits limits_;
  BlobStore& blobs_;
  std::atomic<int> waiting_{0};
  Mutex making_;  // taken before mu_
  mutable Mutex mu_;
  std::map<Name, Entry> entries_ SELVAGE_GUARDED_BY(mu_);
  std::list<Name> used_ SELVAGE_GUARDED_BY(mu_);  // most recently last
  uint64_t bytes_ SELVAGE_GUARDED_BY(mu_) = 0;
};

}  // namespace selvage::coordinator
