#include "aggregation/exact_sum.h"

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/codec/codec.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kOne = int64_t{1} << 28;  // 1.0 where max_abs is 8

SumLayout Layout(std::vector<SumRange> ranges) {
  return {.ranges = std::move(ranges), .update_count_max = 1000};
}

ExactSum NewSum(SumLayout layout) {
  Result<ExactSum> sum = ExactSum::Create(std::move(layout));
  EXPECT_THAT(sum, IsOk());
  return *std::move(sum);
}

Status AddOne(ExactSum& sum, const std::vector<float>& values,
              uint32_t weight) {
  return sum.Add({.values = values, .weight = weight});
}

TEST(ScaleFor, PowersOfTwoAndOthers_IsTheLargestThatFits) {
  EXPECT_EQ(ScaleFor(8), 0x1p28);
  EXPECT_EQ(ScaleFor(0x1p24), 0x1p7);
  EXPECT_EQ(ScaleFor(std::nextafter(8, 0)), 0x1p28);
  EXPECT_EQ(ScaleFor(std::nextafter(8, 9)), 0x1p27);
  EXPECT_EQ(ScaleFor(10), 0x1p27);  // 2^28 * 10 > 2^31
  EXPECT_EQ(ScaleFor(0.1), 0x1p34);
  EXPECT_EQ(ScaleFor(1), 0x1p31);
}

TEST(ScaleFor, TinyBound_IsCappedWhereFloatsEnd) {
  EXPECT_EQ(ScaleFor(0x1p-149), 0x1p180);
  EXPECT_EQ(ScaleFor(0x1p-150), 0x1p180);
  EXPECT_EQ(ScaleFor(std::numeric_limits<double>::denorm_min()), 0x1p180);
}

