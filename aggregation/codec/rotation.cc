// The randomized Hadamard transform of kRotatedInt8.
#include <algorithm>
#include <bit>
#include <cmath>

#include "aggregation/codec/block.h"

namespace selvage::aggregation {
namespace {

// SplitMix64's output function (Steele et al., "Fast splittable pseudorandom
// number generators", 2014): word `index` of the stream.
uint64_t SignWord(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// values[i] *= +-factor. `at` need not be a multiple of 64.
void ApplySigns(uint64_t seed, size_t at, size_t count, float factor,
                float* values) {
  size_t i = 0;
  while (i < count) {
    const size_t bit = (at + i) % 64;
    const uint64_t word = SignWord(seed, (at + i) / 64) >> bit;
    const size_t end = std::min(count, i + 64 - bit);
    for (size_t k = 0; i < end; ++i, ++k) {
      const auto flip = static_cast<uint32_t>((word >> k) & 1u) << 31;
      values[i] =
          std::bit_cast<float>(std::bit_cast<uint32_t>(values[i]) ^ flip) *
          factor;
    }
  }
}

// The butterflies in one order; a vector form computes the same sums and
// differences, so its bits are the same. Inlined into functions for more than
// one processor.
[[gnu::always_inline]] inline void Butterflies(float* values, int log2) {
  const size_t count = size_t{1} << log2;
  for (size_t half = 1; half < count; half *= 2) {
    for (size_t begin = 0; begin < count; begin += 2 * half) {
      float* const a = values + begin;
      float* const b = a + half;
      for (size_t i = 0; i < half; ++i) {
        const float sum = a[i] + b[i];
        const float difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
}

void HadamardPortable(float* values, int log2) { Butterflies(values, log2); }

#ifdef SELVAGE_SIMD_X86
__attribute__((target("avx2"))) void HadamardAvx2(float* values, int log2) {
  Butterflies(values, log2);
}
__attribute__((target("avx512f"))) void HadamardAvx512(float* values,
                                                       int log2) {
  Butterflies(values, log2);
}
#endif

void Hadamard([[maybe_unused]] SimdLevel level, float* values, int log2) {
#ifdef SELVAGE_SIMD_X86
  if (level == SimdLevel::kAvx512) return HadamardAvx512(values, log2);
  if (level == SimdLevel::kAvx2) return HadamardAvx2(values, log2);
#endif
  HadamardPortable(values, log2);
}

}  // namespace

// 2^-log2 = 2^-ceil(log2 / 2) * 2^-floor(log2 / 2): two exact factors for the
// two ways, equal but for sqrt(2) of an odd log2.
void Rotate(SimdLevel level, uint64_t sign_seed, size_t at, int log2,
            float* values) {
  ApplySigns(sign_seed, at, size_t{1} << log2,
             std::ldexp(1.0f, -((log2 + 1) / 2)), values);
  Hadamard(level, values, log2);
}

void RotateBack(SimdLevel level, uint64_t sign_seed, size_t at, int log2,
                float* values) {
  Hadamard(level, values, log2);
  ApplySigns(sign_seed, at, size_t{1} << log2, std::ldexp(1.0f, -(log2 / 2)),
             values);
}

int RotationLog2(size_t left) {
  return static_cast<int>(
      std::bit_width(std::min<size_t>(left, kRotationBlock)) - 1);
}

}  // namespace selvage::aggregation
