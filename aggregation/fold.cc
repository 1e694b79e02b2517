#include "aggregation/fold.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

#ifdef SELVAGE_SIMD_X86
#include <immintrin.h>
#endif

namespace selvage::aggregation {
namespace {

constexpr double kMagic = 0x1.8p52;
constexpr int64_t kMagicBits = std::bit_cast<int64_t>(kMagic);

template <bool kHalf>
float ValueAt(const FoldSource& source, size_t index) {
  if constexpr (kHalf) {
    uint16_t half;
    std::memcpy(&half, source.data + index * sizeof half, sizeof half);
    return HalfToFloat(half) * source.factor;
  } else {
    float value;
    std::memcpy(&value, source.data + index * sizeof value, sizeof value);
    return value;
  }
}

template <bool kHalf>
size_t FoldPortable(std::span<const FoldSource> sources, const FoldBound& bound,
                    int64_t* sums, size_t begin, size_t count) {
  constexpr size_t kBlock = 64;
  for (size_t i = begin; i < count; i += kBlock) {
    const size_t end = std::min(i + kBlock, count);
    uint32_t worst = 0;
    for (const FoldSource& source : sources) {
      for (size_t k = i; k < end; ++k) {
        const auto bits = std::bit_cast<uint32_t>(ValueAt<kHalf>(source, k));
        worst = std::max(worst, bits & 0x7fffffffu);
      }
    }
    if (worst > bound.bits_max) return i;
    for (const FoldSource& source : sources) {
      const auto weight = static_cast<int64_t>(source.weight);
      for (size_t k = i; k < end; ++k) {
        const double scaled = double{ValueAt<kHalf>(source, k)} * bound.scale;
        sums[k] += static_cast<int64_t>((scaled + kMagic) - kMagic) * weight;
      }
    }
  }
  return count;
}

#ifdef SELVAGE_SIMD_X86

// The vector forms fold whole blocks and return the index after the last one:
// in front of a block with a value out of bounds, or of the rest.

constexpr size_t kBlockAvx2 = 8;
constexpr size_t kBlockAvx512 = 16;

template <bool kHalf>
__attribute__((target("avx2,fma,f16c"))) size_t FoldAvx2(
    std::span<const FoldSource> sources, const FoldBound& bound, int64_t* sums,
    size_t count) {
  const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
  // There is no unsigned comparison; the bits without their sign are positive.
  const __m256i bits_max = _mm256_set1_epi32(static_cast<int>(bound.bits_max));
  const __m256d scale = _mm256_set1_pd(bound.scale);
  const __m256d magic = _mm256_set1_pd(kMagic);
  const __m256i magic_bits = _mm256_set1_epi64x(kMagicBits);
  size_t i = 0;
  for (; i + kBlockAvx2 <= count; i += kBlockAvx2) {
    __m256i worst = _mm256_setzero_si256();
    __m256d low = _mm256_setzero_pd();
    __m256d high = _mm256_setzero_pd();
    for (const FoldSource& source : sources) {
      __m256 x;
      if constexpr (kHalf) {
        const __m128i halves = _mm_loadu_si128(
            reinterpret_cast<const __m128i*>(source.data + i * 2));
        x = _mm256_mul_ps(_mm256_cvtph_ps(halves),
                          _mm256_set1_ps(source.factor));
      } else {
        x = _mm256_loadu_ps(
            reinterpret_cast<const float*>(source.data + i * 4));
      }
      worst = _mm256_max_epi32(
          worst, _mm256_and_si256(_mm256_castps_si256(x), abs_mask));
      const __m256d weight = _mm256_set1_pd(source.weight);
      const __m256d x0 = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
      const __m256d x1 = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
      const __m256d q0 =
          _mm256_sub_pd(_mm256_fmadd_pd(x0, scale, magic), magic);
      const __m256d q1 =
          _mm256_sub_pd(_mm256_fmadd_pd(x1, scale, magic), magic);
      low = _mm256_fmadd_pd(q0, weight, low);
      high = _mm256_fmadd_pd(q1, weight, high);
    }
    if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(worst, bits_max)) != 0) break;
    auto* out = reinterpret_cast<__m256i*>(sums + i);
    const __m256i add0 = _mm256_sub_epi64(
        _mm256_castpd_si256(_mm256_add_pd(low, magic)), magic_bits);
    const __m256i add1 = _mm256_sub_epi64(
        _mm256_castpd_si256(_mm256_add_pd(high, magic)), magic_bits);
    _mm256_storeu_si256(out, _mm256_add_epi64(_mm256_loadu_si256(out), add0));
    _mm256_storeu_si256(out + 1,
                        _mm256_add_epi64(_mm256_loadu_si256(out + 1), add1));
  }
  return i;
}

