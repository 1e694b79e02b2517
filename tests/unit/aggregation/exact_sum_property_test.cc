// What "exact" promises, over random updates: the same bits in any order and
// any split, and those of 128-bit integers.
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "aggregation/codec/codec.h"
#include "aggregation/exact_sum.h"
#include "base/random.h"
#include "tests/unit/aggregation/hard_values.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;

__extension__ using Int128 = __int128;

constexpr double kBounds[] = {8, 65536, 0.3, 10, 0x1p24, 1e-6};

struct Cohort {
  SumLayout layout;
  std::vector<std::vector<float>> values;
  std::vector<uint32_t> weights;

  size_t size() const { return values.size(); }
  WeightedUpdate update(size_t u) const {
    return {.values = values[u], .weight = weights[u]};
  }
};

Cohort AnyCohort(SeededRandom& random) {
  // Many small cohorts, now and then one of two thousand.
  const size_t size =
      1 + UniformBelow(random, UniformBelow(random, 20) == 0 ? 2000 : 60);
  Cohort cohort;
  cohort.layout.update_count_max = size + UniformBelow(random, 3);
  const size_t ranges = 1 + UniformBelow(random, 4);
  for (size_t r = 0; r < ranges; ++r) {
    cohort.layout.ranges.push_back(
        {.count = UniformBelow(random, 24),
         .max_abs = kBounds[UniformBelow(random, std::size(kBounds))]});
  }
  for (size_t u = 0; u < size; ++u) {
    std::vector<float> values;
    for (const SumRange& range : cohort.layout.ranges) {
      const double scale = ScaleFor(range.max_abs);
      for (size_t i = 0; i < range.count; ++i) {
        values.push_back(AnyWithin(range.max_abs, scale, random));
      }
    }
    cohort.values.push_back(std::move(values));
    cohort.weights.push_back(
        1 + static_cast<uint32_t>(UniformBelow(random, kWeightMax)));
  }
  return cohort;
}

ExactSum SumInOrder(const Cohort& cohort) {
  ExactSum sum = *ExactSum::Create(cohort.layout);
  for (size_t u = 0; u < cohort.size(); ++u) {
    RC_ASSERT(sum.Add(cohort.update(u)).ok());
  }
  return sum;
}

TEST(ExactSumProperty, AnyCohort_EqualsThe128BitReference) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const Cohort cohort = AnyCohort(random);
    const ExactSum sum = SumInOrder(cohort);
    std::vector<Int128> expected(cohort.layout.element_count());
    Int128 weight_sum = 0;
    for (size_t u = 0; u < cohort.size(); ++u) {
      size_t next = 0;
      for (const SumRange& range : cohort.layout.ranges) {
        const double scale = ScaleFor(range.max_abs);
        for (const size_t end = next + range.count; next < end; ++next) {
          expected[next] +=
              Int128{std::llrint(double{cohort.values[u][next]} * scale)} *
              cohort.weights[u];
        }
      }
      weight_sum += cohort.weights[u];
    }
    RC_ASSERT(Int128{sum.weight_sum()} == weight_sum);
    for (size_t i = 0; i < expected.size(); ++i) {
      RC_ASSERT(Int128{sum.sums()[i]} == expected[i]);
    }
  }));
}

TEST(ExactSumProperty, AnyOrderAndGrouping_GivesTheSameBits) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const Cohort cohort = AnyCohort(random);
    const Bytes expected = SumInOrder(cohort).Serialize();
    std::vector<size_t> order(cohort.size());
    std::iota(order.begin(), order.end(), size_t{0});
    Shuffle(order, random);
    ExactSum sum = *ExactSum::Create(cohort.layout);
    size_t next = 0;
    while (next < order.size()) {
      const size_t size =
          std::min<size_t>(1 + UniformBelow(random, 40), order.size() - next);
      std::vector<WeightedUpdate> updates;
      for (size_t k = 0; k < size; ++k) {
        updates.push_back(cohort.update(order[next + k]));
      }
      RC_ASSERT(sum.AddAll(updates).ok());
      next += size;
    }
    RC_ASSERT(sum.Serialize() == expected);
  }));
}

