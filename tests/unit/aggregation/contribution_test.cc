#include "aggregation/contribution.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/server_optimizer.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::ContributionName;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kOne = int64_t{1} << kScalarFractionBits;

plan::OptimizerSpec Sgd(double lr, double momentum = 0, bool nesterov = false) {
  plan::OptimizerSpec spec;
  spec.lr = lr;
  spec.momentum = momentum;
  spec.nesterov = nesterov;
  return spec;
}

TEST(NormalisedSteps, PlainSgd_IsTheNumberOfSteps) {
  EXPECT_EQ(NormalisedSteps(Sgd(0.1), 0, 7, nullptr), 7);
  EXPECT_EQ(NormalisedSteps(Sgd(0.1), 0, 0, nullptr), 0);
}

// a = (1 - rho^(tau-k)) / (1 - rho): the paper's, by hand for rho = 0.5, 3
// steps: 1.75 + 1.5 + 1 = 4.25.
TEST(NormalisedSteps, Momentum_IsThePapersSum) {
  EXPECT_DOUBLE_EQ(NormalisedSteps(Sgd(0.1, 0.5), 0, 3, nullptr), 4.25);
  const double rho = 0.9;
  for (const int steps : {1, 2, 10, 100}) {
    const double expected =
        (steps - rho * (1 - std::pow(rho, steps)) / (1 - rho)) / (1 - rho);
    EXPECT_NEAR(NormalisedSteps(Sgd(0.1, rho), 0, static_cast<uint64_t>(steps),
                                nullptr),
                expected, 1e-9 * expected);
  }
}

// a_k = (1 - lr mu)^(tau-1-k): 1 + 0.8 + 0.64.
TEST(NormalisedSteps, Proximal_IsThePapersSum) {
  EXPECT_DOUBLE_EQ(NormalisedSteps(Sgd(0.1), 2, 3, nullptr), 2.44);
}

// The reference: a_j is how far a gradient of one at step j alone leads.
TEST(NormalisedSteps, Anything_IsTheSumOfEachStepsWay) {
  SeededRandom random(3);
  for (int round = 0; round < 50; ++round) {
    const bool proximal = round % 2 == 0;
    const double rho = proximal ? 0 : UniformUnit(random) * 0.99;
    const double mu = proximal ? UniformUnit(random) * 9 : 0;
    const bool nesterov = rho > 0 && round % 3 == 0;
    const double lr = 0.1;
    const uint64_t steps = 1 + UniformBelow(random, 30);
    std::vector<double> factors(steps);
    for (double& factor : factors) factor = UniformUnit(random);
    double sum = 0;
    for (uint64_t j = 0; j < steps; ++j) {
      double x = 0;
      double v = 0;
      for (uint64_t k = 0; k < steps; ++k) {
        const double g = (k == j ? 1.0 : 0.0) + mu * x;
        v = rho * v + g;
        x -= lr * factors[k] * (nesterov ? g + rho * v : v);
      }
      EXPECT_LE(x, 0);
      sum += -x / lr;
    }
    EXPECT_NEAR(NormalisedSteps(Sgd(lr, rho, nesterov), mu, steps,
                                [&](uint64_t k) { return factors[k]; }),
                sum, 1e-9 * (1 + sum));
  }
}

TEST(DeclareSteps, Bounds_AreChecked) {
  EXPECT_EQ(*DeclareSteps(3, 2.5), 7680);
  EXPECT_EQ(*DeclareSteps(1, 1e-9), 1);
  EXPECT_EQ(*DeclareSteps(65535, kDeclaredMax), 65535 * kDeclaredMax * kOne);
  EXPECT_THAT(DeclareSteps(1, kDeclaredMax + 1.0),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("1048576")));
  EXPECT_THAT(DeclareSteps(1, 0), StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(DeclareSteps(1, std::nan("")), StatusIs(StatusCode::kOutOfRange));
}

// Formulas of the paper with everything divided by L max_loss^q.
TEST(WeighByLoss, IsThePapersDeltaAndH) {
  SeededRandom random(5);
  for (int i = 0; i < 200; ++i) {
    const plan::ContributionSpec spec = {.name = ContributionName::kQFedAvg,
                                         .q = UniformUnit(random) * 4,
                                         .max_loss = 3};
    const double lr = 0.01 + UniformUnit(random);
    const double loss = 0.05 + UniformUnit(random) * 2.9;
    const double norm = UniformUnit(random) * 2;
    const double lipschitz = 1 / lr;
    const double unit = lipschitz * std::pow(spec.max_loss, spec.q);
    const double delta = std::pow(loss, spec.q) * lipschitz / unit;
    const double h =
        (spec.q * std::pow(loss, spec.q - 1) * std::pow(lipschitz * norm, 2) +
         lipschitz * std::pow(loss, spec.q)) /
        unit;

    const auto weight = WeighByLoss(spec, lr, loss, norm);

    ASSERT_THAT(weight, IsOk());
    EXPECT_NEAR(weight->weight, delta * 65535, 1);
    EXPECT_NEAR(static_cast<double>(weight->declared) / kOne, h * 65535, 1.01);
    plan::TrainSpec train;
    EXPECT_THAT(CheckDeclared(spec, train, 100, weight->weight,
                              std::vector<int64_t>{weight->declared}),
                IsOk());
  }
}

