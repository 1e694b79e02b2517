// Messages as gRPC has them from the wire: for streams whose bytes are many.
#pragma once

#include <selvage/v1/device.pb.h>

#include <vector>

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/status.h"

namespace selvage::coordinator {

// INTERNAL if the bytes are no such message: what gRPC answers itself where it
// does the parsing.
template <typename Message>
Result<Message> ParseMessage(const grpc::ByteBuffer& raw) {
  grpc::ByteBuffer copy(raw);  // of references; parsing empties it
  Message message;
  const grpc::Status status =
      grpc::SerializationTraits<Message>::Deserialize(&copy, &message);
  if (!status.ok()) return Internal(status.error_message());
  return message;
}

template <typename Message>
grpc::ByteBuffer SerializeMessage(const Message& message) {
  grpc::ByteBuffer raw;
  bool own_buffer = false;
  SELVAGE_CHECK(
      grpc::SerializationTraits<Message>::Serialize(message, &raw, &own_buffer)
          .ok());
  return raw;
}

// Bytes in the pieces in which they came, and what keeps them.
class RawBytes {
 public:
  RawBytes() = default;
  // All of `slices` but the first `skipped` bytes.
  RawBytes(std::vector<grpc::Slice> slices, size_t skipped);
  // A copy.
  explicit RawBytes(const std::string& bytes)
      : RawBytes({grpc::Slice(bytes)}, 0) {}

  size_t size() const { return size_; }
  const std::vector<ByteSpan>& pieces() const { return pieces_; }

 private:
  std::vector<grpc::Slice> slices_;
  std::vector<ByteSpan> pieces_;
  size_t size_ = 0;
};

// The chunk of an UploadRequest; empty if it has none. INVALID_ARGUMENT for a
// header, INTERNAL as ParseMessage(). Without a copy for a message that is its
// one field and nothing else, as all encoders write it.
Result<RawBytes> ParseChunk(const grpc::ByteBuffer& raw);

}  // namespace selvage::coordinator
