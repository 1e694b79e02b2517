#include "aggregation/codec/half.h"

#include <algorithm>
#include <cstring>

#ifdef SELVAGE_SIMD_X86
#include <cpuid.h>
#include <immintrin.h>
#define SELVAGE_AVX2 __attribute__((target("avx2,fma,f16c")))
#endif

namespace selvage::aggregation {
namespace {

template <typename T>
T Load(const uint8_t* values, size_t index) {
  T value;
  std::memcpy(&value, values + index * sizeof value, sizeof value);
  return value;
}

#ifdef SELVAGE_SIMD_X86

// Each vector function does whole vectors and returns how many elements those
// were; the portable loop does the rest.

SELVAGE_AVX2 size_t MaxAbsBitsAvx2(const uint8_t* floats, size_t count,
                                   uint32_t& max) {
  const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
  __m256i most[4] = {};
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const auto* p = reinterpret_cast<const __m256i*>(floats + i * 4);
    for (int k = 0; k < 4; ++k) {
      most[k] = _mm256_max_epu32(
          most[k], _mm256_and_si256(_mm256_loadu_si256(p + k), abs_mask));
    }
  }
  most[0] = _mm256_max_epu32(_mm256_max_epu32(most[0], most[1]),
                             _mm256_max_epu32(most[2], most[3]));
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most[0]);
  max = *std::max_element(lanes, lanes + 8);
  return i;
}

SELVAGE_AVX2 size_t MaxAbsBitsOfHalvesAvx2(const uint8_t* halves, size_t count,
                                           uint16_t& max) {
  const __m256i abs_mask = _mm256_set1_epi16(0x7fff);
  __m256i most[4] = {};
  size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const auto* p = reinterpret_cast<const __m256i*>(halves + i * 2);
    for (int k = 0; k < 4; ++k) {
      most[k] = _mm256_max_epu16(
          most[k], _mm256_and_si256(_mm256_loadu_si256(p + k), abs_mask));
    }
  }
  most[0] = _mm256_max_epu16(_mm256_max_epu16(most[0], most[1]),
                             _mm256_max_epu16(most[2], most[3]));
  alignas(32) uint16_t lanes[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most[0]);
  max = *std::max_element(lanes, lanes + 16);
  return i;
}

SELVAGE_AVX2 size_t HalvesToFloatsAvx2(const uint8_t* halves, float factor,
                                       float* out, size_t count) {
  const __m256 factors = _mm256_set1_ps(factor);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i x =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i * 2));
    _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_cvtph_ps(x), factors));
  }
  return i;
}

SELVAGE_AVX2 size_t FloatsToHalvesAvx2(const float* values, float factor,
                                       uint8_t* out, size_t count) {
  const __m256 factors = _mm256_set1_ps(factor);
  const __m256 top = _mm256_set1_ps(65504);
  const __m256 bottom = _mm256_set1_ps(-65504);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(values + i), factors);
    const __m256 clamped = _mm256_max_ps(bottom, _mm256_min_ps(top, x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * 2),
                     _mm256_cvtps_ph(clamped, _MM_FROUND_TO_NEAREST_INT |
                                                  _MM_FROUND_NO_EXC));
  }
  return i;
}

#endif  // SELVAGE_SIMD_X86

bool UseAvx2([[maybe_unused]] SimdLevel level) {
#ifdef SELVAGE_SIMD_X86
  return level != SimdLevel::kPortable;
#else
  return false;
#endif
}

SimdLevel DetectSimdLevel() {
#ifdef SELVAGE_SIMD_X86
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c =
      __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  if (!f16c || !__builtin_cpu_supports("avx2") ||
      !__builtin_cpu_supports("fma")) {
    return SimdLevel::kPortable;
  }
  return __builtin_cpu_supports("avx512f") ? SimdLevel::kAvx512
                                           : SimdLevel::kAvx2;
#else
  return SimdLevel::kPortable;
#endif
}

}  // namespace

SimdLevel BestSimdLevel() {
  static const SimdLevel kLevel = DetectSimdLevel();
  return kLevel;
}

uint32_t MaxAbsBits(SimdLevel level, const uint8_t* floats, size_t count) {
  uint32_t max = 0;
  size_t i = 0;
#ifdef SELVAGE_SIMD_X86
  if (UseAvx2(level)) i = MaxAbsBitsAvx2(floats, count, max);
#endif
  for (; i < count; ++i) {
    max = std::max(max, Load<uint32_t>(floats, i) & 0x7fffffffu);
  }
  return max;
}

uint16_t MaxAbsBitsOfHalves(SimdLevel level, const uint8_t* halves,
                            size_t count) {
  uint16_t max = 0;
  size_t i = 0;
#ifdef SELVAGE_SIMD_X86
  if (UseAvx2(level)) i = MaxAbsBitsOfHalvesAvx2(halves, count, max);
#endif
  for (; i < count; ++i) {
    const uint16_t bits = Load<uint16_t>(halves, i);
    max = std::max(max, static_cast<uint16_t>(bits & 0x7fffu));
  }
  return max;
}

void HalvesToFloats(SimdLevel level, const uint8_t* halves, float factor,
                    float* out, size_t count) {
  size_t i = 0;
#ifdef SELVAGE_SIMD_X86
  if (UseAvx2(level)) i = HalvesToFloatsAvx2(halves, factor, out, count);
#endif
  for (; i < count; ++i) {
    out[i] = HalfToFloat(Load<uint16_t>(halves, i)) * factor;
  }
}

void FloatsToHalves(SimdLevel level, const float* values, float factor,
                    uint8_t* out, size_t count) {
  size_t i = 0;
#ifdef SELVAGE_SIMD_X86
  if (UseAvx2(level)) i = FloatsToHalvesAvx2(values, factor, out, count);
#endif
  for (; i < count; ++i) {
    const float x = std::clamp(values[i] * factor, -65504.0f, 65504.0f);
    const uint16_t half = FloatToHalf(x);
    std::memcpy(out + i * 2, &half, sizeof half);
  }
}

}  // namespace selvage::aggregation
