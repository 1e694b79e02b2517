#include "client/core/personal_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
// After gtest.h, whose names it uses.
#include <rapidcheck/gtest.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using test::IsOk;
using test::StatusIs;

// Quantiles from printed tables (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
TEST(StudentCdfTest, StudentCdf_TableQuantiles_GiveTheirLevels) {
  EXPECT_NEAR(StudentCdf(6.313752, 1), 0.95, 1e-7);
  EXPECT_NEAR(StudentCdf(2.919986, 2), 0.95, 1e-7);
  EXPECT_NEAR(StudentCdf(1.795885, 11), 0.95, 1e-7);
  EXPECT_NEAR(StudentCdf(1.660234, 100), 0.95, 1e-7);
  EXPECT_NEAR(StudentCdf(-2.228139, 10), 0.025, 1e-7);
  EXPECT_NEAR(StudentCdf(31.820516, 1), 0.99, 1e-7);
}

TEST(StudentCdfTest, StudentCdf_ClosedForms_Agree) {
  for (double t = -20; t <= 20; t += 0.37) {
    EXPECT_NEAR(StudentCdf(t, 1), 0.5 + std::atan(t) / M_PI, 1e-12);
    EXPECT_NEAR(StudentCdf(t, 2), 0.5 + t / (2 * std::sqrt(2 + t * t)), 1e-12);
  }
  // Towards the normal distribution.
  EXPECT_NEAR(StudentCdf(-1.6448536, 1e7), 0.05, 1e-6);
}

TEST(BinomialHalfTailTest, BinomialHalfTail_SmallCases_AreExact) {
  EXPECT_DOUBLE_EQ(BinomialHalfTail(0, 0), 1);
  EXPECT_NEAR(BinomialHalfTail(5, 5), 1.0 / 32, 1e-12);
  EXPECT_NEAR(BinomialHalfTail(5, 4), 6.0 / 32, 1e-12);
  EXPECT_NEAR(BinomialHalfTail(10, 8), 56.0 / 1024, 1e-12);
  EXPECT_DOUBLE_EQ(BinomialHalfTail(4, 0), 1);
}

using plan::GateRule;

constexpr GateRule kRules[] = {GateRule::kNotWorse, GateRule::kNotLower,
                               GateRule::kBetter};

GateVerdict Judge(const std::vector<float>& personal,
                  const std::vector<float>& global, bool maximize = true,
                  GateRule rule = GateRule::kNotWorse) {
  const Result<GateVerdict> verdict =
      JudgePersonal(personal, global, maximize, rule);
  EXPECT_THAT(verdict, IsOk());
  return *verdict;
}

TEST(JudgePersonalTest, JudgePersonal_NoHoldout_PersonalServes) {
  EXPECT_TRUE(Judge({}, {}).personal_serves);
  EXPECT_TRUE(Judge({0}, {1}).personal_serves);
}

TEST(JudgePersonalTest, JudgePersonal_Equal_PersonalServes) {
  const GateVerdict verdict = Judge({1, 0, 1, 1}, {1, 0, 1, 1});
  EXPECT_TRUE(verdict.personal_serves);
  EXPECT_EQ(verdict.p_value, 1);
  EXPECT_EQ(verdict.mean_difference, 0);
}

// The one-sided McNemar test: four losses and no gain could be chance (1/16),
// five could not (1/32).
TEST(JudgePersonalTest, JudgePersonal_ZeroOneScores_NeedFiveLosses) {
  EXPECT_TRUE(
      Judge({0, 0, 0, 0, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1}).personal_serves);
  const GateVerdict five = Judge({0, 0, 0, 0, 0, 1, 1}, {1, 1, 1, 1, 1, 1, 1});
  EXPECT_FALSE(five.personal_serves);
  EXPECT_NEAR(five.p_value, 1.0 / 32, 1e-12);
  EXPECT_TRUE(
      Judge({0, 0, 0, 0, 0, 1, 1}, {1, 1, 1, 1, 1, 0, 0}).personal_serves);
}

TEST(JudgePersonalTest, JudgePersonal_RealScores_UseTheTTest) {
  // d = -1.5, -0.5, -1.25, -0.75: mean -1, s = 0.4564, t = -4.382, n = 4.
  const GateVerdict worse = Judge({0, 1, 0, 1}, {1.5F, 1.5F, 1.25F, 1.75F});
  EXPECT_FALSE(worse.personal_serves);
  EXPECT_NEAR(worse.p_value, 0.0110, 5e-4);
  EXPECT_NEAR(worse.mean_difference, -1, 1e-12);
  // The same numbers as a loss are an improvement.
  EXPECT_TRUE(
      Judge({0, 1, 0, 1}, {1.5F, 1.5F, 1.25F, 1.75F}, /*maximize=*/false)
          .personal_serves);
}