TEST(SumLayout, MaxAbsOutOfRange_IsRefused) {
  for (const double max_abs :
       {0.0, -1.0, std::nextafter(0x1p24, 0x1p25), std::nan(""),
        std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(
        Layout({{.count = 1}, {.count = 1, .max_abs = max_abs}}).Validate(),
        StatusIs(StatusCode::kInvalidArgument,
                 AllOf(HasSubstr("max_abs of tensor 1"), HasSubstr("2^24"))));
  }
  EXPECT_THAT(Layout({{.count = 1, .max_abs = 0x1p24}}).Validate(), IsOk());
  EXPECT_THAT(Layout({{.count = 1, .max_abs = 1e-300}}).Validate(), IsOk());
}

TEST(SumLayout, WeightMaxOutOfRange_IsRefused) {
  SumLayout layout = Layout({{.count = 1}});
  for (const uint32_t weight_max : {0u, 65'536u}) {
    layout.weight_max = weight_max;
    EXPECT_THAT(ExactSum::Create(layout), StatusIs(StatusCode::kInvalidArgument,
                                                   HasSubstr("weight_max")));
  }
}

TEST(SumLayout, OverflowBound_IsRefusedOnePastTheEdge) {
  // 65,535 * 65,537 = 2^32 - 1 is exactly what 2^63 - 1 has room for.
  struct {
    uint32_t weight_max;
    uint64_t count_max;
  } const edges[] = {{65'535, 65'537},
                     {1, 4'294'967'295},
                     {2, 2'147'483'647},
                     {10'000, 429'496},
                     {3, 1'431'655'765}};
  for (const auto& edge : edges) {
    SumLayout layout = {.ranges = {{.count = 1}},
                        .weight_max = edge.weight_max,
                        .update_count_max = edge.count_max};
    EXPECT_THAT(ExactSum::Create(layout), IsOk());
    ++layout.update_count_max;
    EXPECT_THAT(ExactSum::Create(layout),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("overflow")));
    layout.update_count_max = std::numeric_limits<uint64_t>::max();
    EXPECT_THAT(ExactSum::Create(layout),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("overflow")));
  }
}

TEST(ExactSum, TwoUpdates_MatchValuesByHand) {
  ExactSum sum = NewSum(Layout({{.count = 2}, {.count = 1, .max_abs = 4}}));
  EXPECT_THAT(AddOne(sum, {1.0f, -0.5f, 3.0f}, 3), IsOk());
  EXPECT_THAT(AddOne(sum, {-2.0f, 0x1p-28f, 0.25f}, 5), IsOk());
  EXPECT_THAT(sum.sums(), ElementsAre(-7 * kOne, -3 * kOne / 2 + 5,
                                      (9 * kOne + 5 * kOne / 4) * 2));
  EXPECT_EQ(sum.update_count(), 2u);
  EXPECT_EQ(sum.weight_sum(), 8u);
  const Result<std::vector<double>> mean = std::move(sum).FinishMean();
  ASSERT_THAT(mean, IsOk());
  EXPECT_THAT(
      *mean, ElementsAre(DoubleEq(-7.0 / 8), DoubleEq((-1.5 + 5 * 0x1p-28) / 8),
                         DoubleEq(10.25 / 8)));
}

TEST(ExactSum, Ties_RoundHalfToEven) {
  ExactSum sum = NewSum(Layout({{.count = 6}}));
  EXPECT_THAT(AddOne(sum,
                     {0.5f * 0x1p-28f, 1.5f * 0x1p-28f, 2.5f * 0x1p-28f,
                      -0.5f * 0x1p-28f, -1.5f * 0x1p-28f, -2.5f * 0x1p-28f},
                     1),
              IsOk());
  EXPECT_THAT(sum.sums(), ElementsAre(0, 2, 2, 0, -2, -2));
}

TEST(ExactSum, ZerosAndDenormals_AddNothing) {
  ExactSum sum = NewSum(Layout({{.count = 5}}));
  EXPECT_THAT(AddOne(sum, {-0.0f, 0.0f, FLT_MIN, -0x1p-149f, 0x1p-149f}, 9),
              IsOk());
  EXPECT_THAT(sum.sums(), ElementsAre(0, 0, 0, 0, 0));
  EXPECT_EQ(sum.weight_sum(), 9u);
  const std::vector<double> mean = *std::move(sum).FinishMean();
  EXPECT_THAT(mean, ElementsAre(0, 0, 0, 0, 0));
}

TEST(ExactSum, DenormalBound_KeepsEveryDenormalApart) {
  ExactSum sum = NewSum(Layout({{.count = 2, .max_abs = 0x1p-147}}));
  EXPECT_THAT(AddOne(sum, {0x1p-149f, -0x1.8p-148f}, 1), IsOk());
  EXPECT_THAT(AddOne(sum, {0x1p-147f, 0}, 1),
              StatusIs(StatusCode::kInvalidArgument));
  const std::vector<double> mean = *std::move(sum).FinishMean();
  EXPECT_THAT(mean, ElementsAre(0x1p-149, -0x1.8p-148));
}

TEST(ExactSum, BoundThatIsNoFloat_IsStillExclusive) {
  // 0.1 lies between two floats: the lower one is in, the upper one is not.
  const float lower = std::nextafter(0.1f, 0.0f);
  ASSERT_LT(double{lower}, 0.1);
  ASSERT_GT(double{0.1f}, 0.1);
  ExactSum sum = NewSum(Layout({{.count = 1, .max_abs = 0.1}}));
  EXPECT_THAT(AddOne(sum, {lower}, 1), IsOk());
  EXPECT_THAT(AddOne(sum, {-lower}, 1), IsOk());
  EXPECT_THAT(AddOne(sum, {0.1f}, 1), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(AddOne(sum, {-0.1f}, 1), StatusIs(StatusCode::kInvalidArgument));
}

TEST(ExactSum, RejectedUpdate_SaysWhyAndLeavesNoTrace) {
  const SumLayout layout =
      Layout({{.count = 40}, {.count = 30, .max_abs = 65536}});
  const std::vector<float> good(70, 1.25f);
  const auto with = [&good](size_t at, float value) {
    std::vector<float> values = good;
    values[at] = value;
    return values;
  };
  struct {
    std::vector<float> values;
    uint32_t weight;
    const char* message;
  } const cases[] = {
      {with(0, kNan), 1, "tensor 0, element 0 is nan"},
      {with(39, -kNan), 1, "tensor 0, element 39 is"},
      {with(45, kInfinity), 1, "tensor 1, element 5 is inf"},
      {with(69, -kInfinity), 1, "tensor 1, element 29 is -inf"},
      {with(17, 8.0f), 1, "element 17 is 8, but |value| < 8 is required"},
      {with(17, -8.0f), 1, "element 17 is -8"},
      {with(40, 65536.0f), 1, "|value| < 65536 is required"},
      {std::vector<float>(69), 1, "69 values, but the layout has 70"},
      {std::vector<float>(71), 1, "71 values"},
      {{}, 1, "0 values"},
      {good, 0, "weight 0 is not in 1..65535"},
      {good, 65'536, "weight 65536 is not in 1..65535"},
  };
  ExactSum sum = NewSum(layout);
  ASSERT_THAT(AddOne(sum, good, 7), IsOk());
  const Bytes before = sum.Serialize();
  for (const auto& bad : cases) {
    const auto refused =
        StatusIs(StatusCode::kInvalidArgument, HasSubstr(bad.message));
    const WeightedUpdate update = {.values = bad.values, .weight = bad.weight};
    EXPECT_THAT(ExactSum::Check(layout, update), refused);
    EXPECT_THAT(sum.Add(update), refused);
    EXPECT_EQ(sum.Serialize(), before) << bad.message;
    // Also in the middle of others, which are not added either.
    std::vector<WeightedUpdate> several(9, {.values = good, .weight = 3});
    several[6] = update;
    EXPECT_THAT(sum.AddAll(several), StatusIs(StatusCode::kInvalidArgument,
                                              AllOf(HasSubstr("update 6: "),
                                                    HasSubstr(bad.message))));
    EXPECT_EQ(sum.Serialize(), before) << bad.message;
  }
  EXPECT_THAT(ExactSum::Check(layout, {.values = good, .weight = 65'535}),
              IsOk());
}

TEST(ExactSum, BadValueFarInside_TakesBackWhatWasFolded) {
  // Several tiles, several groups, several ranges of the walk.
  const SumLayout layout = Layout({{.count = 40'000}, {.count = 20'000}});
  std::vector<float> good(60'000);
  for (size_t i = 0; i < good.size(); ++i) {
    good[i] = static_cast<float>(i % 1000) * 0x1p-9f;
  }
  ExactSum sum = NewSum(layout);
  ASSERT_THAT(AddOne(sum, good, 2), IsOk());
  const Bytes before = sum.Serialize();
  for (const size_t at : {0u, 16'383u, 16'384u, 39'999u, 40'000u, 59'999u}) {
    std::vector<float> bad = good;
    bad[at] = 9;
    for (const size_t who : {0u, 4u, 5u, 11u}) {
      std::vector<WeightedUpdate> updates(12,
                                          {.values = good, .weight = 65535});
      updates[who].values = bad;
      EXPECT_THAT(
          sum.AddAll(updates),
          StatusIs(StatusCode::kInvalidArgument,
                   AllOf(HasSubstr("update " + std::to_string(who) + ": "),
                         HasSubstr("element " + std::to_string(at % 40'000) +
                                   " is 9"))));
      EXPECT_EQ(sum.Serialize(), before);
    }
  }
}

TEST(ExactSum, UpdateCountMax_IsTheLastAccepted) {
  SumLayout layout = Layout({{.count = 1}});
  layout.update_count_max = 3;
  ExactSum sum = NewSum(layout);
  const std::vector<float> one = {1};
  const std::vector<WeightedUpdate> two(2, {.values = one, .weight = 1});
  EXPECT_THAT(sum.AddAll(two), IsOk());
  const Bytes before = sum.Serialize();
  EXPECT_THAT(sum.AddAll(two), StatusIs(StatusCode::kResourceExhausted,
                                        HasSubstr("update_count_max (3)")));
  EXPECT_EQ(sum.Serialize(), before);
  EXPECT_THAT(sum.AddAll({}), IsOk());
  EXPECT_EQ(sum.Serialize(), before);
  ExactSum other = NewSum(layout);
  EXPECT_THAT(other.AddAll(two), IsOk());
  EXPECT_THAT(sum.MergeSerialized(other.Serialize()),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(sum.MergeWith(std::move(other)),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(sum.Serialize(), before);
  EXPECT_THAT(AddOne(sum, one, 1), IsOk());
  EXPECT_THAT(AddOne(sum, one, 1), StatusIs(StatusCode::kResourceExhausted));
}

TEST(ExactSum, WorstCaseAtTheEdge_DoesNotOverflow) {
  SumLayout layout = {.ranges = {{.count = 1}, {.count = 1}},
                      .weight_max = 65'535,
                      .update_count_max = 65'537};
  ExactSum sum = NewSum(layout);
  const float top = std::nextafter(8.0f, 0.0f);
  const std::vector<float> values = {top, -top};
  const std::vector<WeightedUpdate> updates(
      65'537, {.values = values, .weight = 65'535});
  ASSERT_THAT(sum.AddAll(updates), IsOk());
  EXPECT_EQ(sum.weight_sum(), 0xffff'ffffu);
  const int64_t expected = ((int64_t{1} << 31) - 128) * 0xffff'ffff;
  EXPECT_THAT(sum.sums(), ElementsAre(expected, -expected));
  EXPECT_THAT(ExactSum::Parse(layout, sum.Serialize()), IsOk());
  const std::vector<double> mean = *std::move(sum).FinishMean();
  EXPECT_THAT(mean, ElementsAre(top, -top));
}

TEST(ExactSum, WorstCaseByMerging_DoesNotOverflow) {
  SumLayout layout = {.ranges = {{.count = 1}},
                      .weight_max = 1,
                      .update_count_max = 0xffff'ffff};
  ExactSum sum = NewSum(layout);
  const std::vector<float> top = {-std::nextafter(8.0f, 0.0f)};
  ASSERT_THAT(AddOne(sum, top, 1), IsOk());
  for (int doubling = 1; doubling < 32; ++doubling) {
    ASSERT_THAT(sum.MergeSerialized(sum.Serialize()), IsOk());
    ASSERT_THAT(AddOne(sum, top, 1), IsOk());
  }
  EXPECT_EQ(sum.update_count(), 0xffff'ffffu);
  EXPECT_THAT(sum.sums(),
              ElementsAre(-((int64_t{1} << 31) - 128) * 0xffff'ffff));
  EXPECT_THAT(AddOne(sum, top, 1), StatusIs(StatusCode::kResourceExhausted));
}

TEST(ExactSum, MergeOfOtherLayout_IsRefused) {
  const SumLayout layout = Layout({{.count = 2}});
  for (const SumLayout& foreign :
       {Layout({{.count = 2, .max_abs = 4}}), Layout({{.count = 3}}),
        Layout({{.count = 1}, {.count = 1}}),
        SumLayout{.ranges = {{.count = 2}},
        .weight_max = 10,
        .update_count_max = 1000},
        SumLayout{.ranges = {{.count = 2}}, .update_count_max = 999}}) {
    ExactSum sum = NewSum(layout);
    ASSERT_THAT(AddOne(sum, {1, 2}, 1), IsOk());
    const Bytes before = sum.Serialize();
    ExactSum other = NewSum(foreign);
    EXPECT_THAT(sum.MergeSerialized(other.Serialize()),
                StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(ExactSum::Parse(layout, other.Serialize()),
                StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(sum.MergeWith(std::move(other)),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("layout")));
    EXPECT_EQ(sum.Serialize(), before);
  }
}

TEST(ExactSum, FinishMeanOfNothing_IsRefused) {
  EXPECT_THAT(NewSum(Layout({{.count = 2}})).FinishMean(),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST(ExactSum, FinishMean_IsCorrectlyRounded) {
  // Sums beyond 2^53, where converting the sum first would round twice: checked
  // with the remainder, in integers.
  SumLayout layout = {.ranges = {{.count = 1, .max_abs = 1}},
                      .weight_max = 65'535,
                      .update_count_max = 65'537};
  uint32_t state = 12345;
  const auto next = [&state] {
    state = state * 1'664'525u + 1'013'904'223u;
    return state >> 8;
  };
  for (int round = 0; round < 300; ++round) {
    ExactSum sum = NewSum(layout);
    for (int u = 0; u < 80; ++u) {
      const float value = 1.0f - static_cast<float>(next() >> 4) * 0x1p-24f;
      ASSERT_THAT(
          AddOne(sum, {round % 2 == 0 ? value : -value}, 1 + next() % 65'535),
          IsOk());
    }
    const auto numerator = static_cast<long double>(sum.sums()[0]);
    const auto weight = static_cast<long double>(sum.weight_sum());
    const double mean = (*std::move(sum).FinishMean())[0];
    // |mean * 2^31 * W - sum| <= half a step of mean, times 2^31 * W. With the
    // 64-bit significand of long double the products are within 2^-10 of it.
    const long double step =
        std::nextafter(std::abs(mean), 2.0) - std::abs(mean);
    const long double error =
        std::abs(mean * 0x1p31L - numerator / weight) / (step * 0x1p31L);
    EXPECT_LE(error, 0.5L + 0x1p-9L);
  }
}

TEST(ExactSum, FinishMeanJustBesideATie_LooksAtTheWholeRemainder) {
  // (a W + 1) / W with W = 2^32 - 1 is a + 2^-32 + 2^-64 + ..., a hair above
  // the middle between the doubles a and a + 2^-31.
  const SumLayout layout = {.ranges = {{.count = 2, .max_abs = 1}},
                            .weight_max = 65'535,
                            .update_count_max = 65'537};
  constexpr uint64_t kWeights = 0xffff'ffff;
  constexpr int64_t kQuotient = (1 << 21) + 2;
  const int64_t sum = kQuotient * int64_t{kWeights} + 1;
  ASSERT_GT(sum, int64_t{1} << 53);
  Bytes bytes = NewSum(layout).Serialize();
  bytes.resize(4 + 4 + 32);
  AppendLe(bytes, uint64_t{65'537});
  AppendLe(bytes, kWeights);
  AppendLe(bytes, uint8_t{7});  // bytes a number: sum is above 2^47
  AppendLe(bytes, sum);
  bytes.pop_back();
  AppendLe(bytes, -sum);
  bytes.pop_back();
  Result<ExactSum> parsed = ExactSum::Parse(layout, bytes);
  ASSERT_THAT(parsed, IsOk());
  const double expected = (double{kQuotient} + 0x1p-31) * 0x1p-31;
  EXPECT_THAT(*(*std::move(parsed)).FinishMean(),
              ElementsAre(expected, -expected));
}

TEST(Serialize, RoundTrip_KeepsEverything) {
  const SumLayout layout = Layout({{.count = 3}, {.count = 2, .max_abs = 0.7}});
  ExactSum sum = NewSum(layout);
  for (int round = 0; round < 3; ++round) {
    const Bytes bytes = sum.Serialize();
    EXPECT_EQ(bytes.size(), sum.serialized_size());
    const Result<ExactSum> parsed = ExactSum::Parse(layout, bytes);
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(parsed->Serialize(), bytes);
    EXPECT_EQ(parsed->update_count(), sum.update_count());
    EXPECT_EQ(parsed->weight_sum(), sum.weight_sum());
    ASSERT_THAT(AddOne(sum, {1, -2, 7.5f, 0.25f, -0.6f}, 11), IsOk());
  }
}

TEST(SerializeTo, Pieces_AreSerializesBytesAndErrorsStopIt) {
  ExactSum sum = NewSum(Layout({{.count = 5}}));
  ASSERT_THAT(AddOne(sum, {1, 2, 3, 4, 5}, 1), IsOk());
  Bytes collected;
  EXPECT_THAT(sum.SerializeTo([&collected](ByteSpan piece) {
    AppendBytes(collected, piece);
    return OkStatus();
  }),
              IsOk());
  EXPECT_EQ(collected, sum.Serialize());
  int calls = 0;
  EXPECT_THAT(sum.SerializeTo([&calls](ByteSpan) {
    ++calls;
    return Unavailable("disk full");
  }),
              StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(calls, 1);
}

TEST(Parse, EveryTruncationAndExtension_IsDataLoss) {
  const SumLayout layout = Layout({{.count = 4}});
  ExactSum sum = NewSum(layout);
  ASSERT_THAT(AddOne(sum, {1, 2, 3, 4}, 1), IsOk());
  Bytes bytes = sum.Serialize();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const ByteSpan truncated = ByteSpan(bytes).first(size);
    EXPECT_THAT(ExactSum::Parse(layout, truncated),
                StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(sum.MergeSerialized(truncated),
                StatusIs(StatusCode::kDataLoss));
  }
  bytes.push_back(0);
  EXPECT_THAT(ExactSum::Parse(layout, bytes), StatusIs(StatusCode::kDataLoss));
}

// Of blocks before the bad one, and of those alone.
TEST(MergeSerialized, BadBlockAfterGoodOnes_LeavesTheSumAsItWas) {
  const size_t count = 3 * 4096 + 5;  // blocks of narrow.h, and a bit
  const SumLayout layout = Layout({{.count = count}});
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(i % 97) / 97 + 3;  // of one width
  }
  ExactSum sum = NewSum(layout);
  ASSERT_THAT(AddOne(sum, values, 3), IsOk());
  const Bytes before = sum.Serialize();
  constexpr size_t kHeader = 4 + 4 + 32 + 8 + 8;
  const size_t width = before[kHeader];
  ASSERT_GT(width, 1u);
  for (size_t block = 0; block < 4; ++block) {
    const size_t begin = kHeader + block * (1 + 4096 * width);
    Bytes no_width = before;
    no_width[begin] = 9;
    Bytes beyond = before;  // the largest number of so many bytes
    for (size_t i = 0; i < width; ++i) {
      beyond[begin + 1 + 4 * width + i] = i + 1 < width ? 0xff : 0x7f;
    }
    const ByteSpan cut = ByteSpan(before).first(begin);
    for (const Bytes& bad : {no_width, beyond, Bytes(cut.begin(), cut.end())}) {
      EXPECT_THAT(sum.MergeSerialized(bad), StatusIs(StatusCode::kDataLoss));
      EXPECT_EQ(sum.Serialize(), before) << block;
    }
    EXPECT_THAT(
        sum.MergeSerialized(beyond),
        StatusIs(StatusCode::kDataLoss,
                 HasSubstr("element " + std::to_string(block * 4096 + 4))));
  }
  Bytes longer = before;
  longer.push_back(0);
  EXPECT_THAT(sum.MergeSerialized(longer), StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(sum.Serialize(), before);
}

TEST(Parse, BitFlipsInTheHeader_AreDataLossOrStillPossible) {
  const SumLayout layout = Layout({{.count = 2}});
  ExactSum sum = NewSum(layout);
  ASSERT_THAT(AddOne(sum, {7.9f, -7.9f}, 100), IsOk());
  const Bytes good = sum.Serialize();
  constexpr size_t kCounts = 4 + 4 + 32;
  for (size_t bit = 0; bit < (kCounts + 16) * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ (1u << (bit % 8)));
    const Result<ExactSum> parsed = ExactSum::Parse(layout, bad);
    if (bit / 8 < kCounts) {
      EXPECT_THAT(parsed, StatusIs(StatusCode::kDataLoss)) << bit;
    } else if (parsed.ok()) {
      // Counts that fit the sums cannot be told from right ones (the seal does
      // that); they never break the bounds.
      EXPECT_LE(parsed->update_count(), layout.update_count_max);
      EXPECT_GE(parsed->weight_sum(), parsed->update_count());
    } else {
      EXPECT_THAT(parsed, StatusIs(StatusCode::kDataLoss)) << bit;
    }
  }
}

TEST(Parse, SumsBeyondTheirWeight_AreDataLoss) {
  const SumLayout layout = Layout({{.count = 1}});
  ExactSum sum = NewSum(layout);
  ASSERT_THAT(AddOne(sum, {1}, 2), IsOk());
  Bytes bytes = sum.Serialize();
  const auto with_sum = [&bytes](int64_t value) {
    Bytes changed = bytes;
    changed.resize(4 + 4 + 32 + 8 + 8);
    const int64_t magnitude = value ^ (value >> 63);
    const auto width = static_cast<uint8_t>(
        std::bit_width(static_cast<uint64_t>(magnitude)) / 8 + 1);
    changed.push_back(width);
    AppendLe(changed, value);
    changed.resize(changed.size() - (8 - width));
    return changed;
  };
  const int64_t most = int64_t{2} << 31;
  EXPECT_THAT(ExactSum::Parse(layout, with_sum(most)), IsOk());
  EXPECT_THAT(ExactSum::Parse(layout, with_sum(-most)), IsOk());
  for (const int64_t value : {most + 1, -most - 1, INT64_MAX, INT64_MIN}) {
    EXPECT_THAT(ExactSum::Parse(layout, with_sum(value)),
                StatusIs(StatusCode::kDataLoss, HasSubstr("element 0")));
  }
}

TEST(AddAllEncoded, RejectedUpdate_SaysWhyAndLeavesNoTrace) {
  const SumLayout layout = Layout({{.count = 20}, {.count = 1, .max_abs = 4}});
  const std::vector<size_t> counts = {20, 1};
  const std::vector<float> good(21, 0.5f);
  std::vector<float> large = good;
  large[20] = 4;
  ExactSum sum = NewSum(layout);
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    const Bytes fine = *Encode(codec, counts, good);
    const Bytes beyond = *Encode(codec, counts, large);
    Bytes truncated = fine;
    truncated.pop_back();
    Bytes not_finite = fine;
    not_finite[fine.size() - 1] = 0x7f;
    not_finite[fine.size() - 2] = 0xff;
    const Bytes before = sum.Serialize();
    struct {
      ByteSpan bytes;
      uint32_t weight;
      const char* message;
    } const cases[] = {
        {beyond, 1, "tensor 1, element 0 is 4, but |value| < 4 is required"},
        {truncated, 1, " bytes, but its encoding has "},
        {not_finite, 1, "tensor 1"},
        {fine, 0, "weight 0"},
        {fine, 65'536, "weight 65536"},
    };
    for (const auto& bad : cases) {
      const EncodedUpdate update = {
          .codec = codec, .bytes = bad.bytes, .weight = bad.weight};
      EXPECT_THAT(
          ExactSum::CheckEncoded(layout, update),
          StatusIs(StatusCode::kInvalidArgument, HasSubstr(bad.message)));
      std::vector<EncodedUpdate> several(
          7, {.codec = codec, .bytes = fine, .weight = 3});
      several[5] = update;
      EXPECT_THAT(
          sum.AddAllEncoded(several),
          StatusIs(StatusCode::kInvalidArgument,
                   AllOf(HasSubstr("update 5: "), HasSubstr(bad.message))));
      EXPECT_EQ(sum.Serialize(), before) << bad.message;
    }
    EXPECT_THAT(ExactSum::CheckEncoded(
                    layout, {.codec = codec, .bytes = fine, .weight = 1}),
                IsOk());
    const EncodedUpdate last = {.codec = codec, .bytes = fine, .weight = 1};
    EXPECT_THAT(sum.AddAllEncoded({&last, 1}), IsOk());
  }
}

TEST(AddAllEncoded, ForeignFloat16Exponent_IsRefused) {
  const SumLayout layout = Layout({{.count = 1}});
  Bytes bytes;
  AppendLe(bytes, int32_t{-14});  // 1.0, but -15 is the one for it
  AppendLe(bytes, uint16_t{0x7400});
  const EncodedUpdate update = {.codec = CodecName::kFloat16, .bytes = bytes};
  ExactSum sum = NewSum(layout);
  EXPECT_THAT(ExactSum::CheckEncoded(layout, update),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("exponent")));
  EXPECT_THAT(sum.AddAllEncoded({&update, 1}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("exponent")));
  EXPECT_EQ(sum.update_count(), 0u);
}

}  // namespace
}  // namespace selvage::aggregation
