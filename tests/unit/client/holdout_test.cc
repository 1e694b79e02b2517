#include "client/core/holdout.h"

#include <numeric>

#include <gtest/gtest.h>

namespace selvage::client {
namespace {

std::vector<int64_t> Ids(int64_t count) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 1);
  return ids;
}

TEST(HoldoutTest, SplitHoldout_EveryExample_IsOnExactlyOneSide) {
  const std::vector<int64_t> ids = Ids(1000);
  const HoldoutSplit split = SplitHoldout(7, ids, 0.2);
  EXPECT_EQ(split.train.size() + split.holdout.size(), ids.size());
  for (const int64_t id : split.holdout) EXPECT_TRUE(IsHeldOut(7, id, 0.2));
  for (const int64_t id : split.train) EXPECT_FALSE(IsHeldOut(7, id, 0.2));
  EXPECT_TRUE(std::is_sorted(split.train.begin(), split.train.end()));
}

TEST(HoldoutTest, SplitHoldout_Fraction_IsAboutRight) {
  for (const double fraction : {0.1, 0.2, 0.5, 0.9}) {
    const auto held =
        static_cast<double>(
            SplitHoldout(3, Ids(20'000), fraction).holdout.size()) /
        20'000;
    EXPECT_NEAR(held, fraction, 0.01);
  }
}

TEST(HoldoutTest, SplitHoldout_Zero_HoldsNothingOut) {
  EXPECT_TRUE(SplitHoldout(3, Ids(100), 0).holdout.empty());
}

TEST(HoldoutTest, IsHeldOut_LargerFraction_KeepsWhatWasHeldOut) {
  for (int64_t id = 1; id < 500; ++id) {
    if (IsHeldOut(9, id, 0.2)) {
      EXPECT_TRUE(IsHeldOut(9, id, 0.3));
    }
  }
}

TEST(HoldoutTest, IsHeldOut_NewExamples_DoNotMoveOldOnes) {
  const HoldoutSplit before = SplitHoldout(5, Ids(50), 0.2);
  const HoldoutSplit after = SplitHoldout(5, Ids(80), 0.2);
  for (size_t i = 0; i < before.holdout.size(); ++i) {
    EXPECT_EQ(before.holdout[i], after.holdout[i]);
  }
}

TEST(HoldoutTest, IsHeldOut_OtherSalt_HoldsOutOthers) {
  EXPECT_NE(SplitHoldout(1, Ids(100), 0.2).holdout,
            SplitHoldout(2, Ids(100), 0.2).holdout);
}

}  // namespace
}  // namespace selvage::client
