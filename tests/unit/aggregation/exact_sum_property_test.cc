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

Cohort AnyCohort(size_t size, SeededRandom& random) {
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

Cohort AnyCohort(SeededRandom& random) {
  // Many small cohorts, now and then one of two thousand.
  const size_t size =
      1 + UniformBelow(random, UniformBelow(random, 20) == 0 ? 2000 : 60);
  return AnyCohort(size, random);
}

CodecSpec AnyCodec(SeededRandom& random) {
  CodecSpec codec =
      plan::kCodecNames[UniformBelow(random, std::size(plan::kCodecNames))];
  codec.top_k = 0.5 * UniformUnit(random) + 1e-9;
  codec.rotation_seed = UniformBelow(random, 3);
  return codec;
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
      const CodecSpec codec = AnyCodec(random);
      // At an odd address, as in a message.
      Bytes encoded = *Encode(codec, counts, cohort.values[u], &random);
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
    const Bytes bits = expected.Serialize();
    ExactSum sum = *ExactSum::Create(cohort.layout);
    RC_ASSERT(sum.AddAllEncoded(updates).ok());
    RC_ASSERT(sum.Serialize() == bits);
    // Split over replicas, in any order, on any number of threads.
    Shuffle(updates, random);
    ExactSum whole = *ExactSum::Create(cohort.layout);
    const size_t shards = 1 + UniformBelow(random, 16);
    for (size_t s = 0; s < shards; ++s) {
      const size_t begin = updates.size() * s / shards;
      const size_t end = updates.size() * (s + 1) / shards;
      ThreadExecutor threads(1 + UniformBelow(random, 4));
      ExactSum shard = *ExactSum::Create(cohort.layout);
      RC_ASSERT(
          shard
              .AddAllEncoded(std::span(updates).subspan(begin, end - begin),
                             &threads)
              .ok());
      RC_ASSERT(whole.MergeWith(std::move(shard)).ok());
    }
    RC_ASSERT(whole.Serialize() == bits);
  }));
}

// Long enough for several tiles, runs and scales of each kind.
TEST(ExactSumProperty, LongTensors_ThreadsAndSplitsGiveTheSameBits) {
  SeededRandom random(8);
  SumLayout layout;
  layout.ranges = {{.count = 40'000}, {.count = 1}, {.count = 70'003}};
  layout.update_count_max = 100;
  std::vector<size_t> counts;
  for (const SumRange& range : layout.ranges) counts.push_back(range.count);
  std::vector<Bytes> buffers;
  std::vector<EncodedUpdate> updates;
  ExactSum expected = *ExactSum::Create(layout);
  buffers.reserve(30);
  for (uint32_t u = 0; u < 30; ++u) {
    std::vector<float> values(layout.element_count());
    for (float& value : values) {
      value = static_cast<float>(UniformUnit(random) - 0.5) * 0.1f;
    }
    const CodecSpec codec = AnyCodec(random);
    buffers.push_back(*Encode(codec, counts, values, &random));
    updates.push_back({codec, buffers.back(), u + 1});
    const std::vector<float> decoded = *Decode(codec, counts, buffers.back());
    ASSERT_TRUE(expected.Add({.values = decoded, .weight = u + 1}).ok());
  }
  for (const size_t threads : {1U, 2U, 3U, 7U}) {
    ThreadExecutor executor(threads);
    ExactSum sum = *ExactSum::Create(layout);
    ASSERT_TRUE(sum.AddAllEncoded(updates, &executor).ok());
    EXPECT_EQ(sum.Serialize(), expected.Serialize()) << threads;
    // A bad value leaves no trace, whichever thread meets it.
    std::vector<float> bad(layout.element_count(), 1.0f);
    bad[100'000] = 8.0f;
    const Bytes bytes = *Encode(CodecName::kFloat32, counts, bad);
    std::vector<EncodedUpdate> with_bad = updates;
    with_bad.push_back({CodecName::kFloat32, bytes, 1});
    EXPECT_FALSE(sum.AddAllEncoded(with_bad, &executor).ok());
    EXPECT_EQ(sum.Serialize(), expected.Serialize()) << threads;
  }
}

TEST(ExactSumProperty, TenThousandUpdates_AnyShardsGiveTheSameBits) {
  SeededRandom random(9);
  const Cohort cohort = AnyCohort(10'000, random);
  const Bytes expected = SumInOrder(cohort).Serialize();
  for (const size_t shard_count : {1U, 2U, 5U, 16U}) {
    std::vector<std::vector<WeightedUpdate>> parts(shard_count);
    for (size_t u = 0; u < cohort.size(); ++u) {
      parts[UniformBelow(random, shard_count)].push_back(cohort.update(u));
    }
    ExactSum whole = *ExactSum::Create(cohort.layout);
    for (const auto& part : parts) {
      ExactSum shard = *ExactSum::Create(cohort.layout);
      ASSERT_TRUE(shard.AddAll(part).ok());
      ASSERT_TRUE(whole.MergeSerialized(shard.Serialize()).ok());
    }
    EXPECT_EQ(whole.Serialize(), expected) << shard_count;
  }
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
