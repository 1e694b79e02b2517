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

// How values lie in memory.
enum class Form { kFloat, kHalf, kBFloat, kByte };
// Whether Fold() looks at the bounds of such values.
constexpr bool IsChecked(Form form) {
  return form == Form::kFloat || form == Form::kBFloat;
}
template <Form kForm>
constexpr size_t kSize = kForm == Form::kFloat  ? 4
                         : kForm == Form::kByte ? 1
                                                : 2;

template <Form kForm>
float ValueAt(const FoldSource& source, size_t index) {
  if constexpr (kForm == Form::kByte) {
    return static_cast<float>(static_cast<int8_t>(source.data[index])) *
           ScaleAt(source.scales, index / kInt8Block);
  } else if constexpr (kForm == Form::kFloat) {
    float value;
    std::memcpy(&value, source.data + index * sizeof value, sizeof value);
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, source.data + index * sizeof bits, sizeof bits);
    return kForm == Form::kHalf ? HalfToFloat(bits) * source.factor
                                : ScaleFromBits(bits);
  }
}

template <Form kForm>
size_t FoldPortable(std::span<const FoldSource> sources, const FoldBound& bound,
                    int64_t* sums, size_t begin, size_t count) {
  constexpr size_t kBlock = 64;
  for (size_t i = begin; i < count; i += kBlock) {
    const size_t end = std::min(i + kBlock, count);
    if constexpr (IsChecked(kForm)) {
      uint32_t worst = 0;
      for (const FoldSource& source : sources) {
        for (size_t k = i; k < end; ++k) {
          const auto bits = std::bit_cast<uint32_t>(ValueAt<kForm>(source, k));
          worst = std::max(worst, bits & 0x7fffffffu);
        }
      }
      if (worst > bound.bits_max) return i;
    }
    for (const FoldSource& source : sources) {
      const auto weight = static_cast<int64_t>(source.weight);
      for (size_t k = i; k < end; ++k) {
        const double scaled = double{ValueAt<kForm>(source, k)} * bound.scale;
        sums[k] += static_cast<int64_t>((scaled + kMagic) - kMagic) * weight;
      }
    }
  }
  return count;
}

#ifdef SELVAGE_SIMD_X86

// The vector forms fold whole blocks and return the index after the last one:
// in front of a block with a value out of bounds, or of the rest. The number of
// sources is a constant so that nothing of them is read twice.

constexpr size_t kBlockAvx2 = 8;
constexpr size_t kBlockAvx512 = 16;
// So far ahead of each source's values the next ones are asked for: the
// hardware's own prefetchers lose the thread at every change of source.
constexpr size_t kPrefetchBytes = 3072;
// Of what was read just before, to be checked, the next tile's (exact_sum.cc):
// it is checked from the second-level cache then.
template <Form kForm>
constexpr size_t kPrefetchAhead = IsChecked(kForm) ? kPrefetchBytes
                                                   : 16384 * kSize<kForm>;
template <Form kForm>
constexpr auto kPrefetchHint = IsChecked(kForm) ? _MM_HINT_T0 : _MM_HINT_T1;
constexpr size_t kPrefetchSums = 256;  // likewise, elements of the accumulator

// The four cache lines of a later block of bytes, by how far one is asked for
// ahead of `block`.
[[gnu::always_inline]] inline void PrefetchBlock(const uint8_t* block) {
  static_assert(kInt8Block == 256);
  const uint8_t* const at = block + kPrefetchAhead<Form::kByte>;
  _mm_prefetch(at, kPrefetchHint<Form::kByte>);
  _mm_prefetch(at + 64, kPrefetchHint<Form::kByte>);
  _mm_prefetch(at + 128, kPrefetchHint<Form::kByte>);
  _mm_prefetch(at + 192, kPrefetchHint<Form::kByte>);
}

