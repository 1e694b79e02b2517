// Codecs: flat float arrays to bytes and back, strictly. Used for updates (one
// way) and for the checkpoints that rounds hand out (the other way).
//
// Encoded form: one block per tensor (the caller gives the element counts):
//   float32: 4 bytes per element. Lossless.
//   float16: int32 exponent e, then IEEE 754 binary16 of x * 2^-e, rounded half
//   to
//            even; e is the smallest with max|x| * 2^-e <= 32768 (0 for an
//            all-zero tensor). |error| <= max|x| * 2^-11 per element.
// Decoding then encoding again gives the same bytes, so "the decoded download
// codec" is one well-defined base for a round.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::aggregation {

// Exact size of the encoding of tensors with these element counts.
uint64_t EncodedSize(plan::CodecName codec, std::span<const size_t> counts);

// INVALID_ARGUMENT if a value is not finite (names tensor index and element),
// or if values.size() is not the sum of counts.
Result<Bytes> Encode(plan::CodecName codec, std::span<const size_t> counts,
                     std::span<const float> values);

// INVALID_ARGUMENT for a wrong size, a non-finite value, an exponent outside
// [-126, 112] or non-canonical float16 exponent; never reads past `bytes`.
Result<std::vector<float>> Decode(plan::CodecName codec,
                                  std::span<const size_t> counts,
                                  ByteSpan bytes);

}  // namespace selvage::aggregation
