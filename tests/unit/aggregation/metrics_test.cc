#include "aggregation/metrics.h"

#include <rapidcheck.h>

#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kUnit = int64_t{1} << 20;

MetricValue Value(double score_sum, int64_t count) {
  const Result<MetricValue> value = MakeMetric(score_sum, count);
  EXPECT_THAT(value, IsOk());
  return *value;
}

TEST(MakeMetric, Scores_AreFixedPointRoundedHalfToEven) {
  EXPECT_EQ(Value(3.5, 4),
            (MetricValue{.numerator = 7 * kUnit / 2, .count = 4}));
  EXPECT_EQ(Value(0x1p-20, 1).numerator, 1);
  EXPECT_EQ(Value(0x1p-21, 1).numerator, 0);
  EXPECT_EQ(Value(3 * 0x1p-21, 1).numerator, 2);
  EXPECT_EQ(Value(-3 * 0x1p-21, 1).numerator, -2);
  EXPECT_EQ(Value(0, 0), MetricValue{});
}

TEST(MakeMetric, LargeScores_AreClamped) {
  EXPECT_EQ(Value(1e300, 1).numerator, kMetricNumeratorMax);
  EXPECT_EQ(Value(-1e300, 1).numerator, -kMetricNumeratorMax);
  EXPECT_EQ(Value(std::numeric_limits<double>::infinity(), 1).numerator,
            kMetricNumeratorMax);
  EXPECT_EQ(Value(0x1p22, 1).numerator, kMetricNumeratorMax);
}

TEST(MakeMetric, NanOrBadCount_IsRefused) {
  EXPECT_THAT(MakeMetric(std::nan(""), 1),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("nan")));
  EXPECT_THAT(MakeMetric(1, -1),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("-1 examples")));
  EXPECT_THAT(MakeMetric(1, kMetricCountMax + 1),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(MakeMetric(1, kMetricCountMax), IsOk());
  EXPECT_THAT(MakeMetric(1, 0), StatusIs(StatusCode::kInvalidArgument,
                                         HasSubstr("without an example")));
}

TEST(MeanOf, Value_IsScorePerExample) {
  EXPECT_EQ(MeanOf(Value(3.5, 4)), 0.875);
  EXPECT_EQ(MeanOf(MetricValue{}), 0);
}

TEST(MetricSums, TwoDevices_AddByHand) {
  MetricSums sums(2);
  const std::vector<MetricValue> first = {Value(6, 10), Value(20, 10)};
  const std::vector<MetricValue> second = {Value(1, 4), Value(-3, 4)};
  EXPECT_THAT(sums.Add(first), IsOk());
  EXPECT_THAT(sums.Add(second), IsOk());
  const MetricSums::Sum& accuracy = sums.sums()[0];
  EXPECT_EQ(accuracy.numerator, 7 * kUnit);
  EXPECT_EQ(accuracy.count, 14);
  EXPECT_EQ(accuracy.device_count, 2);
  EXPECT_EQ(accuracy.histogram[38], 1u);  // 0.6 * 64 = 38.4
  EXPECT_EQ(accuracy.histogram[16], 1u);  // 0.25 * 64
  const MetricSums::Sum& loss = sums.sums()[1];
  EXPECT_EQ(loss.numerator, 17 * kUnit);
  EXPECT_EQ(loss.histogram[63], 1u);  // 2.0, clamped
  EXPECT_EQ(loss.histogram[0], 1u);   // negative, clamped
  EXPECT_EQ(accuracy.outside_count, 0);
  EXPECT_EQ(loss.outside_count, 2);
}

TEST(MetricSums, EndsOfTheRange_AreInside) {
  MetricSums sums(1);
  const auto outside_after = [&sums](int64_t numerator) {
    const MetricValue value = {.numerator = numerator, .count = 3};
    EXPECT_THAT(sums.Add({&value, 1}), IsOk());
    return sums.sums()[0].outside_count;
  };
  EXPECT_EQ(outside_after(0), 0);
  EXPECT_EQ(outside_after(3 * kUnit), 0);
  EXPECT_EQ(outside_after(3 * kUnit + 1), 1);
  EXPECT_EQ(outside_after(-1), 2);
  const MetricSums same = sums;
  ASSERT_THAT(sums.MergeWith(same), IsOk());
  EXPECT_EQ(sums.sums()[0].outside_count, 4);
}

