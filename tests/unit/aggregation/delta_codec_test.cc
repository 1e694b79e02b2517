#include "aggregation/codec/delta_codec.h"

#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/codec/codec.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

constexpr uint64_t kAny = uint64_t{1} << 40;
constexpr CodecName kBoth[] = {CodecName::kFloat32, CodecName::kFloat16};

void ExpectRoundTrip(CodecName codec, ByteSpan base, ByteSpan target) {
  const Result<Bytes> delta = EncodeDelta(codec, base, target, kAny);
  ASSERT_THAT(delta, IsOk());
  const Result<Bytes> rebuilt = DecodeDelta(codec, base, *delta);
  ASSERT_THAT(rebuilt, IsOk());
  EXPECT_TRUE(std::ranges::equal(*rebuilt, target));
}

Bytes Encoded(CodecName codec, const std::vector<float>& values) {
  const size_t count = values.size();
  return *Encode(codec, std::span(&count, 1), values);
}

TEST(DeltaCodec, HardPatterns_RoundTrip) {
  // Zeros of both signs, denormals, infinities, NaNs with payloads: all are
  // patterns like any other.
  std::vector<uint32_t> wide;
  std::vector<uint16_t> narrow;
  for (const uint32_t pattern :
       {0U, 1U, 0x7FFFFFU, 0x3F800000U, 0x7F7FFFFFU, 0x7F800000U, 0x7FC00001U,
        0x7FFFFFFFU, 0x12345678U}) {
    for (const uint32_t sign : {0U, 0x80000000U}) {
      wide.push_back(pattern | sign);
      narrow.push_back(static_cast<uint16_t>((pattern | sign) >> 16));
    }
  }
  for (size_t shift = 0; shift < wide.size(); ++shift) {
    std::vector<uint32_t> wide_base = wide;
    std::vector<uint16_t> narrow_base = narrow;
    const auto by = static_cast<std::ptrdiff_t>(shift);
    std::rotate(wide_base.begin(), wide_base.begin() + by, wide_base.end());
    std::rotate(narrow_base.begin(), narrow_base.begin() + by,
                narrow_base.end());
    ExpectRoundTrip(CodecName::kFloat32,
                    AsBytes(std::span<const uint32_t>(wide_base)),
                    AsBytes(std::span<const uint32_t>(wide)));
    ExpectRoundTrip(CodecName::kFloat16,
                    AsBytes(std::span<const uint16_t>(narrow_base)),
                    AsBytes(std::span<const uint16_t>(narrow)));
  }
}

TEST(DeltaCodec, EveryPairOfHalves_RoundTripsInOneDelta) {
  // Every difference of 16 bits, and every pattern on both sides.
  std::vector<uint16_t> base;
  std::vector<uint16_t> target;
  SeededRandom random(3);
  for (uint32_t i = 0; i < 65536; ++i) {
    base.push_back(static_cast<uint16_t>(i));
    target.push_back(static_cast<uint16_t>(40503 * i + 7));
    target.back() = static_cast<uint16_t>(
        target.back() ^ static_cast<uint16_t>(UniformBelow(random, 4)));
  }
  ExpectRoundTrip(CodecName::kFloat16, AsBytes(std::span<const uint16_t>(base)),
                  AsBytes(std::span<const uint16_t>(target)));
}

TEST(DeltaCodec, AnyBytes_RoundTrip) {
  EXPECT_TRUE(rc::check([](const std::vector<uint32_t>& base, uint64_t seed,
                           uint8_t kind) {
    std::vector<uint32_t> target = base;
    SeededRandom random(seed);
    for (uint32_t& value : target) {
      const auto bits = static_cast<uint32_t>(UniformBelow(random, 1ULL << 32));
      // Nothing, a little, or everything is another.
      value = kind % 3 == 0 ? value : kind % 3 == 1 ? value + bits % 16 : bits;
    }
    for (const CodecName codec : kBoth) {
      const ByteSpan from = AsBytes(std::span<const uint32_t>(base));
      const ByteSpan to = AsBytes(std::span<const uint32_t>(target));
      const Result<Bytes> delta = EncodeDelta(codec, from, to, kAny);
      RC_ASSERT(delta.ok());
      // Deterministic, and never much larger than what it stands for.
      RC_ASSERT(*EncodeDelta(codec, from, to, kAny) == *delta);
      RC_ASSERT(delta->size() <= to.size() + to.size() / 2 + 16);
      const Result<Bytes> rebuilt = DecodeDelta(codec, from, *delta);
      RC_ASSERT(rebuilt.ok());
      RC_ASSERT(std::ranges::equal(*rebuilt, to));
    }
  }));
}

