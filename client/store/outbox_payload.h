// The bytes of a large update on their way into the outbox and out of it again,
// a piece at a time.
//
// Every piece is sealed and durable by itself, and bound to its assignment and
// its place. Pieces alone are no update: ClientStore::SaveSession() with the
// entry that they belong to makes them one, in the transaction that records it.
// What was never recorded is dropped when the store is opened, and before the
// next update is written.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/status.h"
#include "client/core/update_bytes.h"
#include "client/store/client_store.h"

namespace selvage::client {

// Thread-compatible.
class OutboxWriter final : public UpdateSink {
 public:
  // The store must outlive the writer.
  OutboxWriter(ClientStore& store, std::string assignment_id)
      : store_(store), assignment_id_(std::move(assignment_id)) {}
  // Drops what was written unless Finish() was OK.
  ~OutboxWriter() override;
  OutboxWriter(const OutboxWriter&) = delete;
  OutboxWriter& operator=(const OutboxWriter&) = delete;

  // Errors are the store's, and stay: see status().
  Status Append(ByteSpan bytes) override;
  // The last piece. Nothing may be appended after it.
  Status Finish();

  const Status& status() const { return status_; }

 private:
  Status Flush();

  ClientStore& store_;
  const std::string assignment_id_;
  Bytes piece_;
  uint64_t number_ = 0;  // of the next piece
  bool finished_ = false;
  Status status_;
};

// The bytes of what the outbox holds: those in `entry`, or, if they were
// written in pieces, these, one of which is in memory. Both must outlive it.
// Reading is DATA_LOSS if a piece is damaged or gone.
UpdateBytes BytesOf(ClientStore& store, const OutboxEntry& entry);

}  // namespace selvage::client
