#include "aggregation/evaluation_sums.h"

#include <rapidcheck.h>

#include <algorithm>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;

std::vector<MetricValue> Device(double accuracy, int64_t count) {
  return {*MakeMetric(accuracy * static_cast<double>(count), count),
          *MakeMetric(1.5, count)};
}

EvaluationSums SumsOf(const std::map<std::string, int>& devices) {
  EvaluationSums sums(2);
  for (const auto& [name, count] : devices) {
    for (int i = 0; i < count; ++i) {
      EXPECT_THAT(sums.Add(name, Device(0.5, 4)), IsOk());
    }
  }
  return sums;
}

std::vector<std::string> Names(const EvaluationSums& sums) {
  std::vector<std::string> names;
  for (const auto& [name, one] : sums.classes()) names.push_back(name);
  return names;
}

TEST(EvaluationSums, Add_CountsTotalAndClass) {
  EvaluationSums sums(2);
  ASSERT_THAT(sums.Add("phone", Device(0.25, 4)), IsOk());
  ASSERT_THAT(sums.Add("phone", Device(0.75, 4)), IsOk());
  ASSERT_THAT(sums.Add("car", Device(1.0, 8)), IsOk());

  EXPECT_EQ(sums.device_count(), 3u);
  EXPECT_EQ(sums.total().sums()[0].count, 16);
  EXPECT_EQ(sums.total().sums()[0].numerator, int64_t{12} << 20);
  EXPECT_EQ(sums.classes().at("phone").sums()[0].device_count, 2);
  EXPECT_EQ(sums.classes().at("phone").sums()[0].numerator, int64_t{4} << 20);
  EXPECT_EQ(sums.classes().at("car").sums()[0].count, 8);
}

