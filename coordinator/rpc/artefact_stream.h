// Streams an artefact down: DeviceService.Fetch and AdminService.
// DownloadArtifact differ in the message's name alone.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>

#include "coordinator/api.h"
#include "coordinator/rpc/status_convert.h"
#include "coordinator/rpc/watchdog.h"

namespace selvage::coordinator {

// The bytes [offset, offset + size) of an artefact as a message. DATA_LOSS if
// it is shorter than it said.
template <typename Chunk>
Status ReadChunk(ArtefactReader& reader, uint64_t offset, size_t size,
                 Chunk& chunk) {
  chunk.set_total_size(reader.size());
  std::string& data = *chunk.mutable_data();
  data.resize(size);
  SELVAGE_ASSIGN_OR_RETURN(
      const size_t read,
      reader.ReadAt(offset, {reinterpret_cast<uint8_t*>(data.data()), size}));
  return read == size ? OkStatus() : DataLoss("the artefact is truncated");
}

// The same on the wire, without a copy: the bytes are read to where gRPC sends
// them from. Fields 1 (total_size) and 2 (data) of the messages above.
inline Result<grpc::Slice> ReadChunk(ArtefactReader& reader, uint64_t offset,
                                     size_t size) {
  std::array<uint8_t, 22> head{};  // two tags, two varints
  size_t head_size = 0;
  const auto put_field = [&](uint8_t tag, uint64_t value) {
    head[head_size++] = tag;
    for (; value >= 0x80; value >>= 7) {
      head[head_size++] = static_cast<uint8_t>(value | 0x80);
    }
    head[head_size++] = static_cast<uint8_t>(value);
  };
  // What is zero or empty is left out.
  if (reader.size() > 0) put_field(1 << 3, reader.size());
  if (size > 0) put_field(2 << 3 | 2, size);
  const grpc::Slice slice(head_size + size);
  // Nobody else has it yet.
  auto* const bytes = const_cast<uint8_t*>(slice.begin());
  std::copy_n(head.begin(), head_size, bytes);
  SELVAGE_ASSIGN_OR_RETURN(const size_t read,
                           reader.ReadAt(offset, {bytes + head_size, size}));
  if (read != size) return DataLoss("the artefact is truncated");
  return slice;
}

// `Chunk` has total_size and data, or is raw bytes. Deletes itself when the
// call is over. At least one chunk is sent, so that the peer learns the size.
// Chunks end at multiples of `chunk_size`, wherever the stream begins.
template <typename Chunk>
class ArtefactStream final : public grpc::ServerWriteReactor<Chunk> {
 public:
  using Read = std::function<Status(ArtefactReader&, uint64_t, size_t, Chunk&)>;

  // OUT_OF_RANGE ends the call if `offset` lies beyond the artefact.
  // `end` makes of what ended the call the status that it is finished with.
  // `read` makes chunks (as ReadChunk()).
  ArtefactStream(
      grpc::CallbackServerContext* context,
      std::unique_ptr<ArtefactReader> reader, uint64_t offset,
      size_t chunk_size, Duration chunk_timeout, int chunk_timeouts_max,
      std::function<grpc::Status(const Status&)> end = ToGrpc,
      Read read =
          [](ArtefactReader& from, uint64_t begin, size_t size, Chunk& chunk) {
            return ReadChunk(from, begin, size, chunk);
          })
      : end_(std::move(end)),
        read_(std::move(read)),
        watchdog_(context, chunk_timeout, chunk_timeouts_max),
        reader_(std::move(reader)),
        chunk_size_(chunk_size),
        offset_(offset) {
    if (offset_ > reader_->size()) {
      this->Finish(end_(OutOfRange(
          "offset " + std::to_string(offset_) + " is beyond the artefact's " +
          std::to_string(reader_->size()) + " bytes")));
      return;
    }
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      this->Finish(end_(Cancelled("the connection ended")));
      return;
    }
    watchdog_.Progress();
    if (offset_ == reader_->size()) {
      this->Finish(end_(OkStatus()));
      return;
    }
    WriteNext();
  }

  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    const uint64_t rest = reader_->size() - offset_;
    const auto size = static_cast<size_t>(
        std::min<uint64_t>(rest, chunk_size_ - offset_ % chunk_size_));
    const Status status = read_(*reader_, offset_, size, chunk_);
    if (!status.ok()) {
      this->Finish(end_(status));
      return;
    }
    offset_ += size;
    this->StartWrite(&chunk_);
  }

  const std::function<grpc::Status(const Status&)> end_;
  const Read read_;
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
  explicit FailedStream(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace selvage::coordinator
