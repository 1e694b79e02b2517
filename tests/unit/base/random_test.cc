#include "base/random.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace selvage {
namespace {

// The first outputs of xoshiro256** for states from SplitMix64, as the
// reference implementations of Blackman and Vigna give them.
TEST(SeededRandomTest, Next_KnownSeeds_GivesTheReferenceSequence) {
  const struct {
    uint64_t seed;
    std::array<uint64_t, 6> outputs;
  } vectors[] = {
      {0,
       {0x99EC5F36CB75F2B4, 0xBF6E1F784956452A, 0x1A5F849D4933E6E0,
        0x6AA594F1262D2D2C, 0xBBA5AD4A1F842E59, 0xFFEF8375D9EBCACA}},
      {42,
       {0x15780B2E0C2EC716, 0x6104D9866D113A7E, 0xAE17533239E499A1,
        0xECB8AD4703B360A1, 0xFDE6DC7FE2EC5E64, 0xC50DA53101795238}},
      {std::numeric_limits<uint64_t>::max(),
       {0x8F5520D52A7EAD08, 0xC476A018CAA1802D, 0x81DE31C0D260469E,
        0xBF658D7E065F3C2F, 0x913593FDA1BCA32A, 0xBB535E93941BA525}},
  };
  for (const auto& v : vectors) {
    SeededRandom random(v.seed);
    for (const uint64_t expected : v.outputs) {
      EXPECT_EQ(random.Next(), expected) << "seed " << v.seed;
    }
  }
}

TEST(SeededRandomTest, Fill_KnownSeed_GivesTheGoldenBytes) {
  SeededRandom random(42);
  Bytes bytes(20);
  random.Fill(bytes);
  // Three words, least significant byte first; the third is cut and its rest
  // thrown away.
  EXPECT_EQ(ToHex(bytes),
            "16c72e0c2e0b7815"
            "7e3a116d86d90461"
            "a199e439");
  EXPECT_EQ(random.Next(), 0xECB8AD4703B360A1);
}

TEST(SeededRandomTest, RandomU64_SameSource_EqualsNext) {
  SeededRandom a(9);
  SeededRandom b(9);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(RandomU64(a), b.Next());
}

TEST(OsRandomTest, Fill_TwiceAndNothing_DiffersAndReturns) {
  OsRandom random;
  Bytes a(32);
  Bytes b(32);
  random.Fill(a);
  random.Fill(b);
  EXPECT_NE(a, b);
  random.Fill({});
}

TEST(UniformBelowTest, AnyBound_StaysBelowIt) {
  SeededRandom random(1);
  for (const uint64_t bound :
       {uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{1000},
        uint64_t{1} << 63, (uint64_t{1} << 63) + 1,
        std::numeric_limits<uint64_t>::max()}) {
    for (int i = 0; i < 200; ++i) {
      EXPECT_LT(UniformBelow(random, bound), bound);
    }
  }
}

TEST(UniformBelowTest, SmallBound_IsEven) {
  SeededRandom random(2);
  std::array<int, 6> counts{};
  constexpr int kDraws = 60'000;
  for (int i = 0; i < kDraws; ++i) ++counts[UniformBelow(random, 6)];
  for (const int count : counts) {
    EXPECT_NEAR(count, kDraws / 6, 500);  // five standard deviations: 456
  }
}

// Hands out given words.
class ScriptedRandom final : public RandomSource {
 public:
  explicit ScriptedRandom(std::vector<uint64_t> words)
      : words_(std::move(words)) {}
  void Fill(std::span<uint8_t> out) override {
    ASSERT_LT(next_, words_.size());
    Bytes bytes;
    AppendLe(bytes, words_[next_++]);
    ASSERT_EQ(out.size(), bytes.size());
    std::copy(bytes.begin(), bytes.end(), out.begin());
  }
  size_t used() const { return next_; }

 private:
  const std::vector<uint64_t> words_;
  size_t next_ = 0;
};

TEST(UniformBelowTest, ValuesThatWouldBias_AreDrawnAgain) {
  // 2^64 mod 10 = 6: the words 0..5 are one too many for their residues.
  ScriptedRandom random({0, 5, 6});
  EXPECT_EQ(UniformBelow(random, 10), 6U);
  EXPECT_EQ(random.used(), 3U);
  // A power of two divides 2^64: nothing is thrown away.
  ScriptedRandom even({0});
  EXPECT_EQ(UniformBelow(even, 8), 0U);
}

TEST(UniformUnitTest, ExtremeWords_StayInTheHalfOpenInterval) {
  ScriptedRandom random({0, std::numeric_limits<uint64_t>::max(), 1U << 11});
  EXPECT_EQ(UniformUnit(random), 0.0);
  const double largest = UniformUnit(random);
  EXPECT_LT(largest, 1.0);
  EXPECT_EQ(largest, 1.0 - 0x1.0p-53);
  EXPECT_EQ(UniformUnit(random), 0x1.0p-53);
}

TEST(ShuffleTest, SameSeed_GivesTheSamePermutation) {
  std::vector<int> items(50);
  std::iota(items.begin(), items.end(), 0);
  std::vector<int> again = items;
  const std::vector<int> sorted = items;
  SeededRandom a(3);
  SeededRandom b(3);
  Shuffle(items, a);
  Shuffle(again, b);
  EXPECT_EQ(items, again);
  EXPECT_NE(items, sorted);
  std::sort(items.begin(), items.end());
  EXPECT_EQ(items, sorted);
}

TEST(ShuffleTest, ThreeItems_ReachesEveryOrder) {
  SeededRandom random(4);
  std::set<std::vector<int>> orders;
  for (int i = 0; i < 200; ++i) {
    std::vector<int> items = {1, 2, 3};
    Shuffle(items, random);
    orders.insert(items);
  }
  EXPECT_EQ(orders.size(), 6U);
  std::vector<int> none;
  Shuffle(none, random);
}

TEST(DeriveSeedTest, KnownArguments_GiveGoldenSeeds) {
  EXPECT_EQ(DeriveSeed(1, "selection", 3), 0x4EAE22C9ADBAD118U);
  EXPECT_EQ(DeriveSeed(0, "", 0), 0x4193FD1B681DCD25U);
  EXPECT_EQ(DeriveSeed(1, "init", 0), 0xABB5B0F39841EFF0U);
}

TEST(DeriveSeedTest, AnyArgumentChanged_GivesAnotherSeed) {
  std::set<uint64_t> seeds;
  for (uint64_t parent = 0; parent < 20; ++parent) {
    for (const std::string label : {"selection", "init", "shuffle"}) {
      for (uint64_t index = 0; index < 20; ++index) {
        seeds.insert(DeriveSeed(parent, label, index));
      }
    }
  }
  EXPECT_EQ(seeds.size(), 20U * 3 * 20);
}

}  // namespace
}  // namespace selvage
