#include "client/store/blob_cache.h"

#include <set>
#include <string>

namespace selvage::client {

Path BlobCache::PathOf(const crypto::Digest& digest) const {
  return directory_ / digest.ToHex();
}
Path BlobCache::PartOf(const crypto::Digest& digest) const {
  return directory_ / (digest.ToHex() + ".part");
}

Result<Bytes> BlobCache::Get(const crypto::Digest& digest, uint64_t size_max) {
  Result<Bytes> bytes = ReadFile(files_, PathOf(digest), size_max);
  if (bytes.ok() && crypto::Sha256(*bytes) == digest) return bytes;
  if (bytes.ok() || bytes.status().code() != StatusCode::kNotFound) {
    // Damaged, too large or unreadable: worth fetching again. If it cannot be
    // removed, Put() replaces it.
    (void)files_.Remove(PathOf(digest));
  }
  return NotFound("artefact " + digest.ToHex() + " is not in the cache");
}

Status BlobCache::Put(const crypto::Digest& digest, ByteSpan bytes) {
  if (crypto::Sha256(bytes) != digest) {
    return DataLoss("artefact " + digest.ToHex() +
                    " does not have its digest (" +
                    std::to_string(bytes.size()) + " bytes)");
  }
  SELVAGE_RETURN_IF_ERROR(files_.CreateDirectories(directory_));
  return WriteFileDurably(files_, PathOf(digest), bytes);
}

Bytes BlobCache::GetPart(const crypto::Digest& digest, uint64_t size_max) {
  Result<Bytes> bytes = ReadFile(files_, PartOf(digest), size_max);
  return bytes.ok() ? *std::move(bytes) : Bytes();
}

Status BlobCache::PutPart(const crypto::Digest& digest, ByteSpan bytes) {
  SELVAGE_RETURN_IF_ERROR(files_.CreateDirectories(directory_));
  return WriteFileDurably(files_, PartOf(digest), bytes);
}

void BlobCache::DropPart(const crypto::Digest& digest) {
  (void)files_.Remove(PartOf(digest));  // not there is as good
}

void BlobCache::Keep(const std::vector<crypto::Digest>& digests) {
  std::set<std::string> names;
  for (const crypto::Digest& digest : digests) {
    names.insert(digest.ToHex());
    names.insert(digest.ToHex() + ".part");
  }
  const Result<std::vector<std::string>> files = files_.List(directory_);
  if (!files.ok()) return;
  for (const std::string& name : *files) {
    if (!names.contains(name)) (void)files_.Remove(directory_ / name);
  }
}

}  // namespace selvage::client
