#include "client/core/clip.h"

#include <cmath>
#include <limits>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/codec/codec.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using plan::CodecName;

std::vector<size_t> Split(size_t count, SeededRandom& random) {
  std::vector<size_t> counts;
  while (count > 0) {
    counts.push_back(1 + UniformBelow(random, count));
    count -= counts.back();
  }
  return counts;
}

// Values of very different sizes, zeros, and some tensors of one size.
std::vector<float> Values(size_t count, SeededRandom& random) {
  std::vector<float> values(count);
  const int scale = static_cast<int>(UniformBelow(random, 60)) - 40;
  const int spread = 1 + static_cast<int>(UniformBelow(random, 12));
  for (float& value : values) {
    const int exponent = scale + static_cast<int>(UniformBelow(
                                     random, static_cast<uint64_t>(spread)));
    value =
        static_cast<float>(std::ldexp(UniformUnit(random) * 2 - 1, exponent));
    if (UniformBelow(random, 10) == 0) value = 0;
  }
  return values;
}

TEST(ClipTest, L2Norm_KnownValues) {
  EXPECT_EQ(L2Norm({}), 0);
  EXPECT_EQ(L2Norm(std::vector<float>{3, -4}), 5);
  EXPECT_EQ(L2Norm(std::vector<float>{3e38F, 0}), double{3e38F});
}

TEST(ClipTest, EncodeClipped_AnyValuesAndBound_DecodedNormIsWithin) {
  SeededRandom random(7);
  for (int trial = 0; trial < 4000; ++trial) {
    const size_t count = 1 + UniformBelow(random, 80);
    const std::vector<size_t> counts = Split(count, random);
    const std::vector<float> delta = Values(count, random);
    const auto codec = UniformBelow(random, 2) == 0 ? CodecName::kFloat16
                                                    : CodecName::kFloat32;
    const double norm = L2Norm(delta);
    // Around the norm, where rounding matters, and far from it.
    double bound = norm * (0.999 + 0.002 * UniformUnit(random));
    if (trial % 3 == 0) bound = norm * UniformUnit(random);
    if (trial % 7 == 0) bound = norm;
    if (!(bound > 0)) bound = 1;
    const Result<ClippedUpdate> out =
        EncodeClipped(codec, counts, delta, bound);
    ASSERT_THAT(out, test::IsOk());
    const auto decoded = aggregation::Decode(codec, counts, out->encoded);
    ASSERT_THAT(decoded, test::IsOk());
    EXPECT_EQ(*decoded, out->decoded);
    EXPECT_EQ(out->norm, L2Norm(*decoded));
    ASSERT_LE(out->norm, bound) << trial;
    // ... and not for being thrown away.
    if (bound > 1e-30) {
      EXPECT_GE(out->norm, std::min(bound, norm) * 0.99) << trial;
    }
    // Clipping changes no direction: one factor for all.
    if (codec == CodecName::kFloat32 && norm > bound && bound > 1e-30) {
      const double factor = out->norm / norm;
      for (size_t i = 0; i < count; ++i) {
        EXPECT_NEAR(static_cast<double>(out->decoded[i]),
                    static_cast<double>(delta[i]) * factor,
                    1e-6 * norm * factor);
      }
    }
    // The same bytes every time.
    EXPECT_EQ(EncodeClipped(codec, counts, delta, bound)->encoded,
              out->encoded);
  }
}

TEST(ClipTest, EncodeClipped_WithinTheBound_IsNotTouched) {
  const std::vector<float> delta = {0.1F, -0.25F, 3};
  const std::vector<size_t> counts = {2, 1};
  for (const CodecName codec : {CodecName::kFloat16, CodecName::kFloat32}) {
    for (const double bound : {0.0, 4.0, 1e9}) {
      const auto out = EncodeClipped(codec, counts, delta, bound);
      ASSERT_THAT(out, test::IsOk());
      EXPECT_EQ(out->encoded, *aggregation::Encode(codec, counts, delta));
    }
  }
}

TEST(ClipTest, EncodeClipped_BoundBelowEveryFloat_LeavesNothing) {
  const std::vector<float> delta = {1, 2, 3};
  const std::vector<size_t> counts = {3};
  for (const CodecName codec : {CodecName::kFloat16, CodecName::kFloat32}) {
    const auto out = EncodeClipped(codec, counts, delta, 1e-300);
    ASSERT_THAT(out, test::IsOk());
    EXPECT_EQ(out->norm, 0);
    // Where one denormal step is more than the bound.
    const auto tiny = EncodeClipped(codec, counts, delta, 1.5e-45);
    ASSERT_THAT(tiny, test::IsOk());
    EXPECT_LE(tiny->norm, 1.5e-45);
  }
}

TEST(ClipTest, EncodeClipped_NotFinite_IsRefused) {
  const std::vector<size_t> counts = {2};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    const std::vector<float> delta = {1, bad};
    EXPECT_THAT(EncodeClipped(CodecName::kFloat16, counts, delta, 1),
                test::StatusIs(StatusCode::kInvalidArgument,
                               ::testing::HasSubstr("finite")));
  }
}

}  // namespace
}  // namespace selvage::client
