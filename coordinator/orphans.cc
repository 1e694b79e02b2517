#include "coordinator/orphans.h"

namespace selvage::coordinator {

// Blobs are listed before rows are read: one whose row is committed in between
// counts as named.

Result<OrphanCollector::Counts> OrphanCollector::CollectAlone() {
  Counts counts;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<BlobStore::Aside> aside,
                           blobs_.ListSetAside());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<crypto::Digest> blobs,
                           blobs_.List());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> sealed,
                           blobs_.ListSealed());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<crypto::Digest> known,
                           store_.ListArtefacts());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> live,
                           store_.LivePartials());
  const std::set<crypto::Digest> named(known.begin(), known.end());
  const std::set<std::string> partials(live.begin(), live.end());
  for (const BlobStore::Aside& blob : aside) {
    if (named.contains(blob.digest)) {
      SELVAGE_RETURN_IF_ERROR(blobs_.PutBack(blob));
      ++counts.put_back;
    } else {
      SELVAGE_RETURN_IF_ERROR(blobs_.RemoveSetAside(blob));
      ++counts.artefacts;
    }
  }
  for (const crypto::Digest& digest : blobs) {
    if (named.contains(digest)) continue;
    SELVAGE_RETURN_IF_ERROR(blobs_.Remove(digest));
    ++counts.artefacts;
  }
  for (const std::string& name : sealed) {
    if (partials.contains(name)) continue;
    SELVAGE_RETURN_IF_ERROR(blobs_.RemoveSealed(name));
    ++counts.sealed;
  }
  return counts;
}

Result<OrphanCollector::Counts> OrphanCollector::Collect(Time now) {
  Counts counts;
  SELVAGE_RETURN_IF_ERROR(CollectSetAside(now, counts));
  SELVAGE_RETURN_IF_ERROR(CollectArtefacts(now, counts));
  SELVAGE_RETURN_IF_ERROR(CollectSealed(now, counts));
  return counts;
}

Status OrphanCollector::CollectSetAside(Time now, Counts& counts) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<BlobStore::Aside> aside,
                           blobs_.ListSetAside());
  std::map<std::string, BlobStore::Aside> by_name;
  std::vector<std::string> names;
  for (const BlobStore::Aside& blob : aside) {
    SELVAGE_ASSIGN_OR_RETURN(const bool known, store_.HasArtefact(blob.digest));
    if (known) {
      SELVAGE_RETURN_IF_ERROR(blobs_.PutBack(blob));
      ++counts.put_back;
      continue;
    }
    by_name.emplace(blob.name, blob);
    names.push_back(blob.name);
  }
  for (const std::string& name : set_aside_.Due(names, {}, now, kOrphanAge)) {
    SELVAGE_RETURN_IF_ERROR(blobs_.RemoveSetAside(by_name.at(name)));
    ++counts.artefacts;
  }
  return OkStatus();
}

Status OrphanCollector::CollectArtefacts(Time now, Counts& counts) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<crypto::Digest> blobs,
                           blobs_.List());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<crypto::Digest> known,
                           store_.ListArtefacts());
  const std::set<crypto::Digest> named(known.begin(), known.end());
  for (const crypto::Digest& digest :
       artefacts_.Due(blobs, named, now, kOrphanAge)) {
    SELVAGE_RETURN_IF_ERROR(blobs_.SetAside(digest));
    ++counts.set_aside;
  }
  return OkStatus();
}

Status OrphanCollector::CollectSealed(Time now, Counts& counts) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> sealed,
                           blobs_.ListSealed());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> live,
                           store_.LivePartials());
  const std::set<std::string> named(live.begin(), live.end());
  for (const std::string& name : sealed_.Due(sealed, named, now, kOrphanAge)) {
    SELVAGE_RETURN_IF_ERROR(blobs_.RemoveSealed(name));
    ++counts.sealed;
  }
  return OkStatus();
}

}  // namespace selvage::coordinator
