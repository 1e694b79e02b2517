#include "coordinator/staged_upload.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

constexpr uint64_t kSealedPieceSize =
    StagedUpload::kPieceSize + crypto::kAeadOverhead;

Bytes PieceContext(uint64_t index) {
  return ToBytes("selvage/v1 staged upload\n" + std::to_string(index));
}

}  // namespace

StagedUpload::StagedUpload(std::unique_ptr<ScratchBlob> file,
                           RandomSource& random)
    : file_(std::move(file)),
      random_(random),
      key_(crypto::NewAeadKey(random)) {}

Result<std::unique_ptr<StagedUpload>> StagedUpload::Create(
    BlobStore& blobs, RandomSource& random) {
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ScratchBlob> file,
                           blobs.NewScratch());
  return std::unique_ptr<StagedUpload>(
      new StagedUpload(std::move(file), random));
}

Status StagedUpload::Append(ByteSpan chunk) {
  while (!chunk.empty()) {
    open_piece_.reserve(kPieceSize);
    const size_t count =
        std::min(chunk.size(), kPieceSize - open_piece_.size());
    AppendBytes(open_piece_, chunk.first(count));
    chunk = chunk.subspan(count);
    size_ += count;
    if (open_piece_.size() == kPieceSize) SELVAGE_RETURN_IF_ERROR(Flush());
  }
  return OkStatus();
}

Status StagedUpload::Flush() {
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed,
      crypto::Seal(key_, open_piece_, PieceContext(sealed_pieces_), random_));
  SELVAGE_RETURN_IF_ERROR(file_->Append(sealed));
  ++sealed_pieces_;
  open_piece_.clear();
  return OkStatus();
}

Status StagedUpload::Finish() {
  if (!open_piece_.empty()) SELVAGE_RETURN_IF_ERROR(Flush());
  Bytes().swap(open_piece_);
  return OkStatus();
}

Result<Bytes> StagedUpload::ReadPiece(uint64_t index) const {
  const uint64_t plain =
      std::min<uint64_t>(kPieceSize, size_ - index * kPieceSize);
  Bytes sealed(static_cast<size_t>(plain) + crypto::kAeadOverhead);
  SELVAGE_ASSIGN_OR_RETURN(const size_t read,
                           file_->ReadAt(index * kSealedPieceSize, sealed));
  if (read != sealed.size()) {
    return DataLoss("piece " + std::to_string(index) +
                    " of a staged upload ends after " + std::to_string(read) +
                    " bytes of " + std::to_string(sealed.size()));
  }
  Result<Bytes> opened = crypto::Open(key_, sealed, PieceContext(index));
  if (!opened.ok()) {
    return opened.status().WithContext("piece " + std::to_string(index) +
                                       " of a staged upload");
  }
  return opened;
}

Status StagedUpload::Read(uint64_t offset, std::span<uint8_t> out) const {
  SELVAGE_CHECK(offset <= size_ && out.size() <= size_ - offset);
  SELVAGE_CHECK(open_piece_.empty());
  while (!out.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes piece, ReadPiece(offset / kPieceSize));
    const auto from = static_cast<size_t>(offset % kPieceSize);
    const size_t count = std::min(out.size(), piece.size() - from);
    std::copy_n(piece.begin() + static_cast<ptrdiff_t>(from), count,
                out.begin());
    out = out.subspan(count);
    offset += count;
  }
  return OkStatus();
}

}  // namespace selvage::coordinator
