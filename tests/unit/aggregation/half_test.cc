// binary16 against its definition, for every one of its values and between
// them.
#include "aggregation/codec/half.h"

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/unit/aggregation/hard_values.h"

namespace selvage::aggregation {
namespace {

std::vector<SimdLevel> Levels() {
  std::vector<SimdLevel> levels = {SimdLevel::kPortable};
  if (BestSimdLevel() >= SimdLevel::kAvx2) levels.push_back(SimdLevel::kAvx2);
  if (BestSimdLevel() == SimdLevel::kAvx512) {
    levels.push_back(SimdLevel::kAvx512);
  }
  return levels;
}

// IEEE 754-2019, 3.4, written out.
double ByDefinition(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  const double magnitude = exponent == 0
                               ? std::ldexp(fraction, -24)
                               : std::ldexp(1024 + fraction, exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(HalfToFloat, EveryValue_IsItsDefinition) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if ((half & 0x7fff) > 0x7c00) {
      EXPECT_TRUE(std::isnan(value)) << half;
    } else if ((half & 0x7fff) == 0x7c00) {
      EXPECT_TRUE(std::isinf(value)) << half;
    } else {
      EXPECT_EQ(double{value}, ByDefinition(static_cast<uint16_t>(half)));
      EXPECT_EQ(std::signbit(value), half >= 0x8000) << half;
    }
  }
}

TEST(FloatToHalf, EveryValueAndItsNeighbourhood_RoundsHalfToEven) {
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    const float low = HalfToFloat(half);
    const float high = HalfToFloat(static_cast<uint16_t>(half + 1));
    const float middle = (low + high) / 2;  // exact: binary16 has 11 bits
    const auto next = static_cast<uint16_t>(half + 1);
    EXPECT_EQ(FloatToHalf(low), half);
    EXPECT_EQ(FloatToHalf(-low), half | 0x8000);
    EXPECT_EQ(FloatToHalf(middle), half % 2 == 0 ? half : next);
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half);
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, high)), next);
  }
}

TEST(FloatToHalf, Extremes_AreInfinityZeroAndNan) {
  EXPECT_EQ(FloatToHalf(65504.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-FLT_MAX), 0xfc00);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0);
  EXPECT_EQ(FloatToHalf(-0x1p-149f), 0x8000);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::quiet_NaN()) & 0x7fff,
            0x7e00);
}

TEST(SimdLevels, EveryLevel_GivesThePortableBits) {
  SeededRandom random(1);
  for (const size_t count : {0u, 1u, 7u, 8u, 31u, 32u, 65u, 300u}) {
    std::vector<float> values(count);
    std::vector<uint16_t> halves(count);
    for (float& value : values) value = AnyFinite(random);
    for (uint16_t& half : halves) {
      half = static_cast<uint16_t>(UniformBelow(random, 0x7c00) |
                                   (UniformBelow(random, 2) << 15));
    }
    // One byte in, so that nothing is aligned.
    std::vector<uint8_t> floats(count * 4 + 1);
    std::vector<uint8_t> packed(count * 2 + 1);
    if (count > 0) {
      std::memcpy(floats.data() + 1, values.data(), count * 4);
      std::memcpy(packed.data() + 1, halves.data(), count * 2);
    }
    for (const float factor : {1.0f, 0x1p-125f, 0x1p112f, 0x1p-20f}) {
      std::vector<float> decoded(count);
      std::vector<uint8_t> encoded(count * 2);
      HalvesToFloats(SimdLevel::kPortable, packed.data() + 1, factor,
                     decoded.data(), count);
      FloatsToHalves(SimdLevel::kPortable, values.data(), factor,
                     encoded.data(), count);
      for (const SimdLevel level : Levels()) {
        std::vector<float> decoded_here(count);
        std::vector<uint8_t> encoded_here(count * 2);
        HalvesToFloats(level, packed.data() + 1, factor, decoded_here.data(),
                       count);
        FloatsToHalves(level, values.data(), factor, encoded_here.data(),
                       count);
        EXPECT_EQ(ToHex(AsBytes(std::span<const float>(decoded_here))),
                  ToHex(AsBytes(std::span<const float>(decoded))));
        EXPECT_EQ(ToHex(encoded_here), ToHex(encoded));
        EXPECT_EQ(MaxAbsBits(level, floats.data() + 1, count),
                  MaxAbsBits(SimdLevel::kPortable, floats.data() + 1, count));
        EXPECT_EQ(
            MaxAbsBitsOfHalves(level, packed.data() + 1, count),
            MaxAbsBitsOfHalves(SimdLevel::kPortable, packed.data() + 1, count));
      }
    }
  }
}

TEST(MaxAbsBits, NanAnywhere_IsAboveInfinity) {
  for (const SimdLevel level : Levels()) {
    for (size_t at = 0; at < 100; ++at) {
      std::vector<float> values(100, -3.0f);
      const uint8_t* bytes = reinterpret_cast<const uint8_t*>(values.data());
      EXPECT_EQ(MaxAbsBits(level, bytes, 100), std::bit_cast<uint32_t>(3.0f));
      values[at] = -std::numeric_limits<float>::infinity();
      EXPECT_EQ(MaxAbsBits(level, bytes, 100), kFloatInfinityBits);
      values[at] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_GT(MaxAbsBits(level, bytes, 100), kFloatInfinityBits);
    }
  }
}

}  // namespace
}  // namespace selvage::aggregation
