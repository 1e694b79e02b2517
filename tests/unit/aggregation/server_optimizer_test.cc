#include "aggregation/server_optimizer.h"

#include <cfloat>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::StrategyName;
using plan::StrategySpec;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

struct ServerState {
  std::vector<float> momentum;
  std::vector<float> second_moment;
};
ServerState InitialServerState(const StrategySpec& strategy, size_t count) {
  const ServerStateForm form = FormOf(strategy, count);
  ServerState state;
  if (form.has_momentum) state.momentum.assign(count, 0);
  if (form.has_second_moment) {
    state.second_moment.assign(count, form.initial_second_moment);
  }
  return state;
}

StrategySpec FedAvg(double rate) {
  StrategySpec s;
  s.server_learning_rate = rate;
  return s;
}
StrategySpec Named(StrategyName name, double rate) {
  StrategySpec s = FedAvg(rate);
  s.name = name;
  return s;
}
Status Step(const StrategySpec& s, const std::vector<double>& delta,
            ServerState& state, std::vector<float>& master) {
  return ApplyServerStep(s, delta, state.momentum, state.second_moment, master);
}
Status Step(const StrategySpec& s, const std::vector<double>& delta,
            std::vector<float>& master) {
  ServerState none;
  return Step(s, delta, none, master);
}

TEST(ApplyServerStep, FedAvg_MatchesValuesByHand) {
  std::vector<float> master = {1.0f, -2.0f, 0.0f};
  EXPECT_THAT(Step(FedAvg(1), {0.5, 0.25, -3}, master), IsOk());
  EXPECT_THAT(master, ElementsAre(1.5f, -1.75f, -3.0f));
  EXPECT_THAT(Step(FedAvg(0.5), {1, 1, 1}, master), IsOk());
  EXPECT_THAT(master, ElementsAre(2.0f, -1.25f, -2.5f));
  std::vector<float> empty;
  EXPECT_THAT(Step(FedAvg(1), {}, empty), IsOk());
}

TEST(ApplyServerStep, FedAvgM_MatchesValuesByHand) {
  StrategySpec s = Named(StrategyName::kFedAvgM, 1);
  s.server_momentum = 0.5;
  std::vector<float> master = {0};
  ServerState state = InitialServerState(s, 1);
  EXPECT_TRUE(state.second_moment.empty());
  ASSERT_THAT(Step(s, {1}, state, master), IsOk());  // v = 1
  ASSERT_THAT(Step(s, {1}, state, master), IsOk());  // v = 1.5
  EXPECT_THAT(master, ElementsAre(2.5f));
  EXPECT_THAT(state.momentum, ElementsAre(1.5f));

  s.nesterov = true;
  master = {0};
  state = InitialServerState(s, 1);
  ASSERT_THAT(Step(s, {1}, state, master), IsOk());  // 1 + 0.5 x 1
  ASSERT_THAT(Step(s, {1}, state, master), IsOk());  // 1 + 0.5 x 1.5
  EXPECT_THAT(master, ElementsAre(3.25f));
}

// Written down from the papers a second time, in double throughout.
struct Reference {
  double x = 0;
  double m = 0;
  double v = 0;

  void Move(const StrategySpec& s, double d) {
    const double eta = s.server_learning_rate;
    if (s.name == StrategyName::kFedAvg) {
      x += eta * d;
      return;
    }
    if (s.name == StrategyName::kFedAvgM) {
      m = s.server_momentum * m + d;
      x += eta * (s.nesterov ? d + s.server_momentum * m : m);
      return;
    }
    m = s.beta_1 * m + (1 - s.beta_1) * d;
    if (s.name == StrategyName::kFedAdagrad) v = v + d * d;
    if (s.name == StrategyName::kFedAdam) {
      v = s.beta_2 * v + (1 - s.beta_2) * d * d;
    }
    if (s.name == StrategyName::kFedYogi) {
      const double sign = v > d * d ? 1 : v < d * d ? -1 : 0;
      v = v - (1 - s.beta_2) * d * d * sign;
    }
    x += eta * m / (std::sqrt(v) + s.tau);
  }
};

class EveryStrategyTest : public ::testing::TestWithParam<StrategyName> {};
INSTANTIATE_TEST_SUITE_P(
    Strategies, EveryStrategyTest,
    ::testing::Values(StrategyName::kFedAvg, StrategyName::kFedAvgM,
                      StrategyName::kFedAdam, StrategyName::kFedAdagrad,
                      StrategyName::kFedYogi),
    [](const auto& param) {
      return std::string(plan::StrategyNameText(param.param));
    });

