// IEEE 754 binary16 and the scans that the codecs and the exact sum share. Each
// has a portable form and vector forms with the same result to the bit, chosen
// at run time.
//
// Arrays are `uint8_t*` because they lie in messages: little-endian, at any
// alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#define SELVAGE_SIMD_X86 1
#endif

namespace selvage::aggregation {

// kAvx2 means AVX2, FMA and F16C; kAvx512 means those and AVX-512 F.
enum class SimdLevel { kPortable, kAvx2, kAvx512 };

// The best that this processor and this build have.
SimdLevel BestSimdLevel();

inline constexpr uint32_t kFloatInfinityBits = 0x7f800000;
inline constexpr uint16_t kHalfInfinityBits = 0x7c00;

inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t fraction = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exactly
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | biased << 23 | fraction << 13);
}

// Rounds half to even; 65520 and above become infinity.
inline uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > kFloatInfinityBits) {
    magnitude = kHalfInfinityBits | 0x200u;
  } else if (magnitude >= std::bit_cast<uint32_t>(65520.0f)) {
    magnitude = kHalfInfinityBits;
  } else if (magnitude < std::bit_cast<uint32_t>(0x1p-14f)) {
    // The spacing of floats around 0.5 is 2^-24, that of binary16's subnormals:
    // the addition rounds.
    magnitude =
        std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
        std::bit_cast<uint32_t>(0.5f);
  } else {
    magnitude += 0xfffu + ((magnitude >> 13) & 1u);
    magnitude = (magnitude - (112u << 23)) >> 13;
  }
  return static_cast<uint16_t>(sign | magnitude);
}

// The largest of the values' bits without the sign: above kFloatInfinityBits if
// there is a NaN, equal to it if the largest magnitude is infinite, else that
// magnitude's bits. 0 if count is 0.
uint32_t MaxAbsBits(SimdLevel level, const uint8_t* floats, size_t count);
// Likewise for binary16, with kHalfInfinityBits.
uint16_t MaxAbsBitsOfHalves(SimdLevel level, const uint8_t* halves,
                            size_t count);

// out[i] = halves[i] * factor.
void HalvesToFloats(SimdLevel level, const uint8_t* halves, float factor,
                    float* out, size_t count);
// out[i] = values[i] * factor, clamped to +-65504, as binary16. No NaN.
void FloatsToHalves(SimdLevel level, const float* values, float factor,
                    uint8_t* out, size_t count);

}  // namespace selvage::aggregation