template <Form kForm, size_t kSources>
__attribute__((target("avx2,fma,f16c"))) size_t FoldAvx2(
    const FoldSource* sources, const FoldBound& bound, int64_t* sums,
    size_t count) {
  const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
  // There is no unsigned comparison; the bits without their sign are positive.
  const __m256i bits_max = _mm256_set1_epi32(static_cast<int>(bound.bits_max));
  const __m256d magic = _mm256_set1_pd(kMagic);
  const __m256i magic_bits = _mm256_set1_epi64x(kMagicBits);
  const uint8_t* data[kSources];
  double weights[kSources];
  // A power of two times another one: exact, like the product with a value.
  double scales[kSources];
  for (size_t s = 0; s < kSources; ++s) {
    data[s] = sources[s].data;
    weights[s] = sources[s].weight;
    scales[s] = kForm == Form::kHalf ? bound.scale * double{sources[s].factor}
                                     : bound.scale;
  }
  size_t i = 0;
  for (; i + kBlockAvx2 <= count; i += kBlockAvx2) {
    __m256i worst = _mm256_setzero_si256();
    __m256d low = _mm256_setzero_pd();
    __m256d high = _mm256_setzero_pd();
    for (size_t s = 0; s < kSources; ++s) {
      const uint8_t* const at = data[s] + i * kSize<kForm>;
      _mm_prefetch(at + kPrefetchAhead<kForm>, kPrefetchHint<kForm>);
      __m256 x;
      if constexpr (kForm == Form::kHalf) {
        const __m128i halves =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        x = _mm256_cvtph_ps(halves);
      } else if constexpr (kForm == Form::kBFloat) {
        const __m128i upper =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        x = _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(upper), 16));
      } else {
        x = _mm256_loadu_ps(reinterpret_cast<const float*>(at));
      }
      if constexpr (IsChecked(kForm)) {
        worst = _mm256_max_epi32(
            worst, _mm256_and_si256(_mm256_castps_si256(x), abs_mask));
      }
      const __m256d scale = _mm256_set1_pd(scales[s]);
      const __m256d weight = _mm256_set1_pd(weights[s]);
      const __m256d t0 = _mm256_fmadd_pd(
          _mm256_cvtps_pd(_mm256_castps256_ps128(x)), scale, magic);
      const __m256d t1 = _mm256_fmadd_pd(
          _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)), scale, magic);
      low = _mm256_fmadd_pd(_mm256_sub_pd(t0, magic), weight, low);
      high = _mm256_fmadd_pd(_mm256_sub_pd(t1, magic), weight, high);
    }
    if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(worst, bits_max)) != 0) break;
    _mm_prefetch(sums + i + kPrefetchSums, _MM_HINT_T0);
    auto* const out = reinterpret_cast<__m256i*>(sums + i);
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

template <Form kForm, size_t kSources>
__attribute__((target("avx512f"))) size_t FoldAvx512(const FoldSource* sources,
                                                     const FoldBound& bound,
                                                     int64_t* sums,
                                                     size_t count) {
  const __m512i abs_mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i bits_max = _mm512_set1_epi32(static_cast<int>(bound.bits_max));
  const __m512d magic = _mm512_set1_pd(kMagic);
  const __m512i magic_bits = _mm512_set1_epi64(kMagicBits);
  const uint8_t* data[kSources];
  double weights[kSources];
  double scales[kSources];
  for (size_t s = 0; s < kSources; ++s) {
    data[s] = sources[s].data;
    weights[s] = sources[s].weight;
    scales[s] = kForm == Form::kHalf ? bound.scale * double{sources[s].factor}
                                     : bound.scale;
  }
  size_t i = 0;
  for (; i + kBlockAvx512 <= count; i += kBlockAvx512) {
    __m512i worst = _mm512_setzero_si512();
    __m512d low = _mm512_setzero_pd();
    __m512d high = _mm512_setzero_pd();
    for (size_t s = 0; s < kSources; ++s) {
      const uint8_t* const at = data[s] + i * kSize<kForm>;
      _mm_prefetch(at + kPrefetchAhead<kForm>, kPrefetchHint<kForm>);
      __m512 x;
      if constexpr (kForm == Form::kHalf) {
        const __m256i halves =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
        x = _mm512_maskz_cvtph_ps(0xffff, halves);
      } else if constexpr (kForm == Form::kBFloat) {
        const __m256i upper =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
        x = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(
            0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, upper), 16));
      } else {
        x = _mm512_loadu_ps(at);
      }
      // Halves by the compiler's operator, masks that select everything: GCC 12
      // warns of the undefined operand inside of the plain intrinsics.
      const __m256 x0 = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
      const __m256 x1 =
          __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
      if constexpr (IsChecked(kForm)) {
        worst = _mm512_maskz_max_epu32(
            0xffff, worst, _mm512_and_si512(_mm512_castps_si512(x), abs_mask));
      }
      const __m512d scale = _mm512_set1_pd(scales[s]);
      const __m512d weight = _mm512_set1_pd(weights[s]);
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
    int64_t* const out = sums + i;
    _mm_prefetch(out + kPrefetchSums, _MM_HINT_T0);
    _mm_prefetch(out + kPrefetchSums + 8, _MM_HINT_T0);
    _mm512_storeu_si512(out, _mm512_add_epi64(_mm512_loadu_si512(out), add0));
    _mm512_storeu_si512(out + 8,
                        _mm512_add_epi64(_mm512_loadu_si512(out + 8), add1));
  }
  return i;
}

