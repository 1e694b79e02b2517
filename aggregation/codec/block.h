// One tensor of an encoded update, in place. What codec.cc checks and
// exact_sum.cc folds. Not for use outside of aggregation/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aggregation/codec/codec.h"
#include "aggregation/codec/half.h"

namespace selvage::aggregation {

inline constexpr size_t kInt8Block = 256;  // elements that share a scale
inline constexpr size_t kRotationBlock =
    1024;  // the longest run that is rotated
static_assert(kRotationBlock % kInt8Block == 0);

struct EncodedBlock {
  plan::CodecName codec = plan::CodecName::kFloat32;
  size_t count = 0;                  // elements of the tensor
  const uint8_t* data = nullptr;     // its values; kTopK: the kept ones
  float factor = 1;                  // kFloat16: value = binary16 * factor
  int32_t exponent = 0;              // kFloat16: factor = 2^exponent
  const uint8_t* scales = nullptr;   // kInt8, kRotatedInt8: uint16 each
  const uint8_t* indices = nullptr;  // kTopK: uint32 each
  size_t kept = 0;                   // kTopK
  uint64_t sign_seed = 0;            // kRotatedInt8
};

// Walks over the tensors of one encoding, whose size is right.
class BlockReader {
 public:
  BlockReader(const CodecSpec& codec, const uint8_t* data)
      : codec_(codec), next_(data) {}
  EncodedBlock Next(size_t count);

 private:
  CodecSpec codec_;
  const uint8_t* next_;
  uint64_t tensor_ = 0;
};

// The exponent that Encode() chooses for a float16 tensor whose largest
// magnitude this is; see codec.h.
int32_t Float16Exponent(float max_abs);

// Bytes of an element of `data`; 0 for kTopK.
size_t ElementSize(plan::CodecName codec);

inline float ScaleFromBits(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}
inline float ScaleAt(const uint8_t* scales, size_t index) {
  return ScaleFromBits(static_cast<uint16_t>(
      scales[index * 2] | static_cast<unsigned>(scales[index * 2 + 1]) << 8));
}
uint32_t IndexAt(const uint8_t* indices, size_t at);
float FloatAt(const uint8_t* floats, size_t at);

// Whether the block is one that Encode() can have made and every decoded
// |value| has at most these bits: one pass. kRotatedInt8: bounds are not looked
// at.
bool IsSound(SimdLevel level, const EncodedBlock& block, uint32_t bits_max);
// The same a piece at a time, `size` elements from `begin` on, which is a
// multiple of kInt8Block: kFloat16, kBFloat16 and kInt8. `most` becomes the
// largest bits of a binary16 without its sign, which say in the end, by
// IsExponentSound(), whether a kFloat16 block's exponent is the right one.
bool IsPieceSound(SimdLevel level, const EncodedBlock& block, size_t begin,
                  size_t size, uint32_t bits_max, uint16_t& most);
bool IsExponentSound(const EncodedBlock& block, uint16_t most);
// Whether no value is an infinity or a NaN.
bool IsFinite(const EncodedBlock& block);
// Why not, as far as Encode() is concerned; OK if it can have made the block.
Status CheckBlockEncoding(size_t tensor, const EncodedBlock& block);

// The decoded values [begin, begin + size). Not for kTopK. kInt8: `begin` is a
// multiple of kInt8Block. kRotatedInt8: of kRotationBlock, and so is `size`,
// unless it reaches the end of the tensor.
void DecodePiece(SimdLevel level, const EncodedBlock& block, size_t begin,
                 size_t size, float* out);

// In place, for a run of n = 2^log2 values; the product of both is the
// identity, but for rounding. `at` is the index in the tensor of the first.
void Rotate(SimdLevel level, uint64_t sign_seed, size_t at, int log2,
            float* values);
void RotateBack(SimdLevel level, uint64_t sign_seed, size_t at, int log2,
                float* values);
// log2 of the run that starts `left` elements before the end of a tensor.
int RotationLog2(size_t left);

}  // namespace selvage::aggregation
