// Codecs: flat float arrays to bytes and back, strictly. float32 and float16
// are used for updates (one way) and for the checkpoints that rounds hand out
// (the other way), the others for updates only.
//
// Encoded form, one block per tensor (the caller gives the element counts); x
// is a value, m the largest |x| that shares a scale with it:
//   float32:  4 bytes per element. Lossless.
//   float16:  int32 exponent e, then IEEE 754 binary16 of x * 2^-e, rounded
//             half to even. e is the smallest number in [-125, 112] for which
//             m * 2^-e rounds to at most 32768; 112 if there is none (then what
//             would round to infinity becomes 65504); 0 for an all-zero tensor.
//             |error| <= m * 2^-11.
//   bfloat16: the upper half of a float32, rounded half to even (what would
//             round to infinity: to the largest one).
//             |error| <= max(|x| * 2^-8, 2^-134).
//   int8:     a scale per 256 elements (the last one: the rest), then a signed
//             byte q per element, value q * scale, exactly. A scale is the
//             upper half of a float32: the smallest such number that is
//             >= max(m / 127, 2^-126), or 0 for all zeros. q is x / scale
//             rounded up or down at random so that its expectation is x / scale
//             (QSGD: Alistarh et al., NeurIPS 2017): no bias, and
//             |error| < scale <= max(m * 1.008 / 127, 2^-126).
//   top_k:    k = ceil(top_k * count), at least 1; uint32 indices of the k
//             elements of largest magnitude (of equals the first), ascending,
//             then these as float32. The others are zero.
//             ||error||^2 <= (1 - k / count) ||x||^2. What was left out is for
//             the caller to add to the next update (error feedback: Stich et
//             al., NeurIPS 2018).
//   rotated_int8: int8 of a rotated tensor (Suresh et al., "Distributed Mean
//             Estimation with Limited Communication", ICML 2017): runs of 1024
//             elements (the rest in runs of descending powers of two) are
//             multiplied by random signs and by a Walsh-Hadamard matrix, which
//             spreads an outlier over its run. No bias;
//             per run of n, ||error||_2 <= 2^(1/2) n^(1/2) scale, besides
//             float32's rounding in log2(n) additions.
//
// float32, float16 and bfloat16 have one encoding of every decodable array:
// Decode() accepts only what Encode() can have made, and encoding the result
// again gives the same bytes. (That is why e depends on the *rounded* maximum:
// with the unrounded one, a maximum that rounds down to 16384 would get a
// smaller e the second time. And e >= -125 keeps every binary16 subnormal times
// 2^e an exact float.) So "the decoded download codec" is one well-defined base
// for a round.
//
// What a block decodes to is the same to the bit everywhere: products with
// powers of two or of few bits, which are exact, and for the rotation sums and
// differences of float32 in one order.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::aggregation {

// A codec and its parameters, as a plan states them.
struct CodecSpec {
  // NOLINTNEXTLINE(google-explicit-constructor): a name is a codec
  CodecSpec(plan::CodecName codec = plan::CodecName::kFloat32) : name(codec) {}
  // NOLINTNEXTLINE(google-explicit-constructor): so is what a plan says
  CodecSpec(const plan::UpdateSpec& update)
      : name(update.codec),
        top_k(update.top_k),
        rotation_seed(update.rotation_seed) {}

  plan::CodecName name;
  double top_k = plan::UpdateSpec{}.top_k;  // kTopK; (0, 0.5]
  uint64_t rotation_seed = 0;               // kRotatedInt8

  friend bool operator==(const CodecSpec&, const CodecSpec&) = default;
};

// Whether Encode() draws random numbers.
bool IsStochastic(plan::CodecName codec);

// Exact size of the encoding of tensors with these element counts.
uint64_t EncodedSize(const CodecSpec& codec, std::span<const size_t> counts);

// INVALID_ARGUMENT if a value is not finite, or for the int8 codecs not below
// 2^100 (names tensor index and element), if values.size() is not the sum of
// counts, or for top_k if a tensor has more than 2^32 - 1 elements.
// REQUIRES: `random` for a stochastic codec.
Result<Bytes> Encode(const CodecSpec& codec, std::span<const size_t> counts,
                     std::span<const float> values,
                     RandomSource* random = nullptr);

// INVALID_ARGUMENT for a wrong size, a non-finite value, a float16 exponent
// that is not the one Encode() chooses, a scale that no tensor has, a byte -128
// or a non-zero byte under the scale 0, indices that do not ascend or are not
// in the tensor; never reads past `bytes`.
Result<std::vector<float>> Decode(const CodecSpec& codec,
                                  std::span<const size_t> counts,
                                  ByteSpan bytes);

// Decode()'s checks alone: reads the bytes once and allocates nothing.
Status CheckEncoding(const CodecSpec& codec, std::span<const size_t> counts,
                     ByteSpan bytes);

// Whether bytes of the right size hold no infinity or NaN.
bool IsFinite(const CodecSpec& codec, std::span<const size_t> counts,
              ByteSpan bytes);

// How many elements top_k keeps of `count`.
size_t KeptCount(double top_k, size_t count);

}  // namespace selvage::aggregation