TEST(WeighByLoss, Bounds_AreHeld) {
  plan::ContributionSpec spec = {
      .name = ContributionName::kQFedAvg, .q = 1, .max_loss = 2};
  EXPECT_EQ(WeighByLoss(spec, 0.1, 5, 0)->weight, 65535u);
  EXPECT_EQ(WeighByLoss(spec, 0.1, 0, 0)->weight, 1u);
  EXPECT_EQ(WeighByLoss(spec, 0.1, -3, 0)->weight, 1u);
  EXPECT_EQ(WeighByLoss(spec, 0.1, 1, 1e300)->declared,
            kDeclaredMax * 65535 * kOne);
  EXPECT_THAT(WeighByLoss(spec, 0.1, std::nan(""), 1),
              StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(
      WeighByLoss(spec, 0.1, 1, std::numeric_limits<double>::infinity()),
      StatusIs(StatusCode::kOutOfRange));
  spec.q = 0;
  EXPECT_EQ(WeighByLoss(spec, 0.1, 0, 7)->weight, 65535u);
  EXPECT_EQ(WeighByLoss(spec, 0.1, 0, 7)->declared, 65535 * kOne);
}

TEST(CheckDeclared, FedNova_IsBoundedByWhatThePlanAllows) {
  const plan::ContributionSpec nova = {.name = ContributionName::kFedNova};
  plan::TrainSpec train;
  train.local_epochs = 2;
  train.batch_size = 10;
  // 25 examples, 3 batches, 2 epochs.
  const int64_t most = 25 * 6 * kOne;
  const auto check = [&](uint32_t weight, std::vector<int64_t> scalars) {
    return CheckDeclared(nova, train, 100, weight, scalars);
  };
  EXPECT_THAT(check(25, {1}), IsOk());
  EXPECT_THAT(check(25, {most}), IsOk());
  EXPECT_THAT(check(25, {most + 1}),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("scalar 0 is")));
  EXPECT_THAT(check(25, {0}), StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(check(25, {INT64_MIN}), StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(check(25, {INT64_MAX}), StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(check(25, {}), StatusIs(StatusCode::kInvalidArgument,
                                      HasSubstr("fednova contribution "
                                                "declares 1")));
  EXPECT_THAT(check(25, {1, 1}), StatusIs(StatusCode::kInvalidArgument));
  // At the cap there may have been any number of examples.
  EXPECT_THAT(check(100, {100 * kDeclaredMax * kOne}), IsOk());
  EXPECT_THAT(check(100, {100 * kDeclaredMax * kOne + 1}),
              StatusIs(StatusCode::kOutOfRange));
  train.local_epochs = 1;
  train.local_steps = 4;
  train.optimizer.momentum = 0.5;
  EXPECT_THAT(check(100, {100 * 8 * kOne}), IsOk());
  EXPECT_THAT(check(100, {100 * 8 * kOne + 1}),
              StatusIs(StatusCode::kOutOfRange));
}

TEST(CheckDeclared, PlainAndScaffold_DeclareNothing) {
  for (const auto name :
       {ContributionName::kPlain, ContributionName::kScaffold}) {
    EXPECT_THAT(CheckDeclared({.name = name}, {}, 1, 1, {}), IsOk());
    EXPECT_THAT(
        CheckDeclared({.name = name}, {}, 1, 1, std::vector<int64_t>{1}),
        StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST(MeanFactor, HandComputed) {
  // Weights 1 and 3 with 2 and 6 steps: 20 / 4.
  EXPECT_EQ(MeanFactor(ContributionName::kFedNova, 4, 20 * kOne), 5);
  EXPECT_EQ(MeanFactor(ContributionName::kQFedAvg, 4, 8 * kOne), 0.5);
  EXPECT_EQ(MeanFactor(ContributionName::kPlain, 4, 0), 1);
}

// c_i+ = c_i - c + (x - y) / (tau lr).
TEST(ControlChange, IsOptionTwo) {
  const std::vector<float> control = {1, -2};
  const std::vector<float> delta = {0.5F, -1};
  EXPECT_THAT(ControlChange(control, delta, 0.25), ElementsAre(-3, 6));
}

TEST(ApplyMean, Control_AddsTheChange) {
  std::vector<float> control = {1, 2};
  ASSERT_THAT(ApplyMean(std::vector<double>{1, -1}, control), IsOk());
  EXPECT_THAT(control, ElementsAre(2, 1));
  EXPECT_THAT(ApplyMean(std::vector<double>{1e39, 0}, control),
              StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(ApplyMean(std::vector<double>{1}, control),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(ContributionCounts, Scaffold_HasTheSharedTensorsTwice) {
  const auto table = plan::TensorTable::Create(
      {{.name = "a", .shape = {2}, .role = plan::Role::kShared},
       {.name = "mine", .shape = {5}, .role = plan::Role::kPersonal},
       {.name = "mean", .shape = {3}, .role = plan::Role::kBufferFloat},
       {.name = "b", .shape = {4}, .role = plan::Role::kShared}});
  ASSERT_THAT(table, IsOk());
  EXPECT_THAT(ContributionCounts(ContributionName::kPlain, *table),
              ElementsAre(2, 3, 4));
  EXPECT_THAT(ContributionCounts(ContributionName::kScaffold, *table),
              ElementsAre(2, 3, 4, 2, 4));
  EXPECT_EQ(SharedCount(*table), 6u);
}

}  // namespace
}  // namespace selvage::aggregation
