// Large models a piece at a time give the bits of the whole.
#include "aggregation/codec/pieces.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/exact_sum.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using ::selvage::test::IsOk;
using ::testing::ElementsAre;

const std::vector<size_t> kCounts = {1, 300, 2500, 1024, 7};
constexpr size_t kTotal = 1 + 300 + 2500 + 1024 + 7;

std::vector<float> RandomValues(RandomSource& random) {
  std::vector<float> values(kTotal);
  for (float& value : values) {
    value = static_cast<float>(UniformUnit(random) * 2 - 1);
  }
  return values;
}

CodecSpec SpecOf(CodecName name) {
  CodecSpec codec(name);
  codec.top_k = 0.1;
  codec.rotation_seed = 5;
  return codec;
}

class PiecesTest : public ::testing::TestWithParam<CodecName> {};
INSTANTIATE_TEST_SUITE_P(Codecs, PiecesTest,
                         ::testing::ValuesIn(plan::kCodecNames),
                         [](const auto& param) {
                           return std::string(plan::CodecNameText(param.param));
                         });

TEST_P(PiecesTest, DecodeSlice_OfAnyCut_IsDecode) {
  SeededRandom random(1);
  const CodecSpec codec = SpecOf(GetParam());
  const auto bytes = Encode(codec, kCounts, RandomValues(random), &random);
  ASSERT_THAT(bytes, IsOk());
  const std::vector<float> whole = *Decode(codec, kCounts, *bytes);
  for (const size_t size :
       {size_t{1}, size_t{99}, size_t{256}, size_t{1000}, kTotal}) {
    std::vector<float> joined;
    for (size_t first = 0; first < kTotal; first += size) {
      std::vector<float> slice(std::min(size, kTotal - first), -7.0f);
      DecodeSlice(codec, kCounts, *bytes, first, slice);
      joined.insert(joined.end(), slice.begin(), slice.end());
    }
    EXPECT_EQ(joined, whole) << size;
  }
}

TEST_P(PiecesTest, SumsOfStretches_AreTheSumOfTheWhole) {
  SeededRandom random(2);
  const CodecSpec codec = SpecOf(GetParam());
  SumLayout layout;
  for (const size_t count : kCounts) layout.ranges.push_back({count, 8.0});
  layout.ranges[2].max_abs = 2.5;
  layout.update_count_max = 10;
  std::vector<Bytes> encoded;
  std::vector<EncodedUpdate> updates;
  for (uint32_t u = 0; u < 4; ++u) {
    encoded.push_back(*Encode(codec, kCounts, RandomValues(random), &random));
  }
  for (uint32_t u = 0; u < 4; ++u)
    updates.push_back({codec, encoded[u], u + 1});
  ExactSum whole = *ExactSum::Create(layout);
  ASSERT_THAT(whole.AddAllEncoded(updates), IsOk());
  std::vector<int64_t> sums;
  std::vector<double> means;
  for (const SumStretch& stretch : CutLayout(layout, 700)) {
    EXPECT_EQ(stretch.first, sums.size());
    ExactSum part = *ExactSum::Create(stretch.layout);
    std::vector<float> values(stretch.layout.element_count());
    for (const EncodedUpdate& update : updates) {
      DecodeSlice(codec, kCounts, update.bytes, stretch.first, values);
      ASSERT_THAT(part.Add({values, update.weight}), IsOk());
    }
    sums.insert(sums.end(), part.sums().begin(), part.sums().end());
    const auto mean = std::move(part).FinishMean();
    means.insert(means.end(), mean->begin(), mean->end());
  }
  EXPECT_EQ(sums,
            std::vector<int64_t>(whole.sums().begin(), whole.sums().end()));
  EXPECT_EQ(means, *std::move(whole).FinishMean());
}

TEST(CutLayout, KeepsOrderBoundsAndLimits) {
  const SumLayout layout{{{2, 8.0}, {0, 1.0}, {5, 4.0}}, 100, 1000};
  const auto stretches = CutLayout(layout, 3);
  ASSERT_EQ(stretches.size(), 3u);
  EXPECT_THAT(stretches[0].layout.ranges,
              ElementsAre(SumRange{2, 8.0}, SumRange{1, 4.0}));
  EXPECT_THAT(stretches[1].layout.ranges, ElementsAre(SumRange{3, 4.0}));
  EXPECT_THAT(stretches[2].layout.ranges, ElementsAre(SumRange{1, 4.0}));
  EXPECT_EQ(stretches[2].first, 6u);
  EXPECT_EQ(stretches[2].layout.weight_max, 100u);
  EXPECT_EQ(stretches[2].layout.update_count_max, 1000u);
  EXPECT_EQ(CutLayout(layout, 7).size(), 1u);
  EXPECT_EQ(CutLayout({{}, 1, 1}, 7).size(), 1u);
}

TEST(PieceEncoder, OfPieces_IsEncode) {
  SeededRandom random(3);
  const std::vector<float> values = RandomValues(random);
  float most = 0;
  for (const float value : values) most = std::max(most, std::abs(value));
  const std::vector<size_t> counts = {kTotal};
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    const PieceEncoder encoder(codec, most);
    Bytes bytes;
    encoder.AppendHead(bytes);
    for (size_t at = 0; at < kTotal; at += 1001) {
      encoder.Append(std::span<const float>(values).subspan(
                         at, std::min(size_t{1001}, kTotal - at)),
                     bytes);
    }
    EXPECT_EQ(bytes, *Encode(codec, counts, values));
  }
}

}  // namespace
}  // namespace selvage::aggregation