// Bytes share a scale, which is why these go by blocks of kInt8Block. A byte
// times its scale is exact, and so is the product with bound.scale.
template <size_t kSources>
__attribute__((target("avx2,fma"))) size_t FoldBytesAvx2(
    const FoldSource* sources, const FoldBound& bound, int64_t* sums,
    size_t count) {
  const __m256d magic = _mm256_set1_pd(kMagic);
  const __m256i magic_bits = _mm256_set1_epi64x(kMagicBits);
  size_t i = 0;
  while (i + kBlockAvx2 <= count) {
    __m256d steps[kSources];
    __m256d weights[kSources];
    const uint8_t* data[kSources];
    for (size_t s = 0; s < kSources; ++s) {
      steps[s] = _mm256_set1_pd(
          double{ScaleAt(sources[s].scales, i / kInt8Block)} * bound.scale);
      weights[s] = _mm256_set1_pd(sources[s].weight);
      data[s] = sources[s].data;
      PrefetchBlock(data[s] + i);
    }
    const size_t end = std::min(count, i + kInt8Block);
    for (; i + kBlockAvx2 <= end; i += kBlockAvx2) {
      __m256d low = _mm256_setzero_pd();
      __m256d high = _mm256_setzero_pd();
      for (size_t s = 0; s < kSources; ++s) {
        const __m256i x = _mm256_cvtepi8_epi32(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(data[s] + i)));
        const __m256d t0 = _mm256_fmadd_pd(
            _mm256_cvtepi32_pd(_mm256_castsi256_si128(x)), steps[s], magic);
        const __m256d t1 =
            _mm256_fmadd_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(x, 1)),
                            steps[s], magic);
        low = _mm256_fmadd_pd(_mm256_sub_pd(t0, magic), weights[s], low);
        high = _mm256_fmadd_pd(_mm256_sub_pd(t1, magic), weights[s], high);
      }
      _mm_prefetch(sums + i + kPrefetchSums, _MM_HINT_T0);
      auto* const out = reinterpret_cast<__m256i*>(sums + i);
      const __m256i add0 = _mm256_sub_epi64(
          _mm256_castpd_si256(_mm256_add_pd(low, magic)), magic_bits);
      const __m256i add1 = _mm256_sub_epi64(
          _mm256_castpd_si256(_mm256_add_pd(high, magic)), magic_bits);
      _mm256_storeu_si256(out, _mm256_add_epi64(_mm256_loadu_si256(out), add0));
      _mm256_storeu_si256(out + 1,
                          _mm256_add_epi64(_mm256_loadu_si256(out + 1), add1));
    }
  }
  return i;
}

template <size_t kSources>
__attribute__((target("avx512f"))) size_t FoldBytesAvx512(
    const FoldSource* sources, const FoldBound& bound, int64_t* sums,
    size_t count) {
  const __m512d magic = _mm512_set1_pd(kMagic);
  const __m512i magic_bits = _mm512_set1_epi64(kMagicBits);
  size_t i = 0;
  while (i + kBlockAvx512 <= count) {
    __m512d steps[kSources];
    __m512d weights[kSources];
    const uint8_t* data[kSources];
    for (size_t s = 0; s < kSources; ++s) {
      steps[s] = _mm512_set1_pd(
          double{ScaleAt(sources[s].scales, i / kInt8Block)} * bound.scale);
      weights[s] = _mm512_set1_pd(sources[s].weight);
      data[s] = sources[s].data;
      PrefetchBlock(data[s] + i);
    }
    const size_t end = std::min(count, i + kInt8Block);
    for (; i + kBlockAvx512 <= end; i += kBlockAvx512) {
      __m512d low = _mm512_setzero_pd();
      __m512d high = _mm512_setzero_pd();
      for (size_t s = 0; s < kSources; ++s) {
        const auto* const at = reinterpret_cast<const __m128i*>(data[s] + i);
        const __m128i x = _mm_loadu_si128(at);
        const __m512d t0 = _mm512_fmadd_pd(
            _mm512_maskz_cvtepi32_pd(0xff, _mm256_cvtepi8_epi32(x)), steps[s],
            magic);
        const __m512d t1 = _mm512_fmadd_pd(
            _mm512_maskz_cvtepi32_pd(
                0xff, _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x))),
            steps[s], magic);
        low = _mm512_fmadd_pd(_mm512_sub_pd(t0, magic), weights[s], low);
        high = _mm512_fmadd_pd(_mm512_sub_pd(t1, magic), weights[s], high);
      }
      const __m512i add0 = _mm512_sub_epi64(
          _mm512_castpd_si512(_mm512_add_pd(low, magic)), magic_bits);
      const __m512i add1 = _mm512_sub_epi64(
          _mm512_castpd_si512(_mm512_add_pd(high, magic)), magic_bits);
      int64_t* const out = sums + i;
      _mm_prefetch(out + kPrefetchSums, _MM_HINT_T0);
      _mm_prefetch(out + kPrefetchSums + 8, _MM_HINT_T0);
      _mm512_storeu_si512(out, _mm512_add_epi64(_mm512_loadu_si512(out), add0));
      _mm512_storeu_si512(out + 8,
                          _mm512_add_epi64(_mm512_loadu_si512(out + 8), add1));
    }
  }
  return i;
}

