// The codecs that are for updates only: error bounds as properties, no bias,
// and a decoder that takes nothing else.
#include <rapidcheck.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/codec/block.h"
#include "aggregation/codec/codec.h"
#include "aggregation/exact_sum.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> AnyValues(size_t count, SeededRandom& random) {
  const int exponent = static_cast<int>(UniformBelow(random, 160)) - 140;
  const bool outliers = UniformBelow(random, 2) == 0;
  std::vector<float> values(count);
  for (float& value : values) {
    value =
        static_cast<float>(std::ldexp(UniformUnit(random) * 2 - 1, exponent));
    if (outliers && UniformBelow(random, 50) == 0) value *= 1000;
    if (UniformBelow(random, 30) == 0) value = 0;
  }
  return values;
}

std::vector<size_t> AnyCounts(SeededRandom& random) {
  std::vector<size_t> counts(UniformBelow(random, 5));
  for (size_t& count : counts) count = UniformBelow(random, 3000);
  return counts;
}

double SquaredNorm(const float* values, size_t count) {
  return std::accumulate(values, values + count, 0.0,
                         [](double sum, float value) {
                           return sum + double{value} * double{value};
                         });
}

// Calls check(values, decoded, block, count) for each tensor of a round trip.
template <typename Check>
void ForEachTensor(const CodecSpec& codec, uint64_t seed, const Check& check) {
  SeededRandom random(seed);
  const std::vector<size_t> counts = AnyCounts(random);
  const std::vector<float> values = AnyValues(
      std::accumulate(counts.begin(), counts.end(), size_t{0}), random);
  const Result<Bytes> bytes = Encode(codec, counts, values, &random);
  RC_ASSERT(bytes.ok());
  RC_ASSERT(bytes->size() == EncodedSize(codec, counts));
  const Result<std::vector<float>> decoded = Decode(codec, counts, *bytes);
  RC_ASSERT(decoded.ok());
  BlockReader reader(codec, bytes->data());
  size_t offset = 0;
  for (const size_t count : counts) {
    check(values.data() + offset, decoded->data() + offset, reader.Next(count),
          count);
    offset += count;
  }
}

TEST(UpdateCodec, BFloat16_ErrorIsWithinItsBound) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    ForEachTensor(
        CodecName::kBFloat16, seed,
        [](const float* values, const float* decoded, const EncodedBlock&,
           size_t count) {
          for (size_t i = 0; i < count; ++i) {
            const double error =
                std::abs(double{values[i]} - double{decoded[i]});
            RC_ASSERT(error <=
                      std::max(std::abs(double{values[i]}) * 0x1p-8, 0x1p-134));
          }
        });
  }));
}

TEST(UpdateCodec, BFloat16_EncodingTheDecodedGivesTheSameBytes) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const size_t count = UniformBelow(random, 500);
    const std::vector<float> values = AnyValues(count, random);
    const Bytes bytes = *Encode(CodecName::kBFloat16, {&count, 1}, values);
    const std::vector<float> decoded =
        *Decode(CodecName::kBFloat16, {&count, 1}, bytes);
    RC_ASSERT(*Encode(CodecName::kBFloat16, {&count, 1}, decoded) == bytes);
  }));
}

TEST(UpdateCodec, BFloat16AtTheTop_StaysFinite) {
  const size_t count = 2;
  const std::vector<float> values = {FLT_MAX, -FLT_MAX};
  const Bytes bytes = *Encode(CodecName::kBFloat16, {&count, 1}, values);
  const std::vector<float> decoded =
      *Decode(CodecName::kBFloat16, {&count, 1}, bytes);
  EXPECT_THAT(decoded, ElementsAre(0x1.fep127f, -0x1.fep127f));
}

