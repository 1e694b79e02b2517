#include "aggregation/server_optimizer.h"

#include <cfloat>
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
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ApplyFedAvg, LearningRate_MatchesValuesByHand) {
  std::vector<float> master = {1.0f, -2.0f, 0.0f};
  EXPECT_THAT(ApplyFedAvg(1, std::vector<double>{0.5, 0.25, -3}, master),
              IsOk());
  EXPECT_THAT(master, ElementsAre(1.5f, -1.75f, -3.0f));
  EXPECT_THAT(ApplyFedAvg(0.5, std::vector<double>{1, 1, 1}, master), IsOk());
  EXPECT_THAT(master, ElementsAre(2.0f, -1.25f, -2.5f));
  EXPECT_THAT(ApplyFedAvg(1, {}, {}), IsOk());
}

TEST(ApplyFedAvg, ManyElements_RoundOnceWithoutContraction) {
  SeededRandom random(5);
  for (const size_t size : {1u, 3u, 8u, 1001u}) {
    std::vector<float> master(size);
    std::vector<double> delta(size);
    std::vector<float> expected(size);
    const double rate = 0.1 + UniformUnit(random);
    for (size_t i = 0; i < size; ++i) {
      master[i] = static_cast<float>(UniformUnit(random) * 8 - 4);
      delta[i] = UniformUnit(random) - 0.5;
      // volatile: the product is rounded before it is added.
      const volatile double product = rate * delta[i];
      expected[i] = static_cast<float>(double{master[i]} + product);
    }
    EXPECT_THAT(ApplyFedAvg(rate, delta, master), IsOk());
    EXPECT_EQ(master, expected);
  }
}

TEST(ApplyFedAvg, DifferentSizes_IsRefused) {
  std::vector<float> master = {1, 2};
  EXPECT_THAT(ApplyFedAvg(1, std::vector<double>{1}, master),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("1 elements, the model has 2")));
}

TEST(ApplyFedAvg, ResultNotFinite_LeavesTheMasterAlone) {
  const double bad[] = {double{FLT_MAX}, std::nan(""),
                        std::numeric_limits<double>::infinity(), 1e300};
  for (const double delta : bad) {
    std::vector<float> master = {1, 2, FLT_MAX};
    EXPECT_THAT(ApplyFedAvg(1, std::vector<double>{1, 1, delta}, master),
                StatusIs(StatusCode::kOutOfRange, HasSubstr("element 2")));
    EXPECT_THAT(master, ElementsAre(1, 2, FLT_MAX));
  }
  std::vector<float> master = {1};
  EXPECT_THAT(ApplyFedAvg(std::nan(""), std::vector<double>{1}, master),
              StatusIs(StatusCode::kOutOfRange));
}

}  // namespace
}  // namespace selvage::aggregation
