#include "aggregation/narrow.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

namespace selvage::aggregation {
namespace {

// How many bytes each of these needs. The highest bit of value ^ 2 * value that
// is set is the lowest one that only repeats the sign: cheaper than to take the
// sign off, where a processor shifts no signs into 64 bits.
size_t WidthOf(std::span<const int64_t> block) {
  uint64_t changes = 0;
  for (const int64_t value : block) {
    const auto bits = static_cast<uint64_t>(value);
    changes |= bits ^ (bits + bits);
  }
  if (changes == 0) return 0;  // all of them are
  return static_cast<size_t>(std::bit_width(changes) - 1) / 8 + 1;
}

// `count` numbers of `width` bytes, 1 to 8, which `bytes` begins with.
void ReadBlock(ByteSpan bytes, size_t width, size_t count, int64_t* out) {
  const uint8_t* next = bytes.data();
  const unsigned shift = 64 - 8 * static_cast<unsigned>(width);
  const auto read = [&](size_t size) {
    uint64_t raw = 0;
    std::memcpy(&raw, next, size);
    next += width;
    return static_cast<int64_t>(raw << shift) >> shift;
  };
  // A whole word where the bytes reach that far.
  const size_t whole =
      bytes.size() < 8 ? 0 : std::min(count, (bytes.size() - 8) / width + 1);
  size_t i = 0;
  for (; i < whole; ++i) out[i] = read(8);
  for (; i < count; ++i) out[i] = read(width);
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
    if (width == 0) {
      std::fill_n(block.begin(), size, int64_t{0});
    } else {
      ReadBlock(bytes.subspan(1), width, size, block.data());
    }
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
