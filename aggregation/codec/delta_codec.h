// One version of a checkpoint (or of a part of one) from an earlier one of the
// same size, without loss: the encoded bytes themselves are what is rebuilt, so
// the digest of the whole still says whether they are right.
//
// Both are read as little-endian numbers of the codec's width (binary16 or
// binary32 patterns). Each pattern is mapped to an integer that grows with the
// number (Lindstrom and Isenburg, 2006); the difference modulo 2^width, zigzag,
// is coded as its bit length, its next two bits and the rest. Lengths and next
// bits go through an adaptive binary range coder (Martin, 1979; with the carry
// propagation of LZMA), lengths in the context of the length before; the rest
// goes in as it is. Deterministic: the same two inputs give the same delta.
//
//   delta: "SvD1", then the coder's bytes
#pragma once

#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::aggregation {

// INVALID_ARGUMENT if the sizes differ or are no multiple of the codec's width.
// RESOURCE_EXHAUSTED if the delta would have more than `size_max` bytes: as
// soon as that shows.
Result<Bytes> EncodeDelta(plan::CodecName codec, ByteSpan base, ByteSpan target,
                          uint64_t size_max);

// What EncodeDelta() was given, if `base` is. The result has base.size() bytes
// whatever `delta` is; its digest must be checked: most wrong inputs give wrong
// bytes. INVALID_ARGUMENT if it does not begin as a delta, has too few bytes or
// too many, or base.size() is no multiple of the codec's width.
Result<Bytes> DecodeDelta(plan::CodecName codec, ByteSpan base, ByteSpan delta);

// The same in place: `values` are the base before and the result after. On an
// error they are neither.
Status ApplyDelta(plan::CodecName codec, std::span<uint8_t> values,
                  ByteSpan delta);

}  // namespace selvage::aggregation
