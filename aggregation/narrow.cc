#include "aggregation/narrow.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

namespace selvage::aggregation {
namespace {

// How many bytes each of these needs.
size_t WidthOf(std::span<const int64_t> block) {
  uint64_t any = 0;
  uint64_t magnitude = 0;  // all bits that differ from the sign somewhere
  for (const int64_t value : block) {
    any |= static_cast<uint64_t>(value);
    magnitude |= static_cast<uint64_t>(value ^ (value >> 63));
  }
  if (any == 0) return 0;
  return static_cast<size_t>(std::bit_width(magnitude)) / 8 + 1;
}

}  // namespace

uint64_t NarrowSize(std::span<const int64_t> values) {
  uint64_t size = 0;
  while (!values.empty()) {
    const size_t count = std::min(kNarrowBlock, values.size());
    size += 1 + count * WidthOf(values.first(count));
    values = values.subspan(count);
  }
  return size;
}

Status WriteNarrow(std::span<const int64_t> values,
                   const std::function<Status(ByteSpan)>& sink) {
  // Every number is written with eight bytes; the next one covers the rest.
  std::array<uint8_t, 1 + kNarrowBlock * 8 + 8> buffer;
  while (!values.empty()) {
    const size_t count = std::min(kNarrowBlock, values.size());
    const size_t width = WidthOf(values.first(count));
    buffer[0] = static_cast<uint8_t>(width);
    uint8_t* next = buffer.data() + 1;
    for (size_t i = 0; i < count; ++i, next += width) {
      std::memcpy(next, &values[i], sizeof values[i]);
    }
    SELVAGE_RETURN_IF_ERROR(sink({buffer.data(), 1 + count * width}));
    values = values.subspan(count);
  }
  return OkStatus();
}

Status ReadNarrow(ByteSpan bytes, size_t count,
                  const std::function<Status(std::span<const int64_t>)>& sink) {
  std::array<int64_t, kNarrowBlock> block;
  for (size_t done = 0; done < count;) {
    const size_t size = std::min(kNarrowBlock, count - done);
    const size_t width = bytes.empty() ? 0 : bytes[0];
    if (bytes.empty() || width > 8 || bytes.size() - 1 < size * width) {
      return DataLoss("the numbers from " + std::to_string(done) +
                      " on are cut off or have no width");
    }
    const uint8_t* next = bytes.data() + 1;
    const size_t readable = bytes.size() - 1;
    const unsigned shift = 64 - 8 * static_cast<unsigned>(width);
    for (size_t i = 0; i < size && width > 0; ++i, next += width) {
      uint64_t raw = 0;
      // A whole word where the bytes reach that far.
      std::memcpy(&raw, next, i * width + 8 <= readable ? 8 : width);
      block[i] = static_cast<int64_t>(raw << shift) >> shift;
    }
    if (width == 0) std::fill_n(block.begin(), size, int64_t{0});
    if (WidthOf({block.data(), size}) != width) {
      return DataLoss("the numbers from " + std::to_string(done) + " on have " +
                      std::to_string(width) + " bytes, which is not the least");
    }
    SELVAGE_RETURN_IF_ERROR(sink({block.data(), size}));
    bytes = bytes.subspan(1 + size * width);
    done += size;
  }
  if (!bytes.empty()) {
    return DataLoss(std::to_string(bytes.size()) +
                    " bytes follow the last number");
  }
  return OkStatus();
}

}  // namespace selvage::aggregation