TEST(ExactSumProperty, AnySplitAndMerge_GivesTheSameBits) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const Cohort cohort = AnyCohort(random);
    const Bytes expected = SumInOrder(cohort).Serialize();
    std::vector<ExactSum> shards;
    const size_t shard_count = 1 + UniformBelow(random, 16);
    for (size_t s = 0; s < shard_count; ++s) {
      shards.push_back(*ExactSum::Create(cohort.layout));
    }
    for (size_t u = 0; u < cohort.size(); ++u) {
      ExactSum& shard = shards[UniformBelow(random, shard_count)];
      RC_ASSERT(shard.Add(cohort.update(u)).ok());
    }
    // Merge two at random until one is left: any tree, and any of the ways.
    while (shards.size() > 1) {
      Shuffle(shards, random);
      ExactSum from = std::move(shards.back());
      shards.pop_back();
      switch (UniformBelow(random, 3)) {
        case 0:
          RC_ASSERT(shards.back().MergeWith(std::move(from)).ok());
          break;
        case 1:
          RC_ASSERT(shards.back().MergeSerialized(from.Serialize()).ok());
          break;
        default: {
          Result<ExactSum> parsed =
              ExactSum::Parse(cohort.layout, from.Serialize());
          RC_ASSERT(parsed.ok());
          RC_ASSERT(shards.back().MergeWith(*std::move(parsed)).ok());
        }
      }
    }
    RC_ASSERT(shards.front().Serialize() == expected);
  }));
}

TEST(ExactSumProperty, EncodedUpdates_AddLikeTheirDecodedValues) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const Cohort cohort = AnyCohort(random);
    std::vector<size_t> counts;
    for (const SumRange& range : cohort.layout.ranges) {
      counts.push_back(range.count);
    }
    std::vector<Bytes> buffers;
    std::vector<EncodedUpdate> updates;
    ExactSum expected = *ExactSum::Create(cohort.layout);
    for (size_t u = 0; u < cohort.size(); ++u) {
      const CodecName codec = UniformBelow(random, 2) == 0
                                  ? CodecName::kFloat32
                                  : CodecName::kFloat16;
      // At an odd address, as in a message.
      Bytes encoded = *Encode(codec, counts, cohort.values[u]);
      encoded.insert(encoded.begin(), 0);
      buffers.push_back(std::move(encoded));
      const ByteSpan bytes = ByteSpan(buffers.back()).subspan(1);
      const std::vector<float> decoded = *Decode(codec, counts, bytes);
      const EncodedUpdate update = {
          .codec = codec, .bytes = bytes, .weight = cohort.weights[u]};
      const Status added =
          expected.Add({.values = decoded, .weight = cohort.weights[u]});
      // Rounding to float16 may leave the bounds; both say so.
      RC_ASSERT(ExactSum::CheckEncoded(cohort.layout, update).ok() ==
                added.ok());
      if (added.ok()) updates.push_back(update);
    }
    ExactSum sum = *ExactSum::Create(cohort.layout);
    RC_ASSERT(sum.AddAllEncoded(updates).ok());
    RC_ASSERT(sum.Serialize() == expected.Serialize());
  }));
}

TEST(ExactSumProperty, Mean_IsWithinHalfAStepOfTheRealOne) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const Cohort cohort = AnyCohort(random);
    const std::vector<double> mean = *SumInOrder(cohort).FinishMean();
    size_t next = 0;
    for (const SumRange& range : cohort.layout.ranges) {
      const long double step = 1 / ScaleFor(range.max_abs);
      for (const size_t end = next + range.count; next < end; ++next) {
        long double sum = 0;
        long double weights = 0;
        for (size_t u = 0; u < cohort.size(); ++u) {
          sum += static_cast<long double>(cohort.values[u][next]) *
                 cohort.weights[u];
          weights += cohort.weights[u];
        }
        RC_ASSERT(std::abs(mean[next] - sum / weights) <= step * 0.5001L);
      }
    }
  }));
}

}  // namespace
}  // namespace selvage::aggregation