using VectorFold = size_t (*)(const FoldSource*, const FoldBound&, int64_t*,
                              size_t);
static_assert(kFoldSourcesMax == 5);
template <Form kForm>
constexpr VectorFold kFoldsAvx2[] = {FoldAvx2<kForm, 1>, FoldAvx2<kForm, 2>,
                                     FoldAvx2<kForm, 3>, FoldAvx2<kForm, 4>,
                                     FoldAvx2<kForm, 5>};
template <>
constexpr VectorFold kFoldsAvx2<Form::kByte>[] = {
    FoldBytesAvx2<1>, FoldBytesAvx2<2>, FoldBytesAvx2<3>, FoldBytesAvx2<4>,
    FoldBytesAvx2<5>};
template <Form kForm>
constexpr VectorFold kFoldsAvx512[] = {
    FoldAvx512<kForm, 1>, FoldAvx512<kForm, 2>, FoldAvx512<kForm, 3>,
    FoldAvx512<kForm, 4>, FoldAvx512<kForm, 5>};
template <>
constexpr VectorFold kFoldsAvx512<Form::kByte>[] = {
    FoldBytesAvx512<1>, FoldBytesAvx512<2>, FoldBytesAvx512<3>,
    FoldBytesAvx512<4>, FoldBytesAvx512<5>};

#endif  // SELVAGE_SIMD_X86

template <Form kForm>
size_t FoldWith([[maybe_unused]] SimdLevel level,
                std::span<const FoldSource> sources, const FoldBound& bound,
                std::span<int64_t> sums) {
  size_t done = 0;
#ifdef SELVAGE_SIMD_X86
  size_t block = 0;
  VectorFold fold = nullptr;
  if (level == SimdLevel::kAvx512) {
    fold = kFoldsAvx512<kForm>[sources.size() - 1];
    block = kBlockAvx512;
  } else if (level == SimdLevel::kAvx2) {
    fold = kFoldsAvx2<kForm>[sources.size() - 1];
    block = kBlockAvx2;
  }
  if (fold != nullptr) {
    done = fold(sources.data(), bound, sums.data(), sums.size());
  }
  if (block != 0 && sums.size() - done >= block) return done;
#endif
  return FoldPortable<kForm>(sources, bound, sums.data(), done, sums.size());
}

}  // namespace

size_t Fold(SimdLevel level, plan::CodecName codec,
            std::span<const FoldSource> sources, const FoldBound& bound,
            std::span<int64_t> sums) {
  SELVAGE_CHECK(!sources.empty());
  SELVAGE_CHECK(sources.size() <= kFoldSourcesMax);
  switch (codec) {
    case plan::CodecName::kFloat32:
      return FoldWith<Form::kFloat>(level, sources, bound, sums);
    case plan::CodecName::kFloat16:
      return FoldWith<Form::kHalf>(level, sources, bound, sums);
    case plan::CodecName::kBFloat16:
      return FoldWith<Form::kBFloat>(level, sources, bound, sums);
    case plan::CodecName::kInt8:
      return FoldWith<Form::kByte>(level, sources, bound, sums);
    case plan::CodecName::kTopK:
    case plan::CodecName::kRotatedInt8:
      break;
  }
  SELVAGE_CHECK(false);
  return 0;
}

}  // namespace selvage::aggregation
