#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/robust/rules.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;

using Update = std::vector<float>;

class MemoryBlocks final : public UpdateBlocks {
 public:
  explicit MemoryBlocks(std::vector<Update> updates, size_t block_size = 64,
                        std::vector<uint32_t> weights = {})
      : updates_(std::move(updates)),
        weights_(std::move(weights)),
        block_size_(block_size) {
    weights_.resize(updates_.size(), 1);
  }

  size_t update_count() const override { return updates_.size(); }
  size_t element_count() const override {
    return updates_.empty() ? 0 : updates_[0].size();
  }
  size_t block_size() const override { return block_size_; }
  uint32_t weight(size_t update) const override { return weights_[update]; }
  Status Read(size_t update, size_t index,
              std::span<float> out) const override {
    if (!failure.ok()) return failure;
    const auto from = std::span(updates_[update])
                          .subspan(block(index).begin, block(index).count);
    std::copy(from.begin(), from.end(), out.begin());
    return OkStatus();
  }

  Status failure;

 private:
  std::vector<Update> updates_;
  std::vector<uint32_t> weights_;
  size_t block_size_;
};

MemoryBlocks Blocks(std::vector<Update> updates, size_t block_size = 64,
                    std::vector<uint32_t> weights = {}) {
  return MemoryBlocks(std::move(updates), block_size, std::move(weights));
}

double Normal(RandomSource& random) {
  return std::sqrt(-2 * std::log(1 - UniformUnit(random))) *
         std::cos(6.283185307179586 * UniformUnit(random));
}

// Honest updates: a common direction and noise of the same size.
std::vector<Update> Honest(size_t n, size_t size, RandomSource& random) {
  Update direction(size);
  for (float& value : direction) value = static_cast<float>(Normal(random));
  std::vector<Update> updates(n, direction);
  for (Update& update : updates) {
    for (float& value : update) value += static_cast<float>(Normal(random));
  }
  return updates;
}

std::vector<double> MeanOf(const std::vector<Update>& updates) {
  std::vector<double> mean(updates[0].size());
  for (const Update& update : updates) {
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += double{update[i]};
  }
  for (double& value : mean) value /= static_cast<double>(updates.size());
  return mean;
}

double SquaredDistance(const Update& a, const Update& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
  }
  return sum;
}

double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

// ---------------------------------- written down a second time, the plain way

std::vector<double> SortedColumn(const std::vector<Update>& updates, size_t i) {
  std::vector<double> column;
  for (const Update& update : updates) column.push_back(double{update[i]});
  std::sort(column.begin(), column.end());
  return column;
}

std::vector<double> ReferenceMedian(const std::vector<Update>& updates) {
  std::vector<double> out;
  for (size_t i = 0; i < updates[0].size(); ++i) {
    const std::vector<double> column = SortedColumn(updates, i);
    const size_t n = column.size();
    out.push_back(n % 2 == 1 ? column[n / 2]
                             : (column[n / 2 - 1] + column[n / 2]) / 2);
  }
  return out;
}

std::vector<double> ReferenceTrimmed(const std::vector<Update>& updates,
                                     size_t trim) {
  std::vector<double> out;
  for (size_t i = 0; i < updates[0].size(); ++i) {
    const std::vector<double> column = SortedColumn(updates, i);
    double sum = 0;
    for (size_t r = trim; r + trim < column.size(); ++r) sum += column[r];
    out.push_back(sum / static_cast<double>(column.size() - 2 * trim));
  }
  return out;
}

std::vector<size_t> ReferenceKrum(const std::vector<Update>& updates,
                                  size_t f) {
  const size_t n = updates.size();
  std::vector<std::pair<double, size_t>> scores;
  for (size_t i = 0; i < n; ++i) {
    std::vector<double> distances;
    for (size_t j = 0; j < n; ++j) {
      if (j != i) distances.push_back(SquaredDistance(updates[i], updates[j]));
    }
    std::sort(distances.begin(), distances.end());
    double score = 0;
    for (size_t k = 0; k < n - f - 2; ++k) score += distances[k];
    scores.emplace_back(score, i);
  }
  std::sort(scores.begin(), scores.end());
  std::vector<size_t> order;
  for (const auto& [score, i] : scores) order.push_back(i);
  return order;
}