// What version 1 wrote: the same without the outside counts.
Bytes AsVersion1(const MetricSums& sums) {
  constexpr size_t kHeader = 16;
  constexpr size_t kSum = 3 * 8 + 64 * 4;
  const Bytes bytes = sums.Serialize();
  Bytes out(bytes.begin(), bytes.begin() + kHeader);
  out[4] = 1;
  for (size_t at = kHeader; at < bytes.size(); at += kSum + 8) {
    AppendBytes(out, ByteSpan(bytes).subspan(at, kSum));
  }
  return out;
}

TEST(MetricSumsParse, Version1_WhatMayBeOutsideCounts) {
  MetricSums sums(2);
  const std::vector<MetricValue> middle = {Value(1, 2), Value(1, 2)};
  const std::vector<MetricValue> high = {Value(1, 2), Value(9, 2)};
  ASSERT_THAT(sums.Add(middle), IsOk());
  ASSERT_THAT(sums.Add(high), IsOk());
  const Bytes bytes = AsVersion1(sums);
  const Result<MetricSums> parsed = MetricSums::Parse(bytes);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->sums(), sums.sums());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(MetricSums::Parse(ByteSpan(bytes).first(size)),
                StatusIs(StatusCode::kDataLoss));
  }
  // At an end, though inside: no longer known.
  MetricSums perfect(1);
  const MetricValue one = Value(2, 2);
  ASSERT_THAT(perfect.Add({&one, 1}), IsOk());
  EXPECT_EQ(perfect.sums()[0].outside_count, 0);
  EXPECT_EQ(MetricSums::Parse(AsVersion1(perfect))->sums()[0].outside_count, 1);
}

TEST(MetricSumsParse, MoreOutsideThanAtTheEnds_IsDataLoss) {
  MetricSums sums(1);
  const MetricValue half = Value(1, 2);
  ASSERT_THAT(sums.Add({&half, 1}), IsOk());
  Bytes bytes = sums.Serialize();
  bytes[bytes.size() - 8] = 1;
  EXPECT_THAT(MetricSums::Parse(bytes),
              StatusIs(StatusCode::kDataLoss, HasSubstr("contradicts")));
}

TEST(MetricSums, BucketEdges_BelongToTheUpperBucket) {
  for (int64_t bucket = 0; bucket < 64; ++bucket) {
    MetricSums sums(1);
    const MetricValue edge = {.numerator = bucket * kUnit / 64 * 7, .count = 7};
    const MetricValue below = {.numerator = (bucket + 1) * kUnit / 64 * 7 - 1,
                               .count = 7};
    EXPECT_THAT(sums.Add({&edge, 1}), IsOk());
    EXPECT_THAT(sums.Add({&below, 1}), IsOk());
    EXPECT_EQ(sums.sums()[0].histogram[static_cast<size_t>(bucket)], 2u);
  }
}

TEST(MetricSums, DeviceWithoutExamples_IsNotCounted) {
  MetricSums sums(1);
  const MetricValue none;
  EXPECT_THAT(sums.Add({&none, 1}), IsOk());
  EXPECT_EQ(sums.sums()[0], MetricSums::Sum{});
}