template <bool kHalf>
__attribute__((target("avx512f"))) size_t FoldAvx512(
    std::span<const FoldSource> sources, const FoldBound& bound, int64_t* sums,
    size_t count) {
  const __m512i abs_mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i bits_max = _mm512_set1_epi32(static_cast<int>(bound.bits_max));
  const __m512d scale = _mm512_set1_pd(bound.scale);
  const __m512d magic = _mm512_set1_pd(kMagic);
  const __m512i magic_bits = _mm512_set1_epi64(kMagicBits);
  size_t i = 0;
  for (; i + kBlockAvx512 <= count; i += kBlockAvx512) {
    __m512i worst = _mm512_setzero_si512();
    __m512d low = _mm512_setzero_pd();
    __m512d high = _mm512_setzero_pd();
    for (const FoldSource& source : sources) {
      // Shuffles by the compiler's own operator: GCC 12 warns of the
      // uninitialised operand inside of its intrinsics.
      __m512 x;
      if constexpr (kHalf) {
        const __m256i halves = _mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(source.data + i * 2));
        x = _mm512_mul_ps(_mm512_maskz_cvtph_ps(0xffff, halves),
                          _mm512_set1_ps(source.factor));
      } else {
        x = _mm512_loadu_ps(source.data + i * 4);
      }
      const __m256 x0 = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
      const __m256 x1 =
          __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
      worst = _mm512_maskz_max_epu32(
          0xffff, worst, _mm512_and_si512(_mm512_castps_si512(x), abs_mask));
      const __m512d weight = _mm512_set1_pd(source.weight);
      const __m512d t0 =
          _mm512_fmadd_pd(_mm512_maskz_cvtps_pd(0xff, x0), scale, magic);
      const __m512d t1 =
          _mm512_fmadd_pd(_mm512_maskz_cvtps_pd(0xff, x1), scale, magic);
      low = _mm512_fmadd_pd(_mm512_sub_pd(t0, magic), weight, low);
      high = _mm512_fmadd_pd(_mm512_sub_pd(t1, magic), weight, high);
    }
    if (_mm512_cmpgt_epu32_mask(worst, bits_max) != 0) break;
    const __m512i add0 = _mm512_sub_epi64(
        _mm512_castpd_si512(_mm512_add_pd(low, magic)), magic_bits);
    const __m512i add1 = _mm512_sub_epi64(
        _mm512_castpd_si512(_mm512_add_pd(high, magic)), magic_bits);
    int64_t* out = sums + i;
    _mm512_storeu_si512(out, _mm512_add_epi64(_mm512_loadu_si512(out), add0));
    _mm512_storeu_si512(out + 8,
                        _mm512_add_epi64(_mm512_loadu_si512(out + 8), add1));
  }
  return i;
}

#endif  // SELVAGE_SIMD_X86

template <bool kHalf>
size_t FoldWith([[maybe_unused]] SimdLevel level,
                std::span<const FoldSource> sources, const FoldBound& bound,
                std::span<int64_t> sums) {
  size_t done = 0;
#ifdef SELVAGE_SIMD_X86
  size_t block = 0;
  if (level == SimdLevel::kAvx512) {
    done = FoldAvx512<kHalf>(sources, bound, sums.data(), sums.size());
    block = kBlockAvx512;
  } else if (level == SimdLevel::kAvx2) {
    done = FoldAvx2<kHalf>(sources, bound, sums.data(), sums.size());
    block = kBlockAvx2;
  }
  if (block != 0 && sums.size() - done >= block) return done;
#endif
  return FoldPortable<kHalf>(sources, bound, sums.data(), done, sums.size());
}

}  // namespace

size_t Fold(SimdLevel level, plan::CodecName codec,
            std::span<const FoldSource> sources, const FoldBound& bound,
            std::span<int64_t> sums) {
  SELVAGE_CHECK(sources.size() <= kFoldSourcesMax);
  return codec == plan::CodecName::kFloat16
             ? FoldWith<true>(level, sources, bound, sums)
             : FoldWith<false>(level, sources, bound, sums);
}

}  // namespace selvage::aggregation
