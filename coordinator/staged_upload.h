// The bytes of one large upload on disk, from their arrival until they are in a
// partial. They are derived from somebody's examples: every piece is sealed
// (AES-256-GCM) under a key of this upload that is nowhere but in the memory of
// this process, so a file that is left behind says nothing. It is bound to its
// place, so pieces cannot be exchanged.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "coordinator/blob_store.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

// Thread-compatible. Its file goes with it.
class StagedUpload {
 public:
  static constexpr size_t kPieceSize = size_t{1} << 20;
  // What it takes of memory: a piece that is filled, and one being sealed.
  static constexpr uint64_t kMemoryBytes = 2 * kPieceSize;

  // `random` must outlive it. RESOURCE_EXHAUSTED if the disk is full.
  static Result<std::unique_ptr<StagedUpload>> Create(BlobStore& blobs,
                                                      RandomSource& random);

  // RESOURCE_EXHAUSTED if the disk is full. After an error it can only be
  // destroyed.
  Status Append(ByteSpan chunk);
  // No Append() after it, no Read() before it.
  Status Finish();

  uint64_t size() const { return size_; }
  // Fills `out` with what was appended from `offset` on. DATA_LOSS if the file
  // is not what was written. REQUIRES: offset + out.size() <= size().
  Status Read(uint64_t offset, std::span<uint8_t> out) const;

 private:
  StagedUpload(std::unique_ptr<ScratchBlob> file, RandomSource& random);

  Status Flush();
  Result<Bytes> ReadPiece(uint64_t index) const;

  const std::unique_ptr<ScratchBlob> file_;
  RandomSource& random_;
  const crypto::SecretBytes key_;
  Bytes open_piece_;
  uint64_t sealed_pieces_ = 0;
  uint64_t size_ = 0;
};

}  // namespace selvage::coordinator
