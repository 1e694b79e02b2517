// The IDX format of the MNIST family (yann.lecun.com/exdb/mnist): two zero
// bytes, a type, a rank, big-endian uint32 dimensions, the values.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::agent {

// Examples of one program input: `count` rows of `row_bytes` bytes,
// little-endian.
struct IdxRows {
  size_t count = 0;
  size_t row_bytes = 0;
  Bytes rows;

  ByteSpan Row(size_t i) const {
    return ByteSpan(rows).subspan(i * row_bytes, row_bytes);
  }
};

// The first dimension counts examples. Unsigned bytes stay u8 and float32
// becomes f32, except that a file of rank 1 holds one class label per example
// and becomes i64. INVALID_ARGUMENT names what is wrong: magic, type, rank over
// 8, over 1,000,000 examples or 1 GiB, size not what the dimensions imply.
Result<IdxRows> ParseIdx(ByteSpan bytes);

}  // namespace selvage::agent
