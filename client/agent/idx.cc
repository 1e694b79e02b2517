#include "client/agent/idx.h"

#include <bit>
#include <string>

namespace selvage::agent {
namespace {

constexpr uint8_t kUnsignedByte = 0x08;
constexpr uint8_t kFloat32 = 0x0D;
constexpr size_t kRankMax = 8;
constexpr uint64_t kExampleCountMax = 1'000'000;
constexpr uint64_t kSizeMax = uint64_t{1} << 30;

Result<uint32_t> ReadBigEndian32(ByteReader& reader, std::string_view what) {
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan b, reader.ReadBytes(4, what));
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 |
         uint32_t{b[3]};
}

}  // namespace

Result<IdxRows> ParseIdx(ByteSpan bytes) {
  ByteReader reader(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan magic,
                           reader.ReadBytes(4, "the IDX magic"));
  if (magic[0] != 0 || magic[1] != 0) {
    return InvalidArgument("not an IDX file: it does not start with 00 00");
  }
  const uint8_t type = magic[2];
  if (type != kUnsignedByte && type != kFloat32) {
    return InvalidArgument("IDX type " + std::to_string(type) +
                           " is neither 8 (unsigned byte) nor 13 (float32)");
  }
  const size_t rank = magic[3];
  if (rank == 0 || rank > kRankMax) {
    return InvalidArgument("IDX rank " + std::to_string(rank) +
                           " is not in 1.." + std::to_string(kRankMax));
  }
  SELVAGE_ASSIGN_OR_RETURN(const uint32_t count,
                           ReadBigEndian32(reader, "an IDX dimension"));
  const uint64_t element_size = type == kFloat32 ? 4 : 1;
  uint64_t row_bytes = element_size;
  for (size_t d = 1; d < rank; ++d) {
    SELVAGE_ASSIGN_OR_RETURN(const uint32_t size,
                             ReadBigEndian32(reader, "an IDX dimension"));
    if (size == 0 || row_bytes > kSizeMax / size) {
      return InvalidArgument("IDX dimension " + std::to_string(size) +
                             " is 0 or too large");
    }
    row_bytes *= size;
  }
  if (count == 0 || count > kExampleCountMax || row_bytes > kSizeMax / count) {
    return InvalidArgument("IDX file of " + std::to_string(count) +
                           " examples of " + std::to_string(row_bytes) +
                           " bytes is empty or over the bounds");
  }
  if (reader.remaining() != count * row_bytes) {
    return InvalidArgument("IDX file has " +
                           std::to_string(reader.remaining()) +
                           " bytes of values, its dimensions imply " +
                           std::to_string(count * row_bytes));
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const ByteSpan values,
      reader.ReadBytes(count * row_bytes, "the IDX values"));
  IdxRows out{.count = count, .row_bytes = row_bytes, .rows = {}};
  if (type == kFloat32) {
    out.rows.reserve(values.size());
    for (size_t i = 0; i < values.size(); i += 4) {
      AppendLe(out.rows, uint32_t{values[i]} << 24 |
                             uint32_t{values[i + 1]} << 16 |
                             uint32_t{values[i + 2]} << 8 | values[i + 3]);
    }
  } else if (rank == 1) {
    out.row_bytes = sizeof(int64_t);
    out.rows.reserve(count * sizeof(int64_t));
    for (const uint8_t label : values) AppendLe(out.rows, int64_t{label});
  } else {
    out.rows.assign(values.begin(), values.end());
  }
  return out;
}

}  // namespace selvage::agent
