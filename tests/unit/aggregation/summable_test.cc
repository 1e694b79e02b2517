// What ExactlySummable promises, of every sum there is: over random
// contributions, 1 to 10,000 of them, any split over 1 to 16 shards that fill
// at the same time on any number of threads and any tree of merges, through
// bytes or not, give the same bits as one sum in order.
#include "aggregation/summable.h"

#include <rapidcheck.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "aggregation/evaluation_sums.h"
#include "aggregation/exact_sum.h"
#include "aggregation/metrics.h"
#include "base/executor.h"
#include "base/random.h"
#include "tests/unit/aggregation/hard_values.h"

namespace selvage::aggregation {
namespace {

// How to make, feed and read one kind of sum: `Sum`, `Contribution`, and with
// the shape that the constructor draws Empty(), Any(), Add() and Parse().

class Updates {
 public:
  using Sum = ExactSum;
  struct Contribution {
    std::vector<float> values;
    uint32_t weight = 1;
  };

  Updates(size_t count, SeededRandom& random) {
    constexpr double kBounds[] = {8, 0.3, 0x1p24, 1e-6};
    layout_.update_count_max = count;
    const size_t ranges = 1 + UniformBelow(random, 3);
    for (size_t r = 0; r < ranges; ++r) {
      layout_.ranges.push_back(
          {.count = UniformBelow(random, 9),
           .max_abs = kBounds[UniformBelow(random, std::size(kBounds))]});
    }
  }
  Sum Empty() const { return *ExactSum::Create(layout_); }
  Contribution Any(SeededRandom& random) const {
    Contribution any;
    for (const SumRange& range : layout_.ranges) {
      const double scale = ScaleFor(range.max_abs);
      for (size_t i = 0; i < range.count; ++i) {
        any.values.push_back(AnyWithin(range.max_abs, scale, random));
      }
    }
    any.weight = 1 + static_cast<uint32_t>(UniformBelow(random, kWeightMax));
    return any;
  }
  static Status Add(const Contribution& what, Sum& sum) {
    return sum.Add({.values = what.values, .weight = what.weight});
  }
  Result<Sum> Parse(const Bytes& bytes) const {
    return ExactSum::Parse(layout_, bytes);
  }

 private:
  SumLayout layout_;
};

class Metrics {
 public:
  using Sum = MetricSums;
  using Contribution = std::vector<MetricValue>;

  Metrics(size_t, SeededRandom& random)
      : metric_count_(1 + UniformBelow(random, 3)) {}
  Sum Empty() const { return MetricSums(metric_count_); }
  Contribution Any(SeededRandom& random) const {
    Contribution any(metric_count_);
    for (MetricValue& value : any) {
      value.count = static_cast<int64_t>(UniformBelow(random, 50));
      if (value.count == 0) continue;
      if (UniformBelow(random, 20) == 0) value.count = kMetricCountMax;
      value.numerator =
          UniformBelow(random, 20) == 0
              ? -kMetricNumeratorMax
              : static_cast<int64_t>(UniformBelow(random, uint64_t{1} << 26));
    }
    return any;
  }
  static Status Add(const Contribution& what, Sum& sum) {
    return sum.Add(what);
  }
  static Result<Sum> Parse(const Bytes& bytes) {
    return MetricSums::Parse(bytes);
  }

 private:
  const size_t metric_count_;
};

class Evaluations {
 public:
  using Sum = EvaluationSums;
  struct Contribution {
    std::string device_class;
    std::vector<MetricValue> metrics;
  };

  Evaluations(size_t count, SeededRandom& random)
      : metrics_(count, random), empty_(metrics_.Empty().sums().size()) {}
  Sum Empty() const { return empty_; }
  Contribution Any(SeededRandom& random) const {
    return {"class " + std::to_string(UniformBelow(random, 5)),
            metrics_.Any(random)};
  }
  static Status Add(const Contribution& what, Sum& sum) {
    return sum.Add(what.device_class, what.metrics);
  }
  static Result<Sum> Parse(const Bytes& bytes) {
    return EvaluationSums::Parse(bytes);
  }

 private:
  const Metrics metrics_;
  const EvaluationSums empty_;
};

// Few mostly, now and then thousands.
size_t AnyCount(SeededRandom& random) {
  return static_cast<size_t>(std::pow(10'000.0, UniformUnit(random)));
}

template <typename Kind>
void CheckAnySplit(size_t count, SeededRandom& random) {
  using Sum = typename Kind::Sum;
  const Kind kind(count, random);
  std::vector<typename Kind::Contribution> all;
  Sum expected = kind.Empty();
  for (size_t c = 0; c < count; ++c) {
    all.push_back(kind.Any(random));
    RC_ASSERT(Kind::Add(all.back(), expected).ok());
  }
  const Bytes bits = expected.Serialize();

  Shuffle(all, random);
  const size_t shard_count = 1 + UniformBelow(random, 16);
  std::vector<size_t> shard_of;
  for (size_t c = 0; c < count; ++c) {
    shard_of.push_back(UniformBelow(random, shard_count));
  }
  std::vector<Sum> shards;
  for (size_t s = 0; s < shard_count; ++s) shards.push_back(kind.Empty());
  std::vector<uint8_t> filled(shard_count, 1);
  ThreadExecutor threads(1 + UniformBelow(random, 4));
  threads.Run(shard_count, [&](size_t s) {
    for (size_t c = 0; c < count; ++c) {
      if (shard_of[c] == s && !Kind::Add(all[c], shards[s]).ok()) filled[s] = 0;
    }
  });
  for (const uint8_t ok : filled) RC_ASSERT(ok == 1);

  while (shards.size() > 1) {
    Shuffle(shards, random);
    Sum from = std::move(shards.back());
    shards.pop_back();
    if (UniformBelow(random, 2) == 0) {
      Result<Sum> parsed = kind.Parse(from.Serialize());
      RC_ASSERT(parsed.ok());
      from = *std::move(parsed);
    }
    RC_ASSERT(shards.back().MergeWith(std::move(from)).ok());
  }
  RC_ASSERT(shards.front().Serialize() == bits);
}

template <typename Kind>
class SummableTest : public ::testing::Test {};
using Kinds = ::testing::Types<Updates, Metrics, Evaluations>;
TYPED_TEST_SUITE(SummableTest, Kinds);

TYPED_TEST(SummableTest, AnySplit_OnAnyThreads_GivesTheSameBits) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    CheckAnySplit<TypeParam>(AnyCount(random), random);
  }));
}

TYPED_TEST(SummableTest, TenThousand_OnAnyThreads_GiveTheSameBits) {
  SeededRandom random(10'000);
  CheckAnySplit<TypeParam>(10'000, random);
}

}  // namespace
}  // namespace selvage::aggregation
