// The inner loops against each other and against 128-bit integers.
#include "aggregation/fold.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "aggregation/codec/half.h"
#include "aggregation/exact_sum.h"
#include "base/random.h"
#include "tests/unit/aggregation/hard_values.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;

std::vector<SimdLevel> Levels() {
  std::vector<SimdLevel> levels = {SimdLevel::kPortable};
  if (BestSimdLevel() >= SimdLevel::kAvx2) levels.push_back(SimdLevel::kAvx2);
  if (BestSimdLevel() == SimdLevel::kAvx512) {
    levels.push_back(SimdLevel::kAvx512);
  }
  return levels;
}

uint32_t BitsBelow(double max_abs) {
  const auto nearest = static_cast<float>(max_abs);
  return std::bit_cast<uint32_t>(
      double{nearest} < max_abs ? nearest : std::nextafter(nearest, 0.0f));
}

class FoldEveryLevel : public ::testing::TestWithParam<SimdLevel> {};
INSTANTIATE_TEST_SUITE_P(Levels, FoldEveryLevel, ::testing::ValuesIn(Levels()));

TEST_P(FoldEveryLevel, AnyValues_IsTheSumOfRoundedProducts) {
  SeededRandom random(3);
  for (const double max_abs : {8.0, 65536.0, 0.3, 0x1p24, 1e-20, 1e-300}) {
    const double scale = ScaleFor(max_abs);
    const FoldBound bound = {.scale = scale, .bits_max = BitsBelow(max_abs)};
    for (size_t count : {1u, 7u, 8u, 15u, 16u, 17u, 40u, 130u}) {
      for (size_t sources = 1; sources <= kFoldSourcesMax; ++sources) {
        std::vector<std::vector<uint8_t>> data(sources);
        std::vector<FoldSource> fold_sources(sources);
        std::vector<int64_t> sums(count);
        for (int64_t& sum : sums) {
          sum = static_cast<int64_t>(random.Next() >> 2) - (int64_t{1} << 61);
        }
        std::vector<int64_t> expected = sums;
        for (size_t s = 0; s < sources; ++s) {
          const auto weight =
              static_cast<int64_t>(1 + UniformBelow(random, 65535));
          data[s].resize(count * 4 + 3);
          fold_sources[s] = {.data = data[s].data() + 3,
                             .weight = static_cast<double>(weight)};
          for (size_t i = 0; i < count; ++i) {
            const float x = AnyWithin(max_abs, scale, random);
            std::memcpy(data[s].data() + 3 + i * 4, &x, 4);
            // nearbyint rounds half to even too, by another road.
            expected[i] += static_cast<int64_t>(std::nearbyint(
                               static_cast<long double>(x) *
                               static_cast<long double>(scale))) *
                           weight;
          }
        }
        EXPECT_EQ(
            Fold(GetParam(), CodecName::kFloat32, fold_sources, bound, sums),
            count);
        EXPECT_EQ(sums, expected) << max_abs << " " << count;
      }
    }
  }
}

TEST_P(FoldEveryLevel, Halves_IsTheSumOfTheirFloats) {
  SeededRandom random(4);
  for (const int exponent : {-125, -28, -15, -13}) {
    const float factor = std::ldexp(1.0f, exponent);
    const FoldBound bound = {.scale = ScaleFor(8), .bits_max = BitsBelow(8)};
    for (size_t count : {1u, 16u, 100u}) {
      std::vector<uint8_t> halves(count * 2);
      std::vector<uint8_t> floats(count * 4);
      for (size_t i = 0; i < count; ++i) {
        const auto half = static_cast<uint16_t>(UniformBelow(random, 0x7800) |
                                                UniformBelow(random, 2) << 15);
        const float value = HalfToFloat(half) * factor;
        std::memcpy(halves.data() + i * 2, &half, 2);
        std::memcpy(floats.data() + i * 4, &value, 4);
      }
      std::vector<int64_t> sums(count);
      std::vector<int64_t> expected(count);
      const FoldSource half_source = {
          .data = halves.data(), .factor = factor, .weight = 77};
      const FoldSource float_source = {.data = floats.data(), .weight = 77};
      EXPECT_EQ(
          Fold(GetParam(), CodecName::kFloat16, {&half_source, 1}, bound, sums),
          count);
      EXPECT_EQ(Fold(SimdLevel::kPortable, CodecName::kFloat32,
                     {&float_source, 1}, bound, expected),
                count);
      EXPECT_EQ(sums, expected);
    }
  }
}

TEST_P(FoldEveryLevel, ValueOutOfBounds_StopsInFrontOfIt) {
  constexpr float kBad[] = {8.0f,
                            -8.0f,
                            1e30f,
                            std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN(),
                            -std::numeric_limits<float>::quiet_NaN()};
  const FoldBound bound = {.scale = ScaleFor(8), .bits_max = BitsBelow(8)};
  for (const float bad : kBad) {
    for (size_t at = 0; at < 150; at += 7) {
      for (size_t who = 0; who < 3; ++who) {
        std::vector<std::vector<float>> values(3, std::vector<float>(150, 1));
        values[who][at] = bad;
        std::vector<FoldSource> sources(3);
        for (size_t s = 0; s < 3; ++s) {
          sources[s].data = reinterpret_cast<const uint8_t*>(values[s].data());
        }
        std::vector<int64_t> sums(150);
        const size_t done =
            Fold(GetParam(), CodecName::kFloat32, sources, bound, sums);
        EXPECT_LE(done, at);
        for (size_t i = 0; i < sums.size(); ++i) {
          EXPECT_EQ(sums[i], i < done ? 3 * (int64_t{1} << 28) : 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace selvage::aggregation