TEST_P(EveryStrategyTest, FiftyRounds_FollowTheReference) {
  for (const bool nesterov : {false, true}) {
    StrategySpec s = Named(GetParam(), 0.1);
    s.nesterov = nesterov;
    constexpr size_t kSize = 37;
    SeededRandom random(11);
    std::vector<float> master(kSize);
    std::vector<Reference> want(kSize);
    for (size_t i = 0; i < kSize; ++i) {
      master[i] = static_cast<float>(UniformUnit(random) - 0.5);
      want[i].x = double{master[i]};
      want[i].v = s.tau * s.tau;
    }
    ServerState state = InitialServerState(s, kSize);
    for (int round = 0; round < 50; ++round) {
      std::vector<double> delta(kSize);
      for (size_t i = 0; i < kSize; ++i) {
        delta[i] = 0.02 * (UniformUnit(random) - 0.4);
        want[i].Move(s, delta[i]);
      }
      ASSERT_THAT(Step(s, delta, state, master), IsOk());
    }
    std::vector<double> expected;
    for (const Reference& r : want) expected.push_back(r.x);
    EXPECT_THAT(std::vector<double>(master.begin(), master.end()),
                Pointwise(DoubleNear(2e-5), expected));
  }
}

// min |x - c|^2 with the exact gradient step as the "mean delta": every
// strategy gets there.
TEST_P(EveryStrategyTest, Quadratic_ReachesTheOptimum) {
  StrategySpec s =
      Named(GetParam(), GetParam() == StrategyName::kFedAvg ? 1 : 0.1);
  const std::vector<float> optimum = {0.5f, -1.0f, 0.25f};
  std::vector<float> master(3, 0);
  ServerState state = InitialServerState(s, 3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<double> delta(3);
    for (size_t i = 0; i < 3; ++i) {
      delta[i] = 0.1 * double{optimum[i] - master[i]};
    }
    ASSERT_THAT(Step(s, delta, state, master), IsOk());
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(master[i], optimum[i], 0.02);
}

TEST_P(EveryStrategyTest, StateForm_IsOfThisStrategyAndSize) {
  const StrategySpec s = Named(GetParam(), 0.1);
  const ServerStateForm form = FormOf(s, 5);
  EXPECT_EQ(form.head, FormOf(s, 5).head);
  EXPECT_NE(form.head, FormOf(s, 4).head);
  if (GetParam() != StrategyName::kFedAvg) {
    EXPECT_NE(form.head, FormOf(FedAvg(1), 5).head);
  }
  EXPECT_EQ(form.has_momentum, GetParam() != StrategyName::kFedAvg);
  EXPECT_EQ(form.has_second_moment,
            form.has_momentum && GetParam() != StrategyName::kFedAvgM);
  EXPECT_EQ(form.initial_second_moment > 0, form.has_second_moment);
}

TEST_P(EveryStrategyTest, ResultNotFinite_IsRefused) {
  const StrategySpec s = Named(GetParam(), 1);
  for (const double delta :
       {std::nan(""), std::numeric_limits<double>::infinity(), 1e300}) {
    std::vector<float> master = {1, 2, FLT_MAX};
    ServerState state = InitialServerState(s, 3);
    EXPECT_THAT(Step(s, {1, 1, delta}, state, master),
                StatusIs(StatusCode::kOutOfRange, HasSubstr("element 2")));
  }
}

// The classic bug: a variance that an adaptive optimizer steps goes negative.
TEST_P(EveryStrategyTest, BatchNormStatistics_StayMeansOverTwoHundredRounds) {
  const StrategySpec s = Named(GetParam(), 1);
  SeededRandom random(3);
  std::vector<float> weights(4, 0);
  std::vector<float> variance = {1e-3f};
  ServerState state = InitialServerState(s, 4);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> delta(4);
    for (double& d : delta) d = 0.01 * (UniformUnit(random) - 0.5);
    ASSERT_THAT(Step(s, delta, state, weights), IsOk());
    // Each round's devices report variances in (0, 2e-3).
    const double reported = 2e-3 * UniformUnit(random) + 1e-9;
    const std::vector<double> moved = {reported - double{variance[0]}};
    ASSERT_THAT(ApplyMean(moved, variance), IsOk());
    EXPECT_GT(variance[0], 0.0f);
    EXPECT_NEAR(variance[0], reported, 1e-8);
    for (const float w : weights) EXPECT_TRUE(std::isfinite(w));
  }
}

TEST(ApplyServerStep, ManyElements_RoundOnceWithoutContraction) {
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
    EXPECT_THAT(Step(FedAvg(rate), delta, master), IsOk());
    EXPECT_EQ(master, expected);
  }
}

TEST(ApplyServerStep, DifferentSizes_IsRefused) {
  std::vector<float> master = {1, 2};
  EXPECT_THAT(Step(FedAvg(1), {1}, master),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("mean delta has 1 elements, not 2")));
  ServerState state;
  EXPECT_THAT(Step(Named(StrategyName::kFedAdam, 1), {1, 1}, state, master),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("momentum")));
  state.momentum = {1, 1};
  EXPECT_THAT(
      Step(Named(StrategyName::kFedAdam, 1), {1, 1}, state, master),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("second moment")));
  EXPECT_THAT(Step(FedAvg(1), {1, 1}, state, master),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("momentum")));
}

}  // namespace
}  // namespace selvage::aggregation