std::vector<double> ReferenceWeiszfeld(const std::vector<Update>& updates,
                                       const std::vector<uint32_t>& weights,
                                       int iterations, double nu) {
  std::vector<double> v = ReferenceMedian(updates);
  for (int step = 0; step < iterations; ++step) {
    std::vector<double> next(v.size());
    double total = 0;
    for (size_t u = 0; u < updates.size(); ++u) {
      const std::vector<double> x(updates[u].begin(), updates[u].end());
      const double beta =
          static_cast<double>(weights[u]) / std::max(nu, Distance(v, x));
      total += beta;
      for (size_t i = 0; i < v.size(); ++i) next[i] += beta * x[i];
    }
    for (double& value : next) value /= total;
    v = next;
  }
  return v;
}

TEST(CoordinateMedian, ValuesByHand) {
  EXPECT_THAT(*CoordinateMedian(Blocks({{3, -1}, {1, 5}, {2, 100}}), 1),
              ElementsAre(2, 5));
  EXPECT_THAT(*CoordinateMedian(Blocks({{3, -1}, {1, 5}, {2, 100}, {8, 7}}), 1),
              ElementsAre(2.5, 6));
  EXPECT_THAT(*CoordinateMedian(Blocks({{3, -1}}), 1), ElementsAre(3, -1));
  EXPECT_THAT(*CoordinateMedian(Blocks({{}, {}}), 1), IsEmpty());
  EXPECT_THAT(CoordinateMedian(Blocks({}), 1),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST(TrimmedMean, ValuesByHand) {
  const MemoryBlocks blocks = Blocks({{1}, {2}, {3}, {4}, {1000}});
  EXPECT_THAT(*TrimmedMean(blocks, 0, 1), ElementsAre(202));
  EXPECT_THAT(*TrimmedMean(blocks, 1, 1), ElementsAre(3));
  EXPECT_THAT(*TrimmedMean(blocks, 2, 1), ElementsAre(3));
  EXPECT_THAT(
      TrimmedMean(blocks, 3, 1),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("needs at least 7")));
}

TEST(TrimCount, IsTheFloorOfTheProductThatWasMeant) {
  EXPECT_EQ(TrimCount(0.29, 100), 29u);  // 28.999999999999996 in binary
  EXPECT_EQ(TrimCount(0.2, 5), 1u);
  EXPECT_EQ(TrimCount(0.2, 9), 1u);
  EXPECT_EQ(TrimCount(0.2, 4), 0u);
  EXPECT_EQ(TrimCount(0.49, 3), 1u);
}

TEST(Krum, ValuesByHand) {
  // n = 5, f = 1: scores over the 2 nearest others.
  //   0: 1 + 4 = 5; 1: 1 + 1 = 2; 2: 1 + 4; 3 (at 4): 4 + 9; 4 (at 100): large
  const MemoryBlocks blocks = Blocks({{0}, {1}, {2}, {4}, {100}});
  EXPECT_THAT(*KrumRanking(blocks, 1, {}, 1), ElementsAre(1, 0, 2, 3, 4));
  EXPECT_THAT(KrumRanking(blocks, 2, {}, 1),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("Krum against 2 attackers of 5 updates: it "
                                 "needs at least 7")));
  EXPECT_THAT(*MeanOfChosen(blocks, std::vector<size_t>{1, 3}, 1),
              ElementsAre(2.5));
}

TEST(Krum, IgnoredElements_DoNotDecide) {
  const std::vector<ElementRange> second = {{1, 1}};
  const MemoryBlocks blocks =
      Blocks({{0, 9e6f}, {1, 0}, {2, -9e6f}, {4, 3}, {100, 0}});
  EXPECT_THAT(*KrumRanking(blocks, 1, second, 1), ElementsAre(1, 0, 2, 3, 4));
}

TEST(GeometricMedian, OnALine_IsTheWeightedMedian) {
  const MemoryBlocks line = Blocks({{0}, {1}, {10}}, 64, {1, 1, 1});
  EXPECT_THAT((*GeometricMedian(line, 100, 1e-12, {}, 1))[0],
              DoubleNear(1, 1e-9));
  const MemoryBlocks heavy = Blocks({{0}, {1}, {10}}, 64, {5, 1, 1});
  EXPECT_THAT((*GeometricMedian(heavy, 100, 1e-12, {}, 1))[0],
              DoubleNear(0, 1e-3));
}

TEST(GeometricMedian, OfATriangle_IsItsFermatPoint) {
  // Equilateral: the centre.
  const MemoryBlocks triangle =
      Blocks({{0, 0}, {1, 0}, {0.5f, 0.8660254037844386f}});
  EXPECT_THAT(*GeometricMedian(triangle, 200, 1e-9, {}, 1),
              Pointwise(DoubleNear(1e-6), {0.5, 0.28867513459481287}));
}