TEST(MetricSums, BadValue_LeavesNoTrace) {
  MetricSums sums(2);
  const std::vector<MetricValue> good = {Value(1, 2), Value(1, 2)};
  ASSERT_THAT(sums.Add(good), IsOk());
  const Bytes before = sums.Serialize();
  for (const MetricValue& bad :
       {MetricValue{.numerator = kMetricNumeratorMax + 1, .count = 1},
        MetricValue{.numerator = -kMetricNumeratorMax - 1, .count = 1},
        MetricValue{.numerator = INT64_MIN, .count = 1},
        MetricValue{.numerator = 0, .count = -1},
        MetricValue{.numerator = 0, .count = kMetricCountMax + 1},
        MetricValue{.numerator = 1, .count = 0}}) {
    const std::vector<MetricValue> device = {good[0], bad};
    EXPECT_THAT(sums.Add(device), StatusIs(StatusCode::kInvalidArgument,
                                           HasSubstr("metric 1: ")));
    EXPECT_EQ(sums.Serialize(), before);
  }
  EXPECT_THAT(sums.Add({good.data(), 1}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 metrics")));
  EXPECT_THAT(sums.MergeWith(MetricSums(3)),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(sums.Serialize(), before);
}

TEST(MetricSums, MostDevices_NeitherOverflowNorGrow) {
  MetricSums sums(1);
  const MetricValue most = {.numerator = kMetricNumeratorMax,
                            .count = kMetricCountMax};
  ASSERT_THAT(sums.Add({&most, 1}), IsOk());
  while (sums.sums()[0].device_count < kMetricDevicesMax) {
    const MetricSums half = sums;
    ASSERT_THAT(sums.MergeWith(half), IsOk());
  }
  EXPECT_EQ(sums.sums()[0].numerator, int64_t{1} << 62);
  EXPECT_THAT(MetricSums::Parse(sums.Serialize()), IsOk());
  const Bytes before = sums.Serialize();
  EXPECT_THAT(sums.Add({&most, 1}), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(sums.MergeWith(sums), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(sums.Serialize(), before);
}

TEST(MetricSums, AnyOrderAndSplit_GivesTheSameBits) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const size_t metrics = UniformBelow(random, 4);
    std::vector<std::vector<MetricValue>> devices(UniformBelow(random, 100));
    for (auto& device : devices) {
      for (size_t m = 0; m < metrics; ++m) {
        const auto count = static_cast<int64_t>(UniformBelow(random, 50));
        const double score = (UniformUnit(random) - 0.2) * 80;
        device.push_back(*MakeMetric(count == 0 ? 0 : score, count));
      }
    }
    MetricSums in_order(metrics);
    for (const auto& device : devices) RC_ASSERT(in_order.Add(device).ok());
    Shuffle(devices, random);
    MetricSums shards[2] = {MetricSums(metrics), MetricSums(metrics)};
    for (const auto& device : devices) {
      RC_ASSERT(shards[UniformBelow(random, 2)].Add(device).ok());
    }
    RC_ASSERT(shards[0].MergeWith(shards[1]).ok());
    RC_ASSERT(shards[0].sums() == in_order.sums());
    const Bytes bytes = shards[0].Serialize();
    const Result<MetricSums> parsed = MetricSums::Parse(bytes);
    RC_ASSERT(parsed.ok());
    RC_ASSERT(parsed->Serialize() == bytes);
    RC_ASSERT(parsed->sums() == in_order.sums());
  }));
}

TEST(MetricSumsParse, TruncatedOrAltered_IsDataLossOrConsistent) {
  MetricSums sums(2);
  const std::vector<MetricValue> device = {Value(1, 2), Value(5, 9)};
  ASSERT_THAT(sums.Add(device), IsOk());
  const Bytes bytes = sums.Serialize();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(MetricSums::Parse(ByteSpan(bytes).first(size)),
                StatusIs(StatusCode::kDataLoss));
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    Bytes bad = bytes;
    bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ (1u << (bit % 8)));
    const Result<MetricSums> parsed = MetricSums::Parse(bad);
    if (!parsed.ok()) {
      EXPECT_THAT(parsed, StatusIs(StatusCode::kDataLoss));
      continue;
    }
    // Only numerators and counts can change unnoticed (the seal is for that).
    EXPECT_GE(bit / 8, 16u);
    EXPECT_EQ(parsed->Serialize(), bad);
  }
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_THAT(MetricSums::Parse(longer), StatusIs(StatusCode::kDataLoss));
}

}  // namespace
}  // namespace selvage::aggregation
