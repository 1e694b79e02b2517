#include "coordinator/stopping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::testing::HasSubstr;

TaskProgress After(const plan::EvaluateSpec& spec,
                   const std::vector<double>& values) {
  TaskProgress progress;
  uint64_t version = 0;
  for (const double value : values) {
    progress = Observe(spec, version++, value, progress);
  }
  return progress;
}

TEST(Observe, Max_BestIsTheHighest_ATieIsTheEarlier) {
  const TaskProgress progress = After({}, {0.5, 0.7, 0.6, 0.7});
  EXPECT_EQ(progress.best_version, 1u);
  EXPECT_EQ(progress.best_value, 0.7);
  EXPECT_EQ(progress.stale, 2u);
  EXPECT_EQ(progress.measured, 4u);
  EXPECT_EQ(progress.last_measured, 3u);
}

TEST(Observe, Min_BestIsTheLowest) {
  plan::EvaluateSpec spec;
  spec.maximize = false;
  const TaskProgress progress = After(spec, {0.5, 0.2, -1.0, 3});
  EXPECT_EQ(progress.best_version, 2u);
  EXPECT_EQ(progress.stale, 1u);
}

TEST(Observe, MinDelta_SmallSteps_MoveTheBestButNotThePatience) {
  plan::EvaluateSpec spec;
  spec.min_delta = 0.1;
  const TaskProgress slow = After(spec, {0.5, 0.55, 0.59});
  EXPECT_EQ(slow.best_version, 2u);
  EXPECT_EQ(slow.stale, 2u);
  // Small steps that add up count when they have.
  const TaskProgress there = After(spec, {0.5, 0.55, 0.59, 0.65});
  EXPECT_EQ(there.stale, 0u);
  EXPECT_EQ(there.reference, 0.65);
}

TEST(Observe, AnOlderVersion_MayBeTheBest_AndIsNoPatience) {
  TaskProgress progress = Observe({}, 5, 0.5, {});
  progress = Observe({}, 3, 0.4, progress);
  EXPECT_EQ(progress.stale, 0u);
  EXPECT_EQ(progress.last_measured, 5u);
  progress = Observe({}, 2, 0.9, progress);
  EXPECT_EQ(progress.best_version, 2u);
  EXPECT_EQ(progress.stale, 0u);
}

TEST(EarlyEnd, TargetAndPatience_SayWhy) {
  TaskDefinition definition;
  definition.key_metric = "accuracy";
  EXPECT_FALSE(EarlyEnd(definition, {}).has_value());
  definition.spec.evaluate.stop_condition = "accuracy >= 0.88";
  definition.spec.evaluate.patience = 2;
  EXPECT_FALSE(EarlyEnd(definition, {}).has_value());
  EXPECT_FALSE(EarlyEnd(definition, After({}, {0.5, 0.6, 0.6})).has_value());
  EXPECT_EQ(EarlyEnd(definition, After({}, {0.5, 0.6, 0.6, 0.4})),
            "patience is over: accuracy of version 1 is 0.6, 2 measured "
            "versions have not improved on it since");
  EXPECT_EQ(EarlyEnd(definition, After({}, {0.5, 0.88})),
            "target reached: accuracy of version 1 is 0.88, "
            "evaluate.stop_condition is accuracy >= 0.88");
}

TEST(EvaluationIsDue, EveryNAndAfterTheLast) {
  plan::TaskSpec spec;
  spec.strategy.num_rounds = 7;
  EXPECT_FALSE(EvaluationIsDue(spec, 7));
  spec.evaluate.every = 3;
  std::vector<uint64_t> due;
  for (uint64_t n = 0; n <= 8; ++n) {
    if (EvaluationIsDue(spec, n)) due.push_back(n);
  }
  EXPECT_EQ(due, (std::vector<uint64_t>{3, 6, 7, 8}));
}

TEST(RoundsAreDone, OnlyAfterTheLast) {
  plan::TaskSpec spec;
  spec.strategy.num_rounds = 2;
  EXPECT_FALSE(RoundsAreDone(spec, 1).has_value());
  EXPECT_EQ(RoundsAreDone(spec, 2), "all 2 rounds are done");
}

TEST(KeyMetricOf, TooFewDevices_IsNothing) {
  TaskDefinition definition;
  definition.program.metrics = {"loss", "accuracy"};
  definition.key_metric = "accuracy";
  aggregation::MetricSums sums(2);
  const std::vector<aggregation::MetricValue> device = {
      *aggregation::MakeMetric(3, 4), *aggregation::MakeMetric(1, 4)};
  EXPECT_FALSE(KeyMetricOf(definition, sums, 0).has_value());
  ASSERT_THAT(sums.Add(device), test::IsOk());
  EXPECT_EQ(KeyMetricOf(definition, sums, 1), 0.25);
  EXPECT_FALSE(KeyMetricOf(definition, sums, 2).has_value());
}

}  // namespace
}  // namespace selvage::coordinator