TEST(JudgePersonalTest, JudgePersonal_WorseButNoisy_PersonalServes) {
  EXPECT_TRUE(Judge({0.1F, 0.9F, 0.2F, 0.5F}, {0.9F, 0.2F, 0.6F, 0.4F})
                  .personal_serves);
}

TEST(JudgePersonalTest, JudgePersonal_ZeroVariance_IsTheSignTest) {
  EXPECT_TRUE(Judge({0, 0}, {0.5F, 0.5F}).personal_serves);
  EXPECT_TRUE(Judge({0, 0, 0, 0}, {0.5F, 0.5F, 0.5F, 0.5F}).personal_serves);
  EXPECT_FALSE(
      Judge({0, 0, 0, 0, 0}, {0.5F, 0.5F, 0.5F, 0.5F, 0.5F}).personal_serves);
  EXPECT_TRUE(
      Judge({0.5F, 0.5F, 0.5F, 0.5F, 0.5F}, {0, 0, 0, 0, 0}).personal_serves);
}

TEST(JudgePersonalTest, JudgePersonal_BadInput_IsRefused) {
  const std::vector<float> one = {1};
  const std::vector<float> two = {1, 2};
  const std::vector<float> nan = {1, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_THAT(JudgePersonal(one, two, true),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(JudgePersonal(two, nan, true), StatusIs(StatusCode::kOutOfRange));
}

// One example, none, or only ties.
TEST(JudgePersonalTest, Rules_WithoutEvidence_DifferAsTheySay) {
  const auto serves = [](const std::vector<float>& personal,
                         const std::vector<float>& global) {
    std::vector<bool> out;
    for (const GateRule rule : kRules) {
      out.push_back(Judge(personal, global, true, rule).personal_serves);
    }
    return out;
  };
  EXPECT_THAT(serves({}, {}), ::testing::ElementsAre(true, false, false));
  EXPECT_THAT(serves({0.5F}, {0.25F}),
              ::testing::ElementsAre(true, true, false));
  EXPECT_THAT(serves({0.25F}, {0.5F}),
              ::testing::ElementsAre(true, false, false));
  const std::vector<float> tied = {0.5F, 0.25F, 0.125F, 0.5F, 0.75F, 0.5F};
  EXPECT_THAT(serves(tied, tied), ::testing::ElementsAre(true, true, false));
  // Lower by the mean, but not significantly.
  EXPECT_THAT(serves({0.25F, 0.75F, 0.5F}, {0.5F, 0.5F, 0.625F}),
              ::testing::ElementsAre(true, false, false));
}

TEST(JudgePersonalTest, Better_NeedsWhatWorseNeeds) {
  EXPECT_TRUE(
      Judge({1, 1, 1, 1, 1, 1}, {0, 0, 0, 0, 0, 1}, true, GateRule::kBetter)
          .personal_serves);
  EXPECT_FALSE(
      Judge({1, 1, 1, 1, 0, 1}, {0, 0, 0, 0, 0, 1}, true, GateRule::kBetter)
          .personal_serves);
  EXPECT_TRUE(
      Judge({1.5F, 1.5F, 1.25F, 1.75F}, {0, 1, 0, 1}, true, GateRule::kBetter)
          .personal_serves);
}

TEST(JudgePersonalTest, NotFinite_EveryRuleRefuses) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinite = std::numeric_limits<float>::infinity();
  for (const GateRule rule : kRules) {
    for (const float bad : {nan, infinite, -infinite}) {
      EXPECT_THAT(JudgePersonal(std::vector<float>{bad, 1},
                                std::vector<float>{1, 1}, true, rule),
                  StatusIs(StatusCode::kOutOfRange));
      EXPECT_THAT(JudgePersonal(std::vector<float>{1, 1},
                                std::vector<float>{1, bad}, true, rule),
                  StatusIs(StatusCode::kOutOfRange));
    }
  }
}

struct Scores {
  std::vector<float> personal;
  std::vector<float> global;
};
Scores AnyScores() {
  Scores scores;
  const auto n = *rc::gen::inRange<size_t>(0, 24);
  for (size_t i = 0; i < n; ++i) {
    // Multiples of 1/64: negation and sums are exact, ties come up.
    scores.personal.push_back(static_cast<float>(*rc::gen::inRange(-64, 65)) /
                              64);
    scores.global.push_back(static_cast<float>(*rc::gen::inRange(-64, 65)) /
                            64);
  }
  return scores;
}

RC_GTEST_PROP(JudgePersonalProperty, RulesAreNested, ()) {
  const Scores s = AnyScores();
  const bool maximize = *rc::gen::arbitrary<bool>();
  const bool not_worse =
      Judge(s.personal, s.global, maximize, GateRule::kNotWorse)
          .personal_serves;
  const bool not_lower =
      Judge(s.personal, s.global, maximize, GateRule::kNotLower)
          .personal_serves;
  const bool better =
      Judge(s.personal, s.global, maximize, GateRule::kBetter).personal_serves;
  RC_ASSERT(!better || not_lower);
  RC_ASSERT(!not_lower || not_worse);
}

RC_GTEST_PROP(JudgePersonalProperty, MinimisingIsMaximisingTheNegative, ()) {
  const Scores s = AnyScores();
  Scores negative = s;
  for (float& v : negative.personal) v = -v;
  for (float& v : negative.global) v = -v;
  for (const GateRule rule : kRules) {
    const GateVerdict one = Judge(s.personal, s.global, true, rule);
    const GateVerdict other =
        Judge(negative.personal, negative.global, false, rule);
    RC_ASSERT(one.personal_serves == other.personal_serves);
    RC_ASSERT(one.p_value == other.p_value);
    RC_ASSERT(one.mean_difference == other.mean_difference);
  }
}

// Exchanging the models: better one way is worse the other way.
RC_GTEST_PROP(JudgePersonalProperty, BetterIsWorseExchanged, ()) {
  const Scores s = AnyScores();
  const bool better =
      Judge(s.personal, s.global, true, GateRule::kBetter).personal_serves;
  const bool other_not_worse =
      Judge(s.global, s.personal, true, GateRule::kNotWorse).personal_serves;
  RC_ASSERT(better == !other_not_worse);
}

RC_GTEST_PROP(JudgePersonalProperty, OrderDoesNotMatter, ()) {
  const Scores s = AnyScores();
  Scores reversed = s;
  std::reverse(reversed.personal.begin(), reversed.personal.end());
  std::reverse(reversed.global.begin(), reversed.global.end());
  for (const GateRule rule : kRules) {
    RC_ASSERT(
        Judge(s.personal, s.global, true, rule).personal_serves ==
        Judge(reversed.personal, reversed.global, true, rule).personal_serves);
  }
}

// How often a rule lets `n` real-valued differences of mean `shift` and
// standard deviation 1 through, of 4,000 hold-outs.
double LetThrough(GateRule rule, size_t n, double shift) {
  SeededRandom random(17);
  int served = 0;
  constexpr int kTrials = 4000;
  for (int t = 0; t < kTrials; ++t) {
    std::vector<float> personal;
    for (size_t i = 0; i < n; ++i) {
      // Irwin-Hall: the sum of twelve uniforms less 6.
      double normal = -6;
      for (int k = 0; k < 12; ++k) normal += UniformUnit(random);
      personal.push_back(static_cast<float>(normal + shift));
    }
    const std::vector<float> global(n, 0);
    served += Judge(personal, global, true, rule).personal_serves ? 1 : 0;
  }
  return served / static_cast<double>(kTrials);
}

TEST(JudgePersonalTest, RealScores_ErrorRatesAreTheStatedOnes) {
  for (const size_t n : {size_t{5}, size_t{12}, size_t{40}}) {
    SCOPED_TRACE(n);
    // No difference: a personal model is wrongly called worse in 5 %, better
    // in 5 %, lower in half the cases.
    EXPECT_NEAR(LetThrough(GateRule::kNotWorse, n, 0), 0.95, 0.015);
    EXPECT_NEAR(LetThrough(GateRule::kNotLower, n, 0), 0.5, 0.03);
    EXPECT_NEAR(LetThrough(GateRule::kBetter, n, 0), 0.05, 0.015);
  }
  // Real harm of 0.4 standard deviations on 12 examples: not_worse lets most
  // of it through, the others next to none.
  EXPECT_GT(LetThrough(GateRule::kNotWorse, 12, -0.4), 0.55);
  EXPECT_LT(LetThrough(GateRule::kNotLower, 12, -0.4), 0.12);
  EXPECT_LT(LetThrough(GateRule::kBetter, 12, -0.4), 0.005);
}

}  // namespace
}  // namespace selvage::client
