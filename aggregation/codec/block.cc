#include "aggregation/codec/block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include "base/check.h"

#ifdef SELVAGE_SIMD_X86
#include <immintrin.h>
#endif

namespace selvage::aggregation {
namespace {

using plan::CodecName;

constexpr int kExponentMin = -125;
constexpr int kExponentMax = 112;
constexpr uint16_t kHalfOf16384 = 0x7400;
constexpr uint16_t kHalfOf32768 = 0x7800;
constexpr uint16_t kBFloatInfinityBits = 0x7f80;
// Of a scale: 2^-126 and 2^100.
constexpr uint16_t kScaleBitsMin = 0x0080;
constexpr uint16_t kScaleBitsMax = 0x7180;
constexpr uint8_t kMinus128 = 0x80;

template <typename T>
T Load(const uint8_t* values, size_t index) {
  T value;
  std::memcpy(&value, values + index * sizeof value, sizeof value);
  return value;
}

std::string ElementName(size_t tensor, size_t element) {
  return "tensor " + std::to_string(tensor) + ", element " +
         std::to_string(element);
}

// Whether Encode() chooses `exponent` for a tensor whose largest encoded
// magnitude has these bits.
bool IsCanonical(int exponent, uint16_t max_bits) {
  if (max_bits == 0) return exponent == 0;
  if (exponent < kExponentMin || exponent > kExponentMax) return false;
  if (exponent > kExponentMin && max_bits <= kHalfOf16384) return false;
  return exponent == kExponentMax || max_bits <= kHalfOf32768;
}

uint16_t ScaleBitsAt(const uint8_t* scales, size_t index) {
  return Load<uint16_t>(scales, index);
}

bool IsScale(uint16_t bits) {
  return bits == 0 || (bits >= kScaleBitsMin && bits <= kScaleBitsMax);
}

size_t ScaleCount(size_t count) {
  return (count + kInt8Block - 1) / kInt8Block;
}

#ifdef SELVAGE_SIMD_X86
__attribute__((target("avx2"))) size_t HasMinus128Avx2(const uint8_t* bytes,
                                                       size_t count,
                                                       bool& found) {
  const __m256i wanted = _mm256_set1_epi8(static_cast<char>(kMinus128));
  __m256i any[4] = {};
  size_t i = 0;
  for (; i + 128 <= count; i += 128) {
    const auto* p = reinterpret_cast<const __m256i*>(bytes + i);
    for (int k = 0; k < 4; ++k) {
      any[k] = _mm256_or_si256(
          any[k], _mm256_cmpeq_epi8(_mm256_loadu_si256(p + k), wanted));
    }
  }
  const __m256i all = _mm256_or_si256(_mm256_or_si256(any[0], any[1]),
                                      _mm256_or_si256(any[2], any[3]));
  found = _mm256_movemask_epi8(all) != 0;
  return i;
}
#endif

bool HasMinus128([[maybe_unused]] SimdLevel level, const uint8_t* bytes,
                 size_t count) {
  bool found = false;
  size_t i = 0;
#ifdef SELVAGE_SIMD_X86
  if (level != SimdLevel::kPortable) i = HasMinus128Avx2(bytes, count, found);
#endif
  return found ||
         std::find(bytes + i, bytes + count, kMinus128) != bytes + count;
}

bool AllZero(const uint8_t* bytes, size_t count) {
  return std::all_of(bytes, bytes + count,
                     [](uint8_t byte) { return byte == 0; });
}

bool AreScalesSound(const EncodedBlock& block) {
  for (size_t b = 0; b < ScaleCount(block.count); ++b) {
    const uint16_t bits = ScaleBitsAt(block.scales, b);
    if (!IsScale(bits)) return false;
    const size_t begin = b * kInt8Block;
    if (bits == 0 && !AllZero(block.data + begin,
                              std::min(kInt8Block, block.count - begin))) {
      return false;
    }
  }
  return true;
}

// Bounds of a byte block: mostly by its scale alone.
bool AreBytesWithin(const EncodedBlock& block, uint32_t bits_max) {
  const auto bound = double{std::bit_cast<float>(bits_max)};
  for (size_t b = 0; b < ScaleCount(block.count); ++b) {
    const auto scale = double{ScaleAt(block.scales, b)};
    if (scale * 127 <= bound) continue;
    const size_t end = std::min((b + 1) * kInt8Block, block.count);
    for (size_t i = b * kInt8Block; i < end; ++i) {
      const int value = static_cast<int8_t>(block.data[i]);
      if (scale * std::abs(value) > bound) return false;
    }
  }
  return true;
}

bool AreIndicesSound(const EncodedBlock& block) {
  for (size_t i = 0; i < block.kept; ++i) {
    const uint32_t index = IndexAt(block.indices, i);
    if (index >= block.count) return false;
    if (i > 0 && index <= IndexAt(block.indices, i - 1)) return false;
  }
  return true;
}

Status CheckHalves(size_t tensor, const EncodedBlock& block) {
  const uint16_t max_bits =
      MaxAbsBitsOfHalves(BestSimdLevel(), block.data, block.count);
  if (max_bits >= kHalfInfinityBits) {
    for (size_t i = 0; i < block.count; ++i) {
      if ((Load<uint16_t>(block.data, i) & 0x7fffu) >= kHalfInfinityBits) {
        return InvalidArgument(ElementName(tensor, i) +
                               " is not a finite float16");
      }
    }
  }
  if (!IsCanonical(block.exponent, max_bits)) {
    return InvalidArgument("tensor " + std::to_string(tensor) +
                           " has the float16 exponent " +
                           std::to_string(block.exponent) +
                           ", which is not the one its values call for");
  }
  return OkStatus();
}

Status CheckBytes(size_t tensor, const EncodedBlock& block) {
  for (size_t b = 0; b < ScaleCount(block.count); ++b) {
    const uint16_t bits = ScaleBitsAt(block.scales, b);
    const size_t begin = b * kInt8Block;
    if (!IsScale(bits)) {
      return InvalidArgument("tensor " + std::to_string(tensor) + ", scale " +
                             std::to_string(b) + " has the bits " +
                             std::to_string(bits) +
                             "; 0 and 128..29056 are scales");
    }
    if (bits == 0 && !AllZero(block.data + begin,
                              std::min(kInt8Block, block.count - begin))) {
      return InvalidArgument("tensor " + std::to_string(tensor) + ", scale " +
                             std::to_string(b) +
                             " is zero, but not all of its values are");
    }
  }
  for (size_t i = 0; i < block.count; ++i) {
    if (block.data[i] == kMinus128) {
      return InvalidArgument(ElementName(tensor, i) +
                             " is -128, the least is -127");
    }
  }
  return OkStatus();
}

Status CheckKept(size_t tensor, const EncodedBlock& block) {
  for (size_t i = 0; i < block.kept; ++i) {
    const uint32_t index = IndexAt(block.indices, i);
    if (index >= block.count) {
      return InvalidArgument("tensor " + std::to_string(tensor) + " has " +
                             std::to_string(block.count) +
                             " elements, but index " + std::to_string(i) +
                             " is " + std::to_string(index));
    }
    if (i > 0 && index <= IndexAt(block.indices, i - 1)) {
      return InvalidArgument(
          "tensor " + std::to_string(tensor) + ", index " + std::to_string(i) +
          " is " + std::to_string(index) + ", not above the one before it");
    }
    const float value = FloatAt(block.data, i);
    if (!std::isfinite(value)) {
      return InvalidArgument(ElementName(tensor, index) + " is " +
                             (std::isnan(value) ? "nan" : "infinite") +
                             ", not a finite number");
    }
  }
  return OkStatus();
}

void BytesToFloats(const EncodedBlock& block, size_t begin, size_t size,
                   float* out) {
  for (size_t i = 0; i < size;) {
    const float scale = ScaleAt(block.scales, (begin + i) / kInt8Block);
    const size_t end = std::min(size, i + kInt8Block);
    for (; i < end; ++i) {
      out[i] = static_cast<float>(static_cast<int8_t>(block.data[begin + i])) *
               scale;
    }
  }
}

}  // namespace

int32_t Float16Exponent(float max_abs) {
  if (max_abs == 0) return 0;
  int exponent = 0;  // max_abs = fraction * 2^exponent, fraction in [0.5, 1)
  const double fraction = std::frexp(double{max_abs}, &exponent);
  // max_abs * 2^(16 - exponent) lies in [32768, 65536); up to 32784, the middle
  // between 32768 and the next binary16, it rounds to 32768.
  const int canonical =
      fraction * 65536 <= 32784 ? exponent - 16 : exponent - 15;
  return std::min(std::max(canonical, kExponentMin), kExponentMax);
}

size_t ElementSize(CodecName codec) {
  switch (codec) {
    case CodecName::kFloat32:
      return 4;
    case CodecName::kFloat16:
    case CodecName::kBFloat16:
      return 2;
    case CodecName::kInt8:
    case CodecName::kRotatedInt8:
      return 1;
    case CodecName::kTopK:
      break;
  }
  return 0;
}

uint32_t IndexAt(const uint8_t* indices, size_t at) {
  return Load<uint32_t>(indices, at);
}

float FloatAt(const uint8_t* floats, size_t at) {
  return Load<float>(floats, at);
}

EncodedBlock BlockReader::Next(size_t count) {
  EncodedBlock block;
  block.codec = codec_.name;
  block.count = count;
  block.data = next_;
  size_t values = count;
  switch (codec_.name) {
    case CodecName::kFloat32:
    case CodecName::kBFloat16:
      break;
    case CodecName::kFloat16:
      block.exponent = Load<int32_t>(next_, 0);
      block.factor = std::ldexp(1.0f, block.exponent);
      block.data += sizeof block.exponent;
      break;
    case CodecName::kRotatedInt8:
      block.sign_seed = DeriveSeed(codec_.rotation_seed, "rotation", tensor_);
      [[fallthrough]];
    case CodecName::kInt8:
      block.scales = next_;
      block.data += ScaleCount(count) * 2;
      break;
    case CodecName::kTopK:
      block.kept = KeptCount(codec_.top_k, count);
      block.indices = next_;
      block.data += block.kept * 4;
      values = block.kept;
      break;
  }
  next_ = block.data + values * (block.codec == CodecName::kTopK
                                     ? sizeof(float)
                                     : ElementSize(block.codec));
  ++tensor_;
  return block;
}

bool IsSound(SimdLevel level, const EncodedBlock& block, uint32_t bits_max) {
  switch (block.codec) {
    case CodecName::kFloat32:
      return MaxAbsBits(level, block.data, block.count) <= bits_max;
    case CodecName::kFloat16:
    case CodecName::kBFloat16:
    case CodecName::kInt8: {
      uint16_t most = 0;
      return IsPieceSound(level, block, 0, block.count, bits_max, most) &&
             IsExponentSound(block, most);
    }
    case CodecName::kRotatedInt8:
      return AreScalesSound(block) &&
             !HasMinus128(level, block.data, block.count);
    case CodecName::kTopK:
      return AreIndicesSound(block) &&
             MaxAbsBits(level, block.data, block.kept) <= bits_max;
  }
  return false;
}

bool IsPieceSound(SimdLevel level, const EncodedBlock& block, size_t begin,
                  size_t size, uint32_t bits_max, uint16_t& most) {
  if (block.codec == CodecName::kInt8) {
    EncodedBlock piece = block;
    piece.count = size;
    piece.data += begin;
    piece.scales += begin / kInt8Block * sizeof(uint16_t);
    return AreScalesSound(piece) && AreBytesWithin(piece, bits_max) &&
           !HasMinus128(level, piece.data, size);
  }
  const uint16_t bits =
      MaxAbsBitsOfHalves(level, block.data + begin * sizeof(uint16_t), size);
  most = std::max(most, bits);
  if (block.codec == CodecName::kBFloat16) {
    return bits < kBFloatInfinityBits && uint32_t{bits} << 16 <= bits_max;
  }
  // |binary16 * factor| grows with the binary16's bits.
  return bits < kHalfInfinityBits &&
         std::bit_cast<uint32_t>(HalfToFloat(bits) * block.factor) <= bits_max;
}

bool IsExponentSound(const EncodedBlock& block, uint16_t most) {
  return block.codec != CodecName::kFloat16 ||
         IsCanonical(block.exponent, most);
}

bool IsFinite(const EncodedBlock& block) {
  const SimdLevel level = BestSimdLevel();
  switch (block.codec) {
    case CodecName::kFloat32:
      return MaxAbsBits(level, block.data, block.count) < kFloatInfinityBits;
    case CodecName::kFloat16:
      return MaxAbsBitsOfHalves(level, block.data, block.count) <
             kHalfInfinityBits;
    case CodecName::kBFloat16:
      return MaxAbsBitsOfHalves(level, block.data, block.count) <
             kBFloatInfinityBits;
    case CodecName::kTopK:
      return MaxAbsBits(level, block.data, block.kept) < kFloatInfinityBits;
    case CodecName::kInt8:
    case CodecName::kRotatedInt8:
      break;  // has none
  }
  return true;
}

Status CheckBlockEncoding(size_t tensor, const EncodedBlock& block) {
  switch (block.codec) {
    case CodecName::kFloat32:
      for (size_t i = 0; i < block.count; ++i) {
        const float value = FloatAt(block.data, i);
        if (!std::isfinite(value)) {
          return InvalidArgument(ElementName(tensor, i) + " is " +
                                 (std::isnan(value) ? "nan" : "infinite") +
                                 ", not a finite number");
        }
      }
      return OkStatus();
    case CodecName::kFloat16:
      return CheckHalves(tensor, block);
    case CodecName::kBFloat16:
      for (size_t i = 0; i < block.count; ++i) {
        if ((Load<uint16_t>(block.data, i) & 0x7fffu) >= kBFloatInfinityBits) {
          return InvalidArgument(ElementName(tensor, i) +
                                 " is not a finite bfloat16");
        }
      }
      return OkStatus();
    case CodecName::kInt8:
    case CodecName::kRotatedInt8:
      return CheckBytes(tensor, block);
    case CodecName::kTopK:
      return CheckKept(tensor, block);
  }
  return Internal("codec " + std::to_string(static_cast<int>(block.codec)) +
                  " is not one of this library's");
}

void DecodePiece(SimdLevel level, const EncodedBlock& block, size_t begin,
                 size_t size, float* out) {
  switch (block.codec) {
    case CodecName::kFloat32:
      if (size > 0) std::memcpy(out, block.data + begin * 4, size * 4);
      return;
    case CodecName::kFloat16:
      HalvesToFloats(level, block.data + begin * 2, block.factor, out, size);
      return;
    case CodecName::kBFloat16:
      for (size_t i = 0; i < size; ++i) {
        out[i] = ScaleFromBits(Load<uint16_t>(block.data, begin + i));
      }
      return;
    case CodecName::kInt8:
      BytesToFloats(block, begin, size, out);
      return;
    case CodecName::kRotatedInt8:
      BytesToFloats(block, begin, size, out);
      for (size_t i = 0; i < size;) {
        const int log2 = RotationLog2(block.count - begin - i);
        RotateBack(level, block.sign_seed, begin + i, log2, out + i);
        i += size_t{1} << log2;
      }
      return;
    case CodecName::kTopK:
      break;
  }
  SELVAGE_CHECK(false);
}

}  // namespace selvage::aggregation
