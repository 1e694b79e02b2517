// Artefacts by content address in a directory that may be deleted at any time:
// what is not there is fetched again.
//
// Bounded: before something is kept, what was unused the longest makes room for
// it. What the current work uses stays, however large it is: a backbone that
// were thrown away between the rounds that need it would be fetched each time.
// The order of use is in the file "order" in the directory; without it, or with
// a damaged one, the wrong artefact goes first, no more.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/status.h"
#include "crypto/digest.h"

namespace selvage::client {

// Thread-compatible.
class BlobCache {
 public:
  // `files` must outlive the cache. The directory is created when needed.
  BlobCache(FileSystem& files, Path directory,
            uint64_t bytes_max = uint64_t{256} << 20)
      : files_(files),
        directory_(std::move(directory)),
        bytes_max_(bytes_max) {}

  // NOT_FOUND if it is not there, or was and its bytes do not have the digest
  // (it is removed then), or it is larger than `size_max`. Otherwise the
  // current work uses it.
  Result<Bytes> Get(const crypto::Digest& digest, uint64_t size_max);
  // The same without its bytes in memory: the file, whose digest was verified
  // as it was opened. NOT_FOUND unless it is there and has this size.
  Result<std::unique_ptr<ReadableFile>> Open(const crypto::Digest& digest,
                                             uint64_t size);
  // DATA_LOSS if the bytes do not have the digest. The current work uses it.
  Status Put(const crypto::Digest& digest, ByteSpan bytes);

  // Of those with this size (a few versions of the same), the one that was used
  // last.
  std::optional<crypto::Digest> NewestOfSize(uint64_t size);

  // The beginning of an artefact whose transfer was interrupted, to go on from;
  // empty if there is none. Not verified: the whole is.
  Bytes GetPart(const crypto::Digest& digest, uint64_t size_max);
  Status PutPart(const crypto::Digest& digest, ByteSpan bytes);
  void DropPart(const crypto::Digest& digest);

  // From here on another work uses artefacts.
  void BeginWork();
  // Notes what it used; brings the directory within its bound, and clears it
  // of files that are none of the cache's. Best effort.
  void EndWork();

 private:
  Path PathOf(const crypto::Digest& digest) const;
  Path PartOf(const crypto::Digest& digest) const;
  // Removes what was unused the longest until a file `name` of `size` bytes
  // fits too.
  void MakeRoom(const std::string& name, uint64_t size);
  // Digests in hexadecimal, most recently used last.
  std::vector<std::string> ReadOrder();

  FileSystem& files_;
  const Path directory_;
  const uint64_t bytes_max_;
  std::vector<std::string> used_;  // by the current work, in order
};

}  // namespace selvage::client