// All rules on random inputs against the plain formulas, over numbers of
// updates around powers of two, sizes around blocks, block sizes and threads.
TEST(RobustRules, AgreeWithPlainFormulas) {
  SeededRandom random(11);
  for (const size_t n : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 9u, 16u, 17u, 33u, 100u}) {
    for (const size_t size : {1u, 63u, 64u, 65u, 700u}) {
      SCOPED_TRACE(std::to_string(n) + " updates of " + std::to_string(size));
      const std::vector<Update> updates = Honest(n, size, random);
      std::vector<uint32_t> weights(n);
      for (uint32_t& weight : weights) {
        weight = static_cast<uint32_t>(1 + UniformBelow(random, 100));
      }
      const MemoryBlocks blocks =
          Blocks(updates, n % 2 == 0 ? 64 : 300, weights);
      const size_t threads = 1 + n % 3;
      EXPECT_THAT(*CoordinateMedian(blocks, threads),
                  Pointwise(DoubleEq(), ReferenceMedian(updates)));
      const size_t trim = (n - 1) / 3;
      EXPECT_THAT(
          *TrimmedMean(blocks, trim, threads),
          Pointwise(DoubleNear(1e-12), ReferenceTrimmed(updates, trim)));
      EXPECT_THAT(*GeometricMedian(blocks, 3, 1e-6, {}, threads),
                  Pointwise(DoubleNear(1e-9),
                            ReferenceWeiszfeld(updates, weights, 3, 1e-6)));
      if (n < 3) continue;
      const size_t f = (n - 3) / 2;
      EXPECT_EQ(*KrumRanking(blocks, f, {}, threads),
                ReferenceKrum(updates, f));
    }
  }
}

TEST(RobustRules, GiveTheSameBitsOnAnyNumberOfThreads) {
  SeededRandom random(12);
  const std::vector<Update> updates = Honest(21, 1000, random);
  const MemoryBlocks blocks = Blocks(updates, 100);
  const std::vector<ElementRange> buffers = {{130, 250}};
  plan::StrategySpec strategy;
  strategy.num_malicious_nodes = 4;
  for (const auto name :
       {plan::StrategyName::kFedMedian, plan::StrategyName::kFedTrimmedAvg,
        plan::StrategyName::kKrum, plan::StrategyName::kMultiKrum,
        plan::StrategyName::kRfa}) {
    strategy.name = name;
    ASSERT_TRUE(plan::HoldsUpdates(name));
    const auto one = AggregateRobustly(strategy, blocks, buffers, 1);
    ASSERT_THAT(one, IsOk());
    for (const size_t threads : {2u, 3u, 16u, 100u}) {
      EXPECT_EQ(*AggregateRobustly(strategy, blocks, buffers, threads), *one);
    }
  }
  strategy.name = plan::StrategyName::kFedAvg;
  EXPECT_FALSE(plan::HoldsUpdates(strategy.name));
  EXPECT_THAT(AggregateRobustly(strategy, blocks, buffers, 1),
              StatusIs(StatusCode::kInternal));
}

TEST(RobustRules, Buffers_AreCoordinateMediansWhateverTheRule) {
  SeededRandom random(13);
  std::vector<Update> updates = Honest(9, 40, random);
  updates[3][20] = 65'000;  // a lie in a buffer of an update that looks well
  const MemoryBlocks blocks = Blocks(updates, 7);
  const std::vector<ElementRange> buffers = {{5, 3}, {20, 10}};
  const std::vector<double> median = ReferenceMedian(updates);
  plan::StrategySpec strategy;
  strategy.num_malicious_nodes = 2;
  for (const auto name :
       {plan::StrategyName::kFedMedian, plan::StrategyName::kFedTrimmedAvg,
        plan::StrategyName::kKrum, plan::StrategyName::kMultiKrum,
        plan::StrategyName::kRfa}) {
    strategy.name = name;
    const auto result = AggregateRobustly(strategy, blocks, buffers, 2);
    ASSERT_THAT(result, IsOk());
    for (const ElementRange& range : buffers) {
      for (size_t i = range.begin; i < range.begin + range.count; ++i) {
        EXPECT_EQ((*result)[i], median[i]) << i;
      }
    }
  }
}