TEST(EvaluationSums, Add_Refused_LeavesNoTrace) {
  EvaluationSums sums(2);
  const Bytes before = sums.Serialize();
  EXPECT_THAT(sums.Add(std::string(65, 'x'), Device(1, 1)),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(sums.Add("x", std::vector<MetricValue>(1)),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(sums.Add("x", {}), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(sums.Serialize(), before);
}

TEST(EvaluationSums, MoreDevicesThanFit_AreRefused_AndLeaveNoTrace) {
  EvaluationSums sums = SumsOf({{"a", 2}});
  Bytes many = sums.Serialize();
  many[8 + 2] = 0x0F;  // 983,042 of 2^20 devices
  const auto parsed = EvaluationSums::Parse(many);
  ASSERT_THAT(parsed, IsOk());
  ASSERT_THAT(sums.MergeWith(*parsed), IsOk());
  const Bytes before = sums.Serialize();
  EXPECT_THAT(sums.MergeWith(*parsed),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(sums.Serialize(), before);
}

TEST(EvaluationSums, AnyOrderAndSplit_GiveTheSameBytes) {
  rc::check([] {
    const auto count = *rc::gen::inRange<size_t>(1, 60);
    struct One {
      std::string name;
      std::vector<MetricValue> metrics;
    };
    std::vector<One> devices;
    EvaluationSums whole(2);
    for (size_t i = 0; i < count; ++i) {
      const int64_t examples = *rc::gen::inRange<int64_t>(0, 1000);
      One one{*rc::gen::element<std::string>("a", "b", "c", ""), {}};
      for (int m = 0; m < 2; ++m) {
        one.metrics.push_back(*MakeMetric(
            examples == 0 ? 0.0 : *rc::gen::inRange(-5000, 5000) / 7.0,
            examples));
      }
      RC_ASSERT(whole.Add(one.name, one.metrics).ok());
      devices.push_back(std::move(one));
    }
    SeededRandom random(*rc::gen::arbitrary<uint64_t>());
    for (size_t i = devices.size(); i > 1; --i) {
      std::swap(devices[i - 1],
                devices[static_cast<size_t>(UniformBelow(random, i))]);
    }
    std::vector<EvaluationSums> parts(*rc::gen::inRange<size_t>(1, 9),
                                      EvaluationSums(2));
    for (size_t i = 0; i < devices.size(); ++i) {
      RC_ASSERT(parts[i % parts.size()]
                    .Add(devices[i].name, devices[i].metrics)
                    .ok());
    }
    EvaluationSums merged(2);
    for (const EvaluationSums& part : parts) {
      const auto parsed = EvaluationSums::Parse(part.Serialize());
      RC_ASSERT(parsed.ok());
      RC_ASSERT(merged.MergeWith(*parsed).ok());
    }
    RC_ASSERT(merged.Serialize() == whole.Serialize());
  });
}

TEST(Suppress, SmallClasses_AreDropped) {
  EvaluationSums sums = SumsOf({{"a", 5}, {"b", 2}, {"c", 4}, {"d", 3}});
  sums.Suppress(4);
  // b and d together are five devices: the total tells nothing of either.
  EXPECT_THAT(Names(sums), ElementsAre("a", "c"));
  EXPECT_EQ(sums.device_count(), 14u);
}

TEST(Suppress, WhatWouldFollowFromTheRest_IsDroppedToo) {
  EvaluationSums sums = SumsOf({{"a", 9}, {"b", 1}, {"c", 4}});
  sums.Suppress(4);
  // total - a - c would be b alone.
  EXPECT_THAT(Names(sums), ElementsAre("a"));

  EvaluationSums two = SumsOf({{"a", 9}, {"b", 1}});
  two.Suppress(4);
  // total - a would be b; nothing can hide it.
  EXPECT_TRUE(two.classes().empty());
}

TEST(Suppress, AMetricThatFewReport_DropsTheClass) {
  EvaluationSums sums = SumsOf({{"a", 8}});
  for (int i = 0; i < 8; ++i) {
    std::vector<MetricValue> metrics = Device(0.5, 4);
    if (i > 0) metrics[1] = {};
    ASSERT_THAT(sums.Add("b", metrics), IsOk());
  }
  sums.Suppress(4);
  // The second metric's rest is one device, whatever is left.
  EXPECT_TRUE(sums.classes().empty());
}

TEST(Suppress, ManyClasses_TheLargestStay) {
  std::map<std::string, int> devices;
  for (int i = 0; i < 70; ++i) {
    devices["c" + std::string(i < 10 ? "0" : "") + std::to_string(i)] =
        i == 3 ? 5 : 2;
  }
  EvaluationSums sums = SumsOf(devices);
  sums.Suppress(2);
  EXPECT_EQ(sums.classes().size(), kReleasedClassesMax);
  EXPECT_TRUE(sums.classes().contains("c03"));
  EXPECT_TRUE(sums.classes().contains("c00"));
  EXPECT_FALSE(sums.classes().contains("c69"));
}

TEST(Parse, DamagedBytes_AreDataLoss) {
  const Bytes good = SumsOf({{"a", 2}, {"b", 1}}).Serialize();
  ASSERT_THAT(EvaluationSums::Parse(good), IsOk());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(EvaluationSums::Parse(ByteSpan(good).first(size)),
                StatusIs(StatusCode::kDataLoss));
  }
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_THAT(EvaluationSums::Parse(longer), StatusIs(StatusCode::kDataLoss));
  Bytes magic = good;
  magic[0] ^= 1;
  EXPECT_THAT(EvaluationSums::Parse(magic), StatusIs(StatusCode::kDataLoss));
  Bytes count = good;
  count[8] = 1;  // fewer devices than a metric has
  EXPECT_THAT(EvaluationSums::Parse(count), StatusIs(StatusCode::kDataLoss));
}

TEST(DigestOf, Metrics_EveryValueCounts) {
  const std::vector<MetricValue> metrics = Device(0.5, 4);
  std::vector<MetricValue> other = metrics;
  other[1].numerator += 1;
  EXPECT_EQ(DigestOf(metrics), DigestOf(metrics));
  EXPECT_NE(DigestOf(metrics), DigestOf(other));
  EXPECT_NE(DigestOf({}), DigestOf(metrics));
}

}  // namespace
}  // namespace selvage::aggregation
