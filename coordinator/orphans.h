// Which blobs go because no row names them: what was written for a transaction
// that never committed, and what rounds that ended left behind.
//
// Whoever stores a blob names it in a row within kOrphanAge, or gives up. So
// one that was there and unnamed over all of that time by the store's clock is
// an orphan: a sealed one goes, since its name is never used again. The bytes
// of an artefact, however, may be stored again at any moment, and whoever finds
// them there writes nothing; so it is first set aside (BlobStore::SetAside),
// from where whoever stores it again does not count on it, and goes after as
// long again. If a row names it by then, it comes back.
//
// Every step is one rename or one removal: a crash leaves a blob where it was,
// set aside, or gone, and the next process goes on from what it finds. Several
// processes over one folder may collect at the same time.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

inline constexpr Duration kOrphanAge = std::chrono::hours(1);

// Since when names have been there without a row. Pure.
template <typename Name>
class OrphanWatch {
 public:
  // Takes note of those of `present` that `named` does not have; returns those
  // that have been so in every call since `now - age` or before. A name that
  // was missing from one call begins anew.
  std::vector<Name> Due(const std::vector<Name>& present,
                        const std::set<Name>& named, Time now, Duration age) {
    std::map<Name, Time> unnamed;
    std::vector<Name> due;
    for (const Name& name : present) {
      if (named.contains(name)) continue;
      const auto seen = since_.find(name);
      const Time since = seen == since_.end() ? now : seen->second;
      unnamed.emplace(name, since);
      if (now - since >= age) due.push_back(name);
    }
    since_ = std::move(unnamed);
    return due;
  }

 private:
  std::map<Name, Time> since_;
};

// Thread-compatible. `store` and `blobs` must outlive it.
class OrphanCollector {
 public:
  OrphanCollector(Store& store, BlobStore& blobs)
      : store_(store), blobs_(blobs) {}

  struct Counts {
    uint64_t artefacts = 0;
    uint64_t sealed = 0;
    uint64_t set_aside = 0;
    uint64_t put_back = 0;
    uint64_t removed() const { return artefacts + sealed; }
  };

  // Before anybody uses the store, and nobody else can: what no row names goes
  // at once.
  Result<Counts> CollectAlone();
  // At any time. After an error some may have gone; call again.
  Result<Counts> Collect(Time now);

 private:
  Status CollectArtefacts(Time now, Counts& counts);
  Status CollectSetAside(Time now, Counts& counts);
  Status CollectSealed(Time now, Counts& counts);

  Store& store_;
  BlobStore& blobs_;
  OrphanWatch<crypto::Digest> artefacts_;
  OrphanWatch<std::string> set_aside_;
  OrphanWatch<std::string> sealed_;
};

}  // namespace selvage::coordinator