TEST(MultiKrum, ByDefault_IsTheMeanOfAllButF) {
  const MemoryBlocks blocks = Blocks({{0}, {1}, {2}, {4}, {100}});
  plan::StrategySpec strategy;
  strategy.name = plan::StrategyName::kMultiKrum;
  strategy.num_malicious_nodes = 1;
  EXPECT_THAT(*AggregateRobustly(strategy, blocks, {}, 1), ElementsAre(1.75));
  strategy.num_nodes_to_select = 2;
  EXPECT_THAT(*AggregateRobustly(strategy, blocks, {}, 1), ElementsAre(0.5));
  strategy.num_malicious_nodes = 0;  // of all, it is the mean
  strategy.num_nodes_to_select = 0;
  EXPECT_THAT(*AggregateRobustly(strategy, blocks, {}, 1), ElementsAre(21.4));
}

// ------------------------------------------------------------- what they are
// for

// Attackers in the place of the first f updates.
enum class Attack { kSignFlip, kScaled, kSame };
std::vector<Update> Attacked(std::vector<Update> updates, size_t f,
                             Attack attack) {
  const Update first = updates[0];
  for (size_t u = 0; u < f; ++u) {
    for (size_t i = 0; i < first.size(); ++i) {
      float& value = updates[u][i];
      switch (attack) {
        case Attack::kSignFlip:
          value = -4 * value;
          break;
        case Attack::kScaled:
          value *= 1e6f;
          break;
        case Attack::kSame:  // in collusion
          value = -10 * first[i];
          break;
      }
    }
  }
  return updates;
}

class Breakdown : public ::testing::TestWithParam<Attack> {};
INSTANTIATE_TEST_SUITE_P(Attacks, Breakdown,
                         ::testing::Values(Attack::kSignFlip, Attack::kScaled,
                                           Attack::kSame));

TEST_P(Breakdown, MedianAndTrimmedMean_StayWithinTheHonestRange) {
  SeededRandom random(14);
  for (size_t n = 3; n <= 21; ++n) {
    for (size_t f = 0; 2 * f < n; ++f) {
      const std::vector<Update> updates =
          Attacked(Honest(n, 30, random), f, GetParam());
      const std::vector<Update> honest(
          updates.begin() + static_cast<std::ptrdiff_t>(f), updates.end());
      const MemoryBlocks blocks = Blocks(updates, 8);
      const auto median = CoordinateMedian(blocks, 1);
      const auto trimmed = TrimmedMean(blocks, f, 1);
      for (size_t i = 0; i < 30; ++i) {
        const std::vector<double> column = SortedColumn(honest, i);
        EXPECT_GE((*median)[i], column.front());
        EXPECT_LE((*median)[i], column.back());
        EXPECT_GE((*trimmed)[i], column.front() - 1e-9);
        EXPECT_LE((*trimmed)[i], column.back() + 1e-9);
      }
    }
  }
}

TEST_P(Breakdown, Krum_ChoosesHonestUpdates) {
  SeededRandom random(15);
  for (size_t n = 5; n <= 25; ++n) {
    const size_t f = (n - 3) / 2;
    const MemoryBlocks blocks =
        Blocks(Attacked(Honest(n, 100, random), f, GetParam()), 32);
    const auto ranking = KrumRanking(blocks, f, {}, 1);
    ASSERT_THAT(ranking, IsOk());
    // The same lie told f times is near itself, but only f - 1 times.
    EXPECT_GE(ranking->front(), f) << n;
    if (GetParam() == Attack::kSame) continue;
    for (size_t rank = 0; rank < n - f; ++rank) {
      EXPECT_GE((*ranking)[rank], f) << n;
    }
  }
}

TEST_P(Breakdown, GeometricMedian_StaysNearTheHonestMean) {
  SeededRandom random(16);
  for (const size_t n : {10u, 20u, 50u}) {
    for (const size_t percent : {10u, 20u, 30u, 40u}) {
      const size_t f = n * percent / 100;
      const std::vector<Update> updates =
          Attacked(Honest(n, 100, random), f, GetParam());
      const std::vector<Update> honest(
          updates.begin() + static_cast<std::ptrdiff_t>(f), updates.end());
      const std::vector<double> mean = MeanOf(honest);
      double spread = 0;  // of honest updates around their mean
      for (const Update& update : honest) {
        spread = std::max(
            spread,
            Distance(mean, std::vector<double>(update.begin(), update.end())));
      }
      const auto result = GeometricMedian(Blocks(updates, 32), 3, 1e-6, {}, 1);
      EXPECT_LT(Distance(*result, mean), spread) << n << " " << percent;
      if (GetParam() == Attack::kScaled) {
        EXPECT_GT(Distance(MeanOf(updates), mean), 1000 * spread);
      }
    }
  }
}

