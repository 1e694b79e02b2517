// int64 numbers in blocks of 4096, each with as many bytes a number as its
// largest one needs: a byte 0..8 that says how many, then the numbers,
// little-endian in two's complement. Sums of a few updates need four or five
// bytes of eight. There is one encoding of every array. Not for use outside of
// aggregation/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::aggregation {

inline constexpr size_t kNarrowBlock = 4096;

uint64_t NarrowSize(std::span<const int64_t> values);

// The bytes in order, a block at a time. Stops at the first error of `sink`.
Status WriteNarrow(std::span<const int64_t> values,
                   const std::function<Status(ByteSpan)>& sink);

// The numbers in order, a block at a time. DATA_LOSS if the bytes are not what
// WriteNarrow() makes of `count` numbers; an error of `sink` ends it.
Status ReadNarrow(ByteSpan bytes, size_t count,
                  const std::function<Status(std::span<const int64_t>)>& sink);

}  // namespace selvage::aggregation
