#include "client/core/personal_gate.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

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

GateVerdict Judge(const std::vector<float>& personal,
                  const std::vector<float>& global, bool maximize = true) {
  const Result<GateVerdict> verdict = JudgePersonal(personal, global, maximize);
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

}  // namespace
}  // namespace selvage::client
