// The inner loops against each other and against 128-bit integers.
#include "aggregation/fold.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "aggregation/codec/block.h"
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

// Every codec's block, folded at this level, is the portable fold of what it
// decodes to.
TEST_P(FoldEveryLevel, BFloatsAndBytes_IsTheSumOfTheirFloats) {
  SeededRandom random(5);
  const FoldBound bound = {.scale = ScaleFor(8), .bits_max = BitsBelow(8)};
  for (const CodecName codec : {CodecName::kBFloat16, CodecName::kInt8}) {
    for (size_t count : {1u, 8u, 15u, 16u, 255u, 256u, 257u, 1000u}) {
      for (size_t members = 1; members <= kFoldSourcesMax; ++members) {
        std::vector<Bytes> bytes(members);
        std::vector<std::vector<float>> decoded(members);
        std::vector<FoldSource> sources(members);
        std::vector<FoldSource> floats(members);
        for (size_t s = 0; s < members; ++s) {
          std::vector<float> values(count);
          const int exponent = static_cast<int>(UniformBelow(random, 60)) - 57;
          for (float& value : values) {
            value = static_cast<float>(
                std::ldexp(UniformUnit(random) * 2 - 1, exponent));
          }
          bytes[s] = *Encode(codec, {&count, 1}, values, &random);
          bytes[s].insert(bytes[s].begin(), 0);  // at an odd address
          const EncodedBlock block =
              BlockReader(codec, bytes[s].data() + 1).Next(count);
          decoded[s].resize(count);
          DecodePiece(GetParam(), block, 0, count, decoded[s].data());
          const double weight =
              static_cast<double>(1 + UniformBelow(random, 65535));
          sources[s] = {
              .data = block.data, .weight = weight, .scales = block.scales};
          floats[s] = {
              .data = reinterpret_cast<const uint8_t*>(decoded[s].data()),
              .weight = weight};
        }
        std::vector<int64_t> sums(count, -5);
        std::vector<int64_t> expected(count, -5);
        EXPECT_EQ(Fold(GetParam(), codec, sources, bound, sums), count);
        EXPECT_EQ(Fold(SimdLevel::kPortable, CodecName::kFloat32, floats, bound,
                       expected),
                  count);
        EXPECT_EQ(sums, expected) << count;
      }
    }
  }
}

// Every bit pattern of 16 bits: ties, denormals, infinities and NaNs among
// them.
TEST_P(FoldEveryLevel, EveryBFloat_IsFoldedOrRefusedAsItsFloat) {
  const FoldBound bound = {.scale = ScaleFor(8), .bits_max = BitsBelow(8)};
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    std::vector<uint16_t> many(16, static_cast<uint16_t>(bits));
    const float value = ScaleFromBits(static_cast<uint16_t>(bits));
    const FoldSource source = {
        .data = reinterpret_cast<const uint8_t*>(many.data()), .weight = 3};
    std::vector<int64_t> sums(16);
    const size_t done =
        Fold(GetParam(), CodecName::kBFloat16, {&source, 1}, bound, sums);
    if (!(std::abs(value) < 8)) {
      ASSERT_EQ(done, 0u) << bits;
      continue;
    }
    ASSERT_EQ(done, 16u) << bits;
    ASSERT_EQ(sums[0], 3 * std::llrint(double{value} * bound.scale)) << bits;
    ASSERT_EQ(sums[15], sums[0]);
  }
}

TEST_P(FoldEveryLevel, Rotation_HasTheSameBitsAndIsItsOwnInverse) {
  SeededRandom random(6);
  for (int log2 = 0; log2 <= 10; ++log2) {
    std::vector<float> values(size_t{1} << log2);
    for (float& value : values) {
      value = static_cast<float>(UniformUnit(random) - 0.5);
    }
    std::vector<float> portable = values;
    std::vector<float> vector = values;
    Rotate(SimdLevel::kPortable, 7, 3, log2, portable.data());
    Rotate(GetParam(), 7, 3, log2, vector.data());
    EXPECT_EQ(vector, portable) << log2;
    RotateBack(SimdLevel::kPortable, 7, 3, log2, portable.data());
    RotateBack(GetParam(), 7, 3, log2, vector.data());
    EXPECT_EQ(vector, portable) << log2;
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(vector[i], values[i], 1e-6);
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