TEST(UpdateCodec, Int8_ErrorIsBelowTheScaleAndTheScaleIsNearMaxOver127) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    ForEachTensor(
        CodecName::kInt8, seed,
        [](const float* values, const float* decoded, const EncodedBlock& block,
           size_t count) {
          for (size_t begin = 0; begin < count; begin += kInt8Block) {
            const size_t end = std::min(count, begin + kInt8Block);
            const double scale = ScaleAt(block.scales, begin / kInt8Block);
            double most = 0;
            for (size_t i = begin; i < end; ++i) {
              most = std::max(most, std::abs(double{values[i]}));
              const double error =
                  std::abs(double{values[i]} - double{decoded[i]});
              RC_ASSERT(error < scale || error == 0);
            }
            RC_ASSERT(scale <= std::max(most * 1.008 / 127, 0x1p-126));
            RC_ASSERT(scale * 127 >= most);
          }
        });
  }));
}

TEST(UpdateCodec, RotatedInt8_ErrorOfEachRunIsWithinItsBound) {
  CodecSpec codec = CodecName::kRotatedInt8;
  codec.rotation_seed = 11;
  EXPECT_TRUE(rc::check([codec](uint64_t seed) {
    ForEachTensor(
        codec, seed,
        [](const float* values, const float* decoded, const EncodedBlock& block,
           size_t count) {
          for (size_t begin = 0; begin < count;) {
            const size_t size = size_t{1} << RotationLog2(count - begin);
            double scale = 0;
            for (size_t i = begin; i < begin + size; ++i) {
              scale = std::max(scale,
                               double{ScaleAt(block.scales, i / kInt8Block)});
            }
            std::vector<float> errors(size);
            for (size_t i = 0; i < size; ++i) {
              errors[i] = values[begin + i] - decoded[begin + i];
            }
            const double error = std::sqrt(SquaredNorm(errors.data(), size));
            const double norm = std::sqrt(SquaredNorm(values + begin, size));
            RC_ASSERT(error <=
                      std::sqrt(2.0 * static_cast<double>(size)) * scale +
                          norm * 24 * 0x1p-24);
            begin += size;
          }
        });
  }));
}

TEST(UpdateCodec, TopK_KeepsTheLargestAndHasItsErrorBound) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed ^ 1);
    CodecSpec codec = CodecName::kTopK;
    codec.top_k = std::max(1e-6, 0.5 * UniformUnit(random));
    ForEachTensor(codec, seed,
                  [&](const float* values, const float* decoded,
                      const EncodedBlock& block, size_t count) {
                    if (count == 0) return;
                    RC_ASSERT(block.kept == KeptCount(codec.top_k, count));
                    float least_kept = FLT_MAX;
                    std::vector<bool> kept(count);
                    for (size_t i = 0; i < block.kept; ++i) {
                      const size_t index = IndexAt(block.indices, i);
                      kept[index] = true;
                      RC_ASSERT(decoded[index] == values[index]);
                      least_kept =
                          std::min(least_kept, std::abs(values[index]));
                    }
                    double lost = 0;
                    for (size_t i = 0; i < count; ++i) {
                      if (kept[i]) continue;
                      RC_ASSERT(decoded[i] == 0.0f);
                      RC_ASSERT(std::abs(values[i]) <= least_kept);
                      lost += double{values[i]} * double{values[i]};
                    }
                    const double part = static_cast<double>(block.kept) /
                                        static_cast<double>(count);
                    RC_ASSERT(lost <= (1 - part) * SquaredNorm(values, count) *
                                          (1 + 1e-12));
                  });
  }));
}

TEST(UpdateCodec, TopKOfEqualMagnitudes_KeepsTheFirst) {
  CodecSpec codec = CodecName::kTopK;
  codec.top_k = 0.4;
  const size_t count = 5;
  const std::vector<float> values = {1, -2, 2, 0, -2};
  const Bytes bytes = *Encode(codec, {&count, 1}, values);
  EXPECT_THAT(*Decode(codec, {&count, 1}, bytes), ElementsAre(0, -2, 2, 0, 0));
}

