// Artefacts by content address in a directory that may be deleted at any time:
// what is not there is fetched again.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/status.h"
#include "crypto/digest.h"

namespace selvage::client {

// Thread-compatible.
class BlobCache {
 public:
  // `files` must outlive the cache. The directory is created when needed.
  BlobCache(FileSystem& files, Path directory)
      : files_(files), directory_(std::move(directory)) {}

  // NOT_FOUND if it is not there, or was and its bytes do not have the digest
  // (it is removed then), or it is larger than `size_max`.
  Result<Bytes> Get(const crypto::Digest& digest, uint64_t size_max);
  // DATA_LOSS if the bytes do not have the digest.
  Status Put(const crypto::Digest& digest, ByteSpan bytes);

  // The beginning of an artefact whose transfer was interrupted, to go on from;
  // empty if there is none. Not verified: the whole is.
  Bytes GetPart(const crypto::Digest& digest, uint64_t size_max);
  Status PutPart(const crypto::Digest& digest, ByteSpan bytes);
  void DropPart(const crypto::Digest& digest);

  // Removes every file but these artefacts'. Best effort.
  void Keep(const std::vector<crypto::Digest>& digests);

 private:
  Path PathOf(const crypto::Digest& digest) const;
  Path PartOf(const crypto::Digest& digest) const;

  FileSystem& files_;
  const Path directory_;
};

}  // namespace selvage::client
