#include "aggregation/codec/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "aggregation/codec/half.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;

constexpr int kExponentMin = -125;
constexpr int kExponentMax = 112;
constexpr size_t kExponentSize = sizeof(int32_t);
constexpr uint16_t kHalfOf16384 = 0x7400;
constexpr uint16_t kHalfOf32768 = 0x7800;

// The exponent of a tensor whose largest magnitude this is; see codec.h.
int ExponentFor(float max_abs) {
  if (max_abs == 0) return 0;
  int exponent = 0;  // max_abs = fraction * 2^exponent, fraction in [0.5, 1)
  const double fraction = std::frexp(double{max_abs}, &exponent);
  // max_abs * 2^(16 - exponent) lies in [32768, 65536); up to 32784, the middle
  // between 32768 and the next binary16, it rounds to 32768.
  const int canonical =
      fraction * 65536 <= 32784 ? exponent - 16 : exponent - 15;
  return std::min(std::max(canonical, kExponentMin), kExponentMax);
}

// Whether Encode() chooses `exponent` for a tensor whose largest encoded
// magnitude has these bits.
bool IsCanonical(int exponent, uint16_t max_bits) {
  if (max_bits == 0) return exponent == 0;
  if (exponent < kExponentMin || exponent > kExponentMax) return false;
  if (exponent > kExponentMin && max_bits <= kHalfOf16384) return false;
  return exponent == kExponentMax || max_bits <= kHalfOf32768;
}

std::string ElementName(size_t tensor, size_t element) {
  return "tensor " + std::to_string(tensor) + ", element " +
         std::to_string(element);
}

Status NotFinite(size_t tensor, const uint8_t* floats, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, floats + i * sizeof value, sizeof value);
    if (!std::isfinite(value)) {
      return InvalidArgument(ElementName(tensor, i) + " is " +
                             (std::isnan(value) ? "nan" : "infinite") +
                             ", not a finite number");
    }
  }
  return Internal(ElementName(tensor, count) + " changed while it was read");
}

Status CheckHalfBlock(size_t tensor, int exponent, const uint8_t* halves,
                      size_t count) {
  const uint16_t max_bits = MaxAbsBitsOfHalves(BestSimdLevel(), halves, count);
  if (max_bits >= kHalfInfinityBits) {
    for (size_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, halves + i * sizeof bits, sizeof bits);
      if ((bits & 0x7fffu) >= kHalfInfinityBits) {
        return InvalidArgument(ElementName(tensor, i) +
                               " is not a finite float16");
      }
    }
  }
  if (!IsCanonical(exponent, max_bits)) {
    return InvalidArgument("tensor " + std::to_string(tensor) +
                           " has the float16 exponent " +
                           std::to_string(exponent) +
                           ", which is not the one its values call for");
  }
  return OkStatus();
}

float PowerOfTwo(int exponent) { return std::ldexp(1.0f, exponent); }

}  // namespace

uint64_t EncodedSize(CodecName codec, std::span<const size_t> counts) {
  uint64_t size = 0;
  for (const size_t count : counts) {
    size += codec == CodecName::kFloat16 ? kExponentSize + uint64_t{count} * 2
                                         : uint64_t{count} * 4;
  }
  return size;
}

Result<Bytes> Encode(CodecName codec, std::span<const size_t> counts,
                     std::span<const float> values) {
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  if (values.size() != total) {
    return InvalidArgument("there are " + std::to_string(values.size()) +
                           " values, but the tensors have " +
                           std::to_string(total) + " elements");
  }
  const SimdLevel level = BestSimdLevel();
  Bytes out(EncodedSize(codec, counts));
  uint8_t* next = out.data();
  for (size_t tensor = 0; tensor < counts.size(); ++tensor) {
    const size_t count = counts[tensor];
    const std::span<const float> block = values.first(count);
    values = values.subspan(count);
    const uint8_t* floats = AsBytes(block).data();
    const uint32_t max_bits = MaxAbsBits(level, floats, count);
    if (max_bits >= kFloatInfinityBits) return NotFinite(tensor, floats, count);
    if (codec == CodecName::kFloat32) {
      if (count > 0) std::memcpy(next, floats, count * 4);
      next += count * 4;
      continue;
    }
    const int32_t exponent = ExponentFor(std::bit_cast<float>(max_bits));
    std::memcpy(next, &exponent, sizeof exponent);
    FloatsToHalves(level, block.data(), PowerOfTwo(-exponent),
                   next + kExponentSize, count);
    next += kExponentSize + count * 2;
  }
  return out;
}

Status CheckEncoding(CodecName codec, std::span<const size_t> counts,
                     ByteSpan bytes) {
  if (const uint64_t size = EncodedSize(codec, counts); bytes.size() != size) {
    return InvalidArgument("there are " + std::to_string(bytes.size()) +
                           " bytes, but the encoding of these tensors has " +
                           std::to_string(size));
  }
  const uint8_t* next = bytes.data();
  for (size_t tensor = 0; tensor < counts.size(); ++tensor) {
    const size_t count = counts[tensor];
    if (codec == CodecName::kFloat32) {
      if (MaxAbsBits(BestSimdLevel(), next, count) >= kFloatInfinityBits) {
        return NotFinite(tensor, next, count);
      }
      next += count * 4;
      continue;
    }
    int32_t exponent;
    std::memcpy(&exponent, next, sizeof exponent);
    SELVAGE_RETURN_IF_ERROR(
        CheckHalfBlock(tensor, exponent, next + kExponentSize, count));
    next += kExponentSize + count * 2;
  }
  return OkStatus();
}

Result<std::vector<float>> Decode(CodecName codec,
                                  std::span<const size_t> counts,
                                  ByteSpan bytes) {
  SELVAGE_RETURN_IF_ERROR(CheckEncoding(codec, counts, bytes));
  std::vector<float> out(
      std::accumulate(counts.begin(), counts.end(), size_t{0}));
  if (codec == CodecName::kFloat32) {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  const uint8_t* next = bytes.data();
  float* values = out.data();
  for (const size_t count : counts) {
    int32_t exponent;
    std::memcpy(&exponent, next, sizeof exponent);
    HalvesToFloats(BestSimdLevel(), next + kExponentSize, PowerOfTwo(exponent),
                   values, count);
    next += kExponentSize + count * 2;
    values += count;
  }
  return out;
}

}  // namespace selvage::aggregation
