// Streams an artefact down: DeviceService.Fetch and AdminService.
// DownloadArtifact differ in the message's name alone.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "coordinator/api.h"
#include "coordinator/rpc/status_convert.h"
#include "coordinator/rpc/watchdog.h"

namespace selvage::coordinator {

// `Chunk` has total_size and data. Deletes itself when the call is over. At
// least one chunk is sent, so that the peer learns the size.
template <typename Chunk>
class ArtefactStream final : public grpc::ServerWriteReactor<Chunk> {
 public:
  // OUT_OF_RANGE ends the call if `offset` lies beyond the artefact.
  ArtefactStream(grpc::CallbackServerContext* context,
                 std::unique_ptr<ArtefactReader> reader, uint64_t offset,
                 size_t chunk_size, Duration chunk_timeout,
                 int chunk_timeouts_max)
      : watchdog_(context, chunk_timeout, chunk_timeouts_max),
        reader_(std::move(reader)),
        chunk_size_(chunk_size),
        offset_(offset) {
    if (offset_ > reader_->size()) {
      this->Finish(ToGrpc(OutOfRange(
          "offset " + std::to_string(offset_) + " is beyond the artefact's " +
          std::to_string(reader_->size()) + " bytes")));
      return;
    }
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      this->Finish(ToGrpc(Cancelled("the connection ended")));
      return;
    }
    watchdog_.Progress();
    if (offset_ == reader_->size()) {
      this->Finish(grpc::Status::OK);
      return;
    }
    WriteNext();
  }

  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    const uint64_t rest = reader_->size() - offset_;
    const auto size =
        static_cast<size_t>(std::min<uint64_t>(rest, chunk_size_));
    chunk_.set_total_size(reader_->size());
    std::string& data = *chunk_.mutable_data();
    data.resize(size);
    const Result<size_t> read = reader_->ReadAt(
        offset_, {reinterpret_cast<uint8_t*>(data.data()), size});
    if (!read.ok() || *read != size) {
      this->Finish(ToGrpc(read.ok() ? DataLoss("the artefact is truncated")
                                    : read.status()));
      return;
    }
    offset_ += size;
    this->StartWrite(&chunk_);
  }

  Watchdog watchdog_;
  const std::unique_ptr<ArtefactReader> reader_;
  const size_t chunk_size_;
  uint64_t offset_;
  Chunk chunk_;
};

// A write stream that fails at once.
template <typename Chunk>
class FailedStream final : public grpc::ServerWriteReactor<Chunk> {
 public:
  explicit FailedStream(const Status& status) { this->Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace selvage::coordinator