// The mean of many encodings of the same values converges to them: 6 sigma of
// a mean of n draws, each off by less than a scale.
TEST(UpdateCodec, StochasticCodecs_HaveNoBias) {
  SeededRandom random(12);
  constexpr int kDraws = 4000;
  for (const CodecName codec : {CodecName::kInt8, CodecName::kRotatedInt8}) {
    const size_t count = 300;
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) {
      values[i] = static_cast<float>(std::sin(static_cast<double>(i)));
    }
    values[17] = 3;  // an outlier
    std::vector<double> mean(count);
    for (int d = 0; d < kDraws; ++d) {
      const Bytes bytes = *Encode(codec, {&count, 1}, values, &random);
      const std::vector<float> decoded = *Decode(codec, {&count, 1}, bytes);
      for (size_t i = 0; i < count; ++i) mean[i] += double{decoded[i]} / kDraws;
    }
    const double scale = 3.0 / 127;
    for (size_t i = 0; i < count; ++i) {
      EXPECT_NEAR(mean[i], double{values[i]},
                  6 * scale / std::sqrt(double{kDraws}))
          << i;
    }
  }
}

TEST(UpdateCodec, RotatedInt8OfAnOutlier_ErrsLessThanInt8) {
  SeededRandom random(13);
  const size_t count = 1024;
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(UniformUnit(random) - 0.5) * 0.01f;
  }
  for (size_t i = 0; i < count; i += 256) values[i] = 1;
  const auto error = [&](CodecName codec) {
    const Bytes bytes = *Encode(codec, {&count, 1}, values, &random);
    std::vector<float> decoded = *Decode(codec, {&count, 1}, bytes);
    for (size_t i = 0; i < count; ++i) decoded[i] -= values[i];
    return std::sqrt(SquaredNorm(decoded.data(), count));
  };
  EXPECT_LT(error(CodecName::kRotatedInt8), error(CodecName::kInt8) / 3);
}

TEST(UpdateCodec, AnotherRotationSeed_IsAnotherRotation) {
  SeededRandom random(14);
  const size_t count = 64;
  const std::vector<float> values(count, 1.0f);
  CodecSpec codec = CodecName::kRotatedInt8;
  const Bytes bytes = *Encode(codec, {&count, 1}, values, &random);
  codec.rotation_seed = 1;
  EXPECT_NE(*Decode(codec, {&count, 1}, bytes), values);
}

TEST(UpdateCodec, SameRandomSource_SameBytes) {
  const size_t count = 700;
  SeededRandom source(15);
  const std::vector<float> values = AnyValues(count, source);
  SeededRandom a(1);
  SeededRandom b(1);
  EXPECT_EQ(*Encode(CodecName::kInt8, {&count, 1}, values, &a),
            *Encode(CodecName::kInt8, {&count, 1}, values, &b));
}

TEST(UpdateCodec, WhatDecodes_FoldsLikeItsValues) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const size_t count = 1 + UniformBelow(random, 5000);
    CodecSpec codec =
        plan::kCodecNames[UniformBelow(random, std::size(plan::kCodecNames))];
    // Now and then out of bounds.
    std::vector<float> values(count);
    for (float& value : values) {
      value = static_cast<float>(UniformUnit(random) - 0.5) * 16.02f;
    }
    const Bytes bytes = *Encode(codec, {&count, 1}, values, &random);
    const std::vector<float> decoded = *Decode(codec, {&count, 1}, bytes);
    const SumLayout layout = {.ranges = {{.count = count}},
                              .update_count_max = 2};
    ExactSum encoded_sum = *ExactSum::Create(layout);
    ExactSum sum = *ExactSum::Create(layout);
    const EncodedUpdate update = {codec, bytes, 3};
    const Status added = encoded_sum.AddAllEncoded({&update, 1});
    const Status expected = sum.Add({.values = decoded, .weight = 3});
    RC_ASSERT(added.message() == expected.message());
    RC_ASSERT(ExactSum::CheckEncoded(layout, update).ok() == added.ok());
    RC_ASSERT(encoded_sum.Serialize() == sum.Serialize());
  }));
}

// -- refusals

TEST(UpdateCodec, NotFiniteOrTooLarge_IsRefusedByName) {
  SeededRandom random(16);
  const size_t counts[] = {2, 2};
  for (const CodecName codec : plan::kCodecNames) {
    EXPECT_THAT(
        Encode(codec, counts, std::vector<float>{1, 2, 3, NAN}, &random),
        StatusIs(StatusCode::kInvalidArgument,
                 HasSubstr("tensor 1, element 1 is nan")));
  }
  EXPECT_THAT(Encode(CodecName::kInt8, counts,
                     std::vector<float>{1, -0x1p100f, 3, 4}, &random),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("tensor 0, element 1 is too large")));
}

