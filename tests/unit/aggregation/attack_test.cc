// Whole federations in memory, under attack: a linear model on data that differ
// between devices, rounds through the real rules and the real server step. What
// a mean does with attackers, and what the robust rules do.
#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/robust/rules.h"
#include "aggregation/server_optimizer.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::StrategyName;
using plan::StrategySpec;
using ::selvage::test::IsOk;

constexpr size_t kDevices = 20;
constexpr size_t kSize = 50;
constexpr int kRounds = 40;

class RoundBlocks final : public UpdateBlocks {
 public:
  explicit RoundBlocks(const std::vector<std::vector<float>>& updates)
      : updates_(updates) {}
  size_t update_count() const override { return updates_.size(); }
  size_t element_count() const override { return kSize; }
  size_t block_size() const override { return 16; }
  uint32_t weight(size_t) const override { return 1; }
  Status Read(size_t update, size_t index,
              std::span<float> out) const override {
    const ElementRange range = block(index);
    for (size_t i = 0; i < range.count; ++i) {
      out[i] = updates_[update][range.begin + i];
    }
    return OkStatus();
  }

 private:
  const std::vector<std::vector<float>>& updates_;
};

enum class Attack { kNone, kSignFlip, kScaled };

double Normal(RandomSource& random) {
  return std::sqrt(-2 * std::log(1 - UniformUnit(random))) *
         std::cos(6.283185307179586 * UniformUnit(random));
}

// Every device pulls the model towards its own optimum: the common one, at
// distance 1 a coordinate, and 0.3 of its own. Returns the root mean square
// error of the model to the common optimum at the end.
double Federate(const StrategySpec& strategy, size_t attackers, Attack attack) {
  SeededRandom random(99);
  std::vector<float> model(kSize, 0.0f);
  std::vector<float> optimum(kSize);
  for (float& value : optimum) value = UniformUnit(random) < 0.5 ? -1 : 1;
  std::vector<std::vector<float>> own(kDevices, optimum);
  for (auto& target : own) {
    for (float& value : target)
      value += static_cast<float>(0.3 * Normal(random));
  }
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::vector<float>> updates;
    for (size_t device = 0; device < kDevices; ++device) {
      std::vector<float>& update = updates.emplace_back(kSize);
      for (size_t i = 0; i < kSize; ++i) {
        update[i] = 0.3f * (own[device][i] - model[i]);
        if (device >= attackers) continue;
        if (attack == Attack::kSignFlip) update[i] *= -5;
        if (attack == Attack::kScaled) update[i] *= 1e6f;
      }
    }
    std::vector<double> direction(kSize);
    if (plan::HoldsUpdates(strategy.name)) {
      const auto result =
          AggregateRobustly(strategy, RoundBlocks(updates), {}, 2);
      EXPECT_THAT(result, IsOk());
      direction = *result;
    } else {
      const std::vector<ElementRange> shared = {{0, kSize}};
      for (std::vector<float>& update : updates) {
        if (strategy.name == StrategyName::kNormBound) {
          ScaleElements(shared, 0,
                        BoundFactor(AddSquares(shared, 0, update, 0),
                                    strategy.clipping_norm),
                        update);
        }
        for (size_t i = 0; i < kSize; ++i) {
          direction[i] += double{update[i]} / kDevices;
        }
      }
    }
    EXPECT_THAT(ApplyServerStep(strategy, direction, {}, {}, model), IsOk());
    if (!std::isfinite(model[0]) || std::abs(model[0]) > 1e30f) return 1e30;
  }
  double sum = 0;
  for (size_t i = 0; i < kSize; ++i) {
    sum += std::pow(double{model[i]} - double{optimum[i]}, 2);
  }
  return std::sqrt(sum / kSize);
}

StrategySpec Strategy(StrategyName name, size_t attackers) {
  StrategySpec strategy;
  strategy.name = name;
  strategy.beta = 0.3;
  strategy.num_malicious_nodes = static_cast<int>(attackers);
  strategy.clipping_norm = 1;
  return strategy;
}

TEST(AttackTest, RobustRules_LearnUnderTenToThirtyPercent) {
  for (const Attack attack :
       {Attack::kNone, Attack::kSignFlip, Attack::kScaled}) {
    for (const size_t percent : {10u, 20u, 30u}) {
      const size_t attackers = kDevices * percent / 100;
      for (const auto name :
           {StrategyName::kFedMedian, StrategyName::kFedTrimmedAvg,
            StrategyName::kMultiKrum, StrategyName::kRfa}) {
        // Without robustness it starts at 1, and a mean of honest devices
        // reaches 0.3 / sqrt(20) = 0.07.
        EXPECT_LT(Federate(Strategy(name, attackers), attackers, attack), 0.25)
            << plan::StrategyNameText(name) << " " << percent << " "
            << static_cast<int>(attack);
      }
      // One device's optimum: no average over the others.
      EXPECT_LT(
          Federate(Strategy(StrategyName::kKrum, attackers), attackers, attack),
          0.45)
          << percent;
    }
  }
}

TEST(AttackTest, TheMean_DoesNot) {
  const StrategySpec mean = Strategy(StrategyName::kFedAvg, 0);
  EXPECT_LT(Federate(mean, 0, Attack::kNone), 0.1);
  EXPECT_GT(Federate(mean, 2, Attack::kScaled), 1e6);
  EXPECT_GT(Federate(mean, 6, Attack::kSignFlip), 1.0);
}

// A bound on the norm turns a million-fold update into one of many; it does not
// recognise it.
TEST(AttackTest, NormBound_WithstandsSizeNotNumber) {
  const StrategySpec bound = Strategy(StrategyName::kNormBound, 0);
  EXPECT_LT(Federate(bound, 0, Attack::kNone), 0.1);
  EXPECT_LT(Federate(bound, 2, Attack::kScaled), 0.5);
  EXPECT_LT(Federate(bound, 2, Attack::kSignFlip), 0.9);
}

}  // namespace
}  // namespace selvage::aggregation