TEST(DeltaCodec, LongRunsThatCarry_RoundTrip) {
  // Probabilities at their ends, and long chains of 0xFF in the coder.
  for (const CodecName codec : kBoth) {
    Bytes base(1 << 20);
    Bytes target = base;
    ExpectRoundTrip(codec, base, target);
    for (size_t i = 0; i < target.size(); i += 4096) target[i] = 255;
    ExpectRoundTrip(codec, base, target);
    SeededRandom random(9);
    random.Fill(target);
    ExpectRoundTrip(codec, base, target);
    std::fill(target.begin(), target.end(), uint8_t{0xFF});
    ExpectRoundTrip(codec, base, target);
  }
}

TEST(DeltaCodec, SmallSteps_AreSmall) {
  SeededRandom random(11);
  std::vector<float> before;
  std::vector<float> after;
  for (int i = 0; i < 50000; ++i) {
    before.push_back(static_cast<float>(UniformUnit(random) - 0.5) / 8);
    after.push_back(before.back() +
                    static_cast<float>(UniformUnit(random) - 0.5) / 1024);
  }
  for (const CodecName codec : kBoth) {
    const Bytes base = Encoded(codec, before);
    const Bytes target = Encoded(codec, after);
    ExpectRoundTrip(codec, base, target);
    const size_t size = EncodeDelta(codec, base, target, kAny)->size();
    EXPECT_LT(size, target.size() * 8 / 10);
    // Nothing changed: nearly nothing.
    EXPECT_LT(EncodeDelta(codec, base, base, kAny)->size(), base.size() / 50);
  }
}

TEST(DeltaCodec, Empty_RoundTrips) {
  ExpectRoundTrip(CodecName::kFloat16, {}, {});
}

TEST(EncodeDelta, OverTheLimit_StopsThere) {
  Bytes base(100000);
  Bytes target(100000);
  SeededRandom(1).Fill(target);
  EXPECT_THAT(EncodeDelta(CodecName::kFloat16, base, target, 90000),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("90000")));
  EXPECT_THAT(EncodeDelta(CodecName::kFloat16, {}, {}, 3),
              StatusIs(StatusCode::kResourceExhausted));
}

TEST(EncodeDelta, OtherSizes_AreRefused) {
  EXPECT_THAT(EncodeDelta(CodecName::kFloat16, Bytes(4), Bytes(6), kAny),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("from 4 to 6")));
  EXPECT_THAT(EncodeDelta(CodecName::kFloat16, Bytes(5), Bytes(5), kAny),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(EncodeDelta(CodecName::kFloat32, Bytes(6), Bytes(6), kAny),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(DecodeDelta, TruncatedPaddedOrChanged_IsRefusedOrOtherBytes) {
  Bytes base(400);
  Bytes target(400);
  SeededRandom(1).Fill(target);
  const Bytes delta = *EncodeDelta(CodecName::kFloat32, base, target, kAny);
  for (size_t size = 0; size < delta.size(); ++size) {
    EXPECT_THAT(
        DecodeDelta(CodecName::kFloat32, base, ByteSpan(delta).first(size)),
        StatusIs(StatusCode::kInvalidArgument));
  }
  Bytes padded = delta;
  padded.push_back(0);
  EXPECT_THAT(DecodeDelta(CodecName::kFloat32, base, padded),
              StatusIs(StatusCode::kInvalidArgument));
  for (size_t i = 0; i < delta.size(); ++i) {
    Bytes changed = delta;
    changed[i] ^= 0x10;
    const Result<Bytes> rebuilt =
        DecodeDelta(CodecName::kFloat32, base, changed);
    if (rebuilt.ok()) {
      EXPECT_EQ(rebuilt->size(), base.size());
    }
  }
  EXPECT_THAT(DecodeDelta(CodecName::kFloat32, Bytes(399), delta),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::aggregation
