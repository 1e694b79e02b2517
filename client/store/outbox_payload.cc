#include "client/store/outbox_payload.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

namespace selvage::client {
namespace {

// The piece that was read last.
struct Piece {
  std::optional<uint64_t> number;
  Bytes bytes;
};

}  // namespace

OutboxWriter::~OutboxWriter() {
  // What cannot be dropped now is when the store is opened.
  if (!finished_ && number_ > 0) (void)store_.DropLoosePieces();
}

Status OutboxWriter::Append(ByteSpan bytes) {
  while (status_.ok() && !bytes.empty()) {
    if (piece_.empty()) piece_.reserve(kOutboxPieceBytes);
    const size_t size =
        std::min(bytes.size(), kOutboxPieceBytes - piece_.size());
    AppendBytes(piece_, bytes.first(size));
    bytes = bytes.subspan(size);
    if (piece_.size() == kOutboxPieceBytes) status_ = Flush();
  }
  return status_;
}

Status OutboxWriter::Finish() {
  if (status_.ok() && !piece_.empty()) status_ = Flush();
  finished_ = status_.ok();
  piece_ = Bytes();
  return status_;
}

Status OutboxWriter::Flush() {
  if (number_ == 0) SELVAGE_RETURN_IF_ERROR(store_.DropLoosePieces());
  SELVAGE_RETURN_IF_ERROR(
      store_.AddOutboxPiece(assignment_id_, number_, piece_));
  ++number_;
  piece_.clear();
  return OkStatus();
}

UpdateBytes BytesOf(ClientStore& store, const OutboxEntry& entry) {
  const BuiltUpdate& update = entry.update;
  if (update.stored_bytes == 0) return UpdateBytes(ByteSpan(update.encoded));
  const auto read = [&store, &entry, piece = std::make_shared<Piece>()](
                        uint64_t offset, std::span<uint8_t> out) -> Status {
    while (!out.empty()) {
      const uint64_t number = offset / kOutboxPieceBytes;
      if (piece->number != number) {
        piece->number.reset();
        SELVAGE_ASSIGN_OR_RETURN(
            piece->bytes, store.LoadOutboxPiece(entry.assignment_id, number));
        piece->number = number;
      }
      const auto at = static_cast<size_t>(offset % kOutboxPieceBytes);
      if (at >= piece->bytes.size()) {
        return DataLoss("piece " + std::to_string(number) +
                        " of the update in the outbox has " +
                        std::to_string(piece->bytes.size()) + " bytes");
      }
      const size_t size = std::min(out.size(), piece->bytes.size() - at);
      std::copy_n(piece->bytes.begin() + static_cast<std::ptrdiff_t>(at), size,
                  out.begin());
      out = out.subspan(size);
      offset += size;
    }
    return OkStatus();
  };
  return UpdateBytes(update.stored_bytes, read);
}

}  // namespace selvage::client