TEST(UpdateCodec, WrongSize_IsRefused) {
  SeededRandom random(17);
  const size_t counts[] = {3, 300};
  for (const CodecName codec : plan::kCodecNames) {
    Bytes bytes =
        *Encode(codec, counts, std::vector<float>(303, 0.5f), &random);
    bytes.push_back(0);
    for (const size_t size : {bytes.size(), bytes.size() - 2, size_t{0}}) {
      EXPECT_THAT(Decode(codec, counts, ByteSpan(bytes).first(size)),
                  StatusIs(StatusCode::kInvalidArgument, HasSubstr("bytes")));
    }
  }
}

TEST(UpdateCodec, DamagedInt8_IsRefused) {
  SeededRandom random(18);
  const size_t count = 300;  // two scales
  const Bytes good = *Encode(CodecName::kInt8, {&count, 1},
                             std::vector<float>(count, 0.5f), &random);
  const auto with_scale = [&](uint16_t bits) {
    Bytes bytes = good;
    std::memcpy(bytes.data() + 2, &bits, 2);
    return Decode(CodecName::kInt8, {&count, 1}, bytes);
  };
  EXPECT_THAT(with_scale(0x0080), IsOk());
  EXPECT_THAT(with_scale(0x7180), IsOk());
  const std::vector<uint16_t> wrong = {0x007f, 0x0001, 0x7181, 0x7f80,
                                       0x7fc0, 0x8000, 0xbf80};
  for (const uint16_t bits : wrong) {
    EXPECT_THAT(with_scale(bits), StatusIs(StatusCode::kInvalidArgument,
                                           HasSubstr("scale 1 has the bits")));
  }
  EXPECT_THAT(with_scale(0), StatusIs(StatusCode::kInvalidArgument,
                                      HasSubstr("scale 1 is zero")));
  for (const size_t at : {0u, 128u, 255u, 299u}) {
    Bytes bytes = good;
    bytes[4 + at] = 0x80;
    EXPECT_THAT(
        Decode(CodecName::kInt8, {&count, 1}, bytes),
        StatusIs(StatusCode::kInvalidArgument,
                 HasSubstr("element " + std::to_string(at) + " is -128")));
  }
}

TEST(UpdateCodec, DamagedTopK_IsRefused) {
  CodecSpec codec = CodecName::kTopK;
  codec.top_k = 0.5;
  const size_t count = 6;
  const auto decode = [&](std::vector<uint32_t> indices,
                          std::vector<float> values) {
    Bytes bytes;
    for (const uint32_t index : indices) AppendLe(bytes, index);
    for (const float value : values) AppendLe(bytes, value);
    return Decode(codec, {&count, 1}, bytes);
  };
  EXPECT_THAT(decode({0, 2, 5}, {1, 2, 3}), IsOk());
  EXPECT_THAT(
      decode({0, 2, 6}, {1, 2, 3}),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("index 2 is 6")));
  for (const auto& indices :
       {std::vector<uint32_t>{0, 0, 1}, {2, 1, 3}, {0, 5, 4}}) {
    EXPECT_THAT(decode(indices, {1, 2, 3}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("not above")));
  }
  EXPECT_THAT(decode({0, 2, 5}, {1, INFINITY, 3}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("element 2 is infinite")));
}

TEST(UpdateCodec, BFloat16Infinity_IsRefused) {
  const size_t count = 2;
  const Bytes bytes = {0, 0, 0x80, 0x7f};
  EXPECT_THAT(Decode(CodecName::kBFloat16, {&count, 1}, bytes),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("element 1 is not a finite bfloat16")));
  EXPECT_FALSE(IsFinite(CodecName::kBFloat16, {&count, 1}, bytes));
}

}  // namespace
}  // namespace selvage::aggregation
