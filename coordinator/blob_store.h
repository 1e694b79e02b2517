// Where bytes live: artefacts named by their digest, and sealed partial sums
// named by their id. The Store says which of them count; a blob that no row
// names is an orphan, and goes in time (coordinator/orphans.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "coordinator/api.h"
#include "crypto/digest.h"

namespace selvage::coordinator {

// An artefact being written. Thread-compatible. Destroyed without Commit(), it
// leaves nothing behind.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // RESOURCE_EXHAUSTED if the disk is full.
  virtual Status Append(ByteSpan chunk) = 0;
  // DATA_LOSS, and nothing stored, unless the bytes have this digest. Durable
  // once this returns OK.
  virtual Status Commit(const crypto::Digest& digest) = 0;
  // Commit() under whatever digest the bytes have.
  virtual Result<crypto::Digest> Finish() = 0;
};

// A sealed blob being written. Thread-compatible. Destroyed without Commit(),
// it leaves nothing behind.
class SealedWriter {
 public:
  virtual ~SealedWriter() = default;
  // RESOURCE_EXHAUSTED if the disk is full.
  virtual Status Append(ByteSpan chunk) = 0;
  // Durable under its name once this returns OK.
  virtual Status Commit() = 0;
};

// Bytes that need not outlive the process. Thread-compatible. They go with it;
// what a process that died left behind goes when the store is opened.
class ScratchBlob {
 public:
  virtual ~ScratchBlob() = default;
  // RESOURCE_EXHAUSTED if the disk is full.
  virtual Status Append(ByteSpan chunk) = 0;
  // Fills `out` with what was appended at `offset`; returns the bytes read,
  // fewer only at the end.
  virtual Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) = 0;
};

// Thread-safe. Errors besides those named: RESOURCE_EXHAUSTED (disk full),
// INTERNAL (I/O).
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // Stores the bytes under their SHA-256. Durable once this returns; storing
  // them again changes nothing.
  virtual Result<crypto::Digest> Put(ByteSpan bytes) = 0;
  virtual Result<std::unique_ptr<BlobWriter>> NewBlob() = 0;
  // Stores these blobs, one after another (1 to kPiecesMax), as one more under
  // the SHA-256 of them all, without a copy of their bytes; it reads like any
  // other for as long as they are there. NOT_FOUND names a piece that is not
  // there. Durable once this returns.
  static constexpr size_t kPiecesMax = 256;
  virtual Result<crypto::Digest> PutJoined(
      std::span<const crypto::Digest> pieces) = 0;
  // As above, under the digest that whoever wrote the pieces found on the way:
  // they are not read again for it.
  virtual Status PutJoined(std::span<const crypto::Digest> pieces,
                           const crypto::Digest& digest) = 0;
  // NOT_FOUND; DATA_LOSS if the stored bytes do not have this digest (checked
  // the first time a process opens a blob) or a piece of them is missing. The
  // reader outlives a Remove().
  virtual Result<std::unique_ptr<ArtefactReader>> Open(
      const crypto::Digest& digest) = 0;
  // The whole blob, verified. RESOURCE_EXHAUSTED above `size_max` bytes.
  virtual Result<Bytes> Read(const crypto::Digest& digest,
                             uint64_t size_max) = 0;
  // OK also if there is none. Only for whoever is alone with the store: a Put()
  // at the same time may be for nothing.
  virtual Status Remove(const crypto::Digest& digest) = 0;
  // Those that are not set aside.
  virtual Result<std::vector<crypto::Digest>> List() = 0;

  // The first half of a removal that is safe whatever others do: the blob still
  // reads, and a Put() of the same bytes stores them anew beside it. OK also if
  // there is none.
  struct Aside {
    std::string name;  // never used twice
    crypto::Digest digest;
  };
  virtual Status SetAside(const crypto::Digest& digest) = 0;
  // By name.
  virtual Result<std::vector<Aside>> ListSetAside() = 0;
  // A row names it after all. OK also if there is none.
  virtual Status PutBack(const Aside& aside) = 0;
  // The second half: what was stored anew since stays. OK also if there is
  // none.
  virtual Status RemoveSetAside(const Aside& aside) = 0;

  // Sealed blobs: ciphertext under a caller's name ([a-z0-9-]{1,64}); whoever
  // holds the key authenticates them. Durable once this returns.
  virtual Status PutSealed(const std::string& name, ByteSpan bytes) = 0;
  virtual Result<std::unique_ptr<SealedWriter>> NewSealed(
      const std::string& name) = 0;
  virtual Result<Bytes> ReadSealed(const std::string& name) = 0;
  // For parts of it; as Open(), but nothing is verified. NOT_FOUND.
  virtual Result<std::unique_ptr<ArtefactReader>> OpenSealed(
      const std::string& name) = 0;
  virtual Status RemoveSealed(const std::string& name) = 0;
  virtual Result<std::vector<std::string>> ListSealed() = 0;

  // For intermediate bytes; whoever puts them there seals what is derived from
  // updates.
  virtual Result<std::unique_ptr<ScratchBlob>> NewScratch() = 0;

  // Of the disk that holds the blobs.
  virtual Result<uint64_t> FreeBytes() = 0;
};

// Fills `out` with what is at `offset`. DATA_LOSS, naming `what`, if the blob
// ends before.
Status ReadExactly(ArtefactReader& reader, uint64_t offset,
                   std::span<uint8_t> out, std::string_view what);

}  // namespace selvage::coordinator
