// The inner loop of the exact sum: several updates at a time into one stretch
// of the accumulator. Not for use outside of aggregation/.
//
// Everything is exact, so the vector forms and the portable form agree to the
// bit. x * scale is exact because scale is a power of two; adding and
// subtracting 1.5 * 2^52 rounds it half to even (Hacker's Delight, 17); with
// |q| <= 2^31, |w| < 2^16 and at most 5 updates, their sum of q * w stays
// below 2^51: exact in double, and 1.5 * 2^52 turns it into an int64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "aggregation/codec/block.h"
#include "aggregation/codec/half.h"
#include "plan/task.h"

namespace selvage::aggregation {

// Measured (bench/exact_sum_bench.cc): more streams than this overtax the
// processor's prefetchers, fewer read the accumulator too often.
inline constexpr size_t kFoldSourcesMax = 5;

struct FoldSource {
  const uint8_t* data = nullptr;  // the first of the values; any alignment
  float factor = 1;               // kFloat16: value = binary16 * factor
  double weight = 1;              // an integer, |weight| <= 65,535
  // kInt8: uint16 each, the first is that of the first kInt8Block values.
  const uint8_t* scales = nullptr;
};

struct FoldBound {
  double scale = 1;       // a power of two
  uint32_t bits_max = 0;  // of an acceptable |x|; x * scale rounds to <= 2^31
};

// Codecs whose values lie side by side: kFloat32, kFloat16, kBFloat16, kInt8.
// kFloat16 and kInt8 are not checked: their values must be within the bound.
//
// sums[i] += sum over sources of weight * round_half_even(x_i * scale). Stops
// in front of the first block of elements with an x out of bounds: returns how
// many elements have been folded, sums.size() if all. The block's size depends
// on `level`. 1 to kFoldSourcesMax sources, each of sums.size() values.
size_t Fold(SimdLevel level, plan::CodecName codec,
            std::span<const FoldSource> sources, const FoldBound& bound,
            std::span<int64_t> sums);

}  // namespace selvage::aggregation
