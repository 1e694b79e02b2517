// Encodings a piece at a time, for models that do not fit into memory several
// times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "aggregation/codec/codec.h"
#include "base/bytes.h"

namespace selvage::aggregation {

// The decoded values [first, first + out.size()) of an update, across its
// tensors: those that Decode() gives, to the bit.
// REQUIRES: CheckEncoding() passed, and there are so many values.
void DecodeSlice(const CodecSpec& codec, std::span<const size_t> counts,
                 ByteSpan bytes, size_t first, std::span<float> out);

// Bytes of a value where the encoding of every slice is part of that of the
// whole: float32 and bfloat16; 0 for the others.
size_t SliceBytesPerElement(const CodecSpec& codec);

// The encoding of those values alone, where it is part of that of the whole:
// float32 and bfloat16; empty for the others. REQUIRES: the right size.
ByteSpan EncodedSlice(const CodecSpec& codec, ByteSpan bytes, size_t first,
                      size_t count);

// Encode() of one tensor whose largest magnitude is known beforehand, for the
// codecs of downloads: the head and then every piece, appended, are its bytes.
class PieceEncoder {
 public:
  // `max_abs`: of the tensor; finite. REQUIRES: float32 or float16.
  PieceEncoder(plan::CodecName codec, float max_abs);

  void AppendHead(Bytes& out) const;
  // REQUIRES: finite values, none larger than max_abs.
  void Append(std::span<const float> values, Bytes& out) const;

 private:
  const plan::CodecName codec_;
  const int32_t exponent_;  // of float16
};

}  // namespace selvage::aggregation
