#include "coordinator/rpc/raw_message.h"

#include <algorithm>
#include <utility>

namespace selvage::coordinator {
namespace {

constexpr uint8_t kChunkTag = 2 << 3 | 2;  // field 2, length-delimited

// How many bytes precede the chunk if nothing but it is in `slices`, `size`
// bytes in all; 0 otherwise.
size_t HeadSize(const std::vector<grpc::Slice>& slices, size_t size) {
  // A tag and a length of at most five bytes.
  uint8_t head[6];
  size_t known = 0;
  for (const grpc::Slice& slice : slices) {
    const size_t more = std::min(sizeof head - known, slice.size());
    std::copy_n(slice.begin(), more, head + known);
    known += more;
    if (known == sizeof head) break;
  }
  if (known < 2 || head[0] != kChunkTag) return 0;
  uint64_t length = 0;
  for (size_t i = 1; i < known; ++i) {
    length |= uint64_t{head[i] & 0x7fU} << (7 * (i - 1));
    if ((head[i] & 0x80) != 0) continue;
    return length == size - (i + 1) ? i + 1 : 0;
  }
  return 0;
}

}  // namespace

RawBytes::RawBytes(std::vector<grpc::Slice> slices, size_t skipped)
    : slices_(std::move(slices)) {
  for (const grpc::Slice& slice : slices_) {
    const size_t skip = std::min(skipped, slice.size());
    skipped -= skip;
    if (skip == slice.size()) continue;
    pieces_.emplace_back(slice.begin() + skip, slice.size() - skip);
    size_ += slice.size() - skip;
  }
}

Result<RawBytes> ParseChunk(const grpc::ByteBuffer& raw) {
  std::vector<grpc::Slice> slices;
  if (raw.Valid() && raw.Dump(&slices).ok()) {
    const size_t head = HeadSize(slices, raw.Length());
    if (head > 0) return RawBytes(std::move(slices), head);
  }
  SELVAGE_ASSIGN_OR_RETURN(const v1::UploadRequest request,
                           ParseMessage<v1::UploadRequest>(raw));
  if (request.has_header()) return InvalidArgument("an upload has one header");
  return RawBytes(request.chunk());
}

}  // namespace selvage::coordinator