// A value that grows never makes the result smaller.
TEST(RobustRules, MedianAndTrimmedMean_AreMonotone) {
  SeededRandom random(17);
  for (int trial = 0; trial < 200; ++trial) {
    const size_t n = 3 + UniformBelow(random, 10);
    std::vector<Update> updates = Honest(n, 4, random);
    const auto before = CoordinateMedian(Blocks(updates), 1);
    const auto trimmed_before = TrimmedMean(Blocks(updates), 1, 1);
    updates[UniformBelow(random, n)][2] +=
        static_cast<float>(10 * UniformUnit(random));
    const auto after = CoordinateMedian(Blocks(updates), 1);
    const auto trimmed_after = TrimmedMean(Blocks(updates), 1, 1);
    EXPECT_GE((*after)[2], (*before)[2]);
    EXPECT_GE((*trimmed_after)[2], (*trimmed_before)[2] - 1e-12);
    EXPECT_EQ((*after)[1], (*before)[1]);
  }
}

// All move with the updates when these are moved or scaled together.
TEST(RobustRules, AreEquivariant) {
  SeededRandom random(18);
  const std::vector<Update> updates = Honest(9, 50, random);
  std::vector<Update> moved = updates;
  for (Update& update : moved) {
    for (float& value : update) value = 2 * value + 1;
  }
  plan::StrategySpec strategy;
  strategy.num_malicious_nodes = 2;
  for (const auto name :
       {plan::StrategyName::kFedMedian, plan::StrategyName::kFedTrimmedAvg,
        plan::StrategyName::kKrum, plan::StrategyName::kMultiKrum,
        plan::StrategyName::kRfa}) {
    strategy.name = name;
    const auto plain = AggregateRobustly(strategy, Blocks(updates), {}, 1);
    const auto result = AggregateRobustly(strategy, Blocks(moved), {}, 1);
    for (size_t i = 0; i < 50; ++i) {
      EXPECT_NEAR((*result)[i], 2 * (*plain)[i] + 1, 1e-5);
    }
  }
}

TEST(RobustRules, MinusZero_IsZero) {
  const auto median = CoordinateMedian(Blocks({{-0.0f}, {0.0f}}), 1);
  EXPECT_FALSE(std::signbit((*median)[0]));
}

TEST(RobustRules, ErrorsOfReading_ArePassedOn) {
  MemoryBlocks blocks = Blocks({{1}, {2}, {3}});
  blocks.failure = DataLoss("block 0 is gone");
  EXPECT_THAT(CoordinateMedian(blocks, 2),
              StatusIs(StatusCode::kDataLoss, HasSubstr("block 0 is gone")));
  EXPECT_THAT(GeometricMedian(blocks, 3, 1e-6, {}, 1),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(KrumRanking(blocks, 0, {}, 1), StatusIs(StatusCode::kDataLoss));
}

TEST(RobustRules, AValueThatIsNotFinite_IsRefused) {
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    const MemoryBlocks blocks = Blocks({{1, 2}, {2, bad}, {3, 4}});
    EXPECT_THAT(CoordinateMedian(blocks, 1),
                StatusIs(StatusCode::kInternal,
                         HasSubstr("update 1, element 1 is not finite")));
  }
}

TEST(NormBound, InStretches_ScalesTheSharedElementsAlone) {
  const std::vector<ElementRange> shared = {{0, 1}, {2, 1}};
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{2}, size_t{3}}) {
    Update values = {3, 100, 4};
    const std::span<float> head = std::span(values).first(cut);
    const std::span<float> tail = std::span(values).subspan(cut);
    const double squares =
        AddSquares(shared, cut, tail, AddSquares(shared, 0, head, 0));
    EXPECT_EQ(squares, 25);
    EXPECT_EQ(BoundFactor(squares, 5), 1);
    const double factor = BoundFactor(squares, 1);
    EXPECT_DOUBLE_EQ(factor, 0.2);
    ScaleElements(shared, 0, factor, head);
    ScaleElements(shared, cut, factor, tail);
    EXPECT_FLOAT_EQ(values[0], 0.6f);
    EXPECT_EQ(values[1], 100);
    EXPECT_FLOAT_EQ(values[2], 0.8f);
  }
  EXPECT_EQ(BoundFactor(0, 1e-9), 1);
}

}  // namespace
}  // namespace selvage::aggregation
