// Codecs: flat float arrays to bytes and back, strictly. Used for updates (one
// way) and for the checkpoints that rounds hand out (the other way).
//
// Encoded form: one block per tensor (the caller gives the element counts):
//   float32: 4 bytes per element. Lossless.
//   float16: int32 exponent e, then IEEE 754 binary16 of x * 2^-e, rounded half
//            to even. e is the smallest number in [-125, 112] for which
//            max|x| * 2^-e rounds to at most 32768; 112 if there is none (then
//            what would round to infinity becomes 65504); 0 for an all-zero
//            tensor. |error| <= max|x| * 2^-11 per element.
//
// There is one encoding of every decodable array: Decode() accepts only what
// Encode() can have made, and encoding the result again gives the same bytes.
// (That is why e depends on the *rounded* maximum: with the unrounded one, a
// maximum that rounds down to 16384 would get a smaller e the second time. And
// e >= -125 keeps every binary16 subnormal times 2^e an exact float.) So "the
// decoded download codec" is one well-defined base for a round.
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

// INVALID_ARGUMENT for a wrong size, a non-finite value, or a float16 exponent
// that is not the one Encode() chooses; never reads past `bytes`.
Result<std::vector<float>> Decode(plan::CodecName codec,
                                  std::span<const size_t> counts,
                                  ByteSpan bytes);

// Decode()'s checks alone: reads the bytes once and allocates nothing.
Status CheckEncoding(plan::CodecName codec, std::span<const size_t> counts,
                     ByteSpan bytes);

}  // namespace selvage::aggregation
