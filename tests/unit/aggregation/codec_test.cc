#include "aggregation/codec/codec.h"

#include <rapidcheck.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/aggregation/hard_values.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One float16 block.
Bytes Block(int32_t exponent, std::vector<uint16_t> halves) {
  Bytes out;
  AppendLe(out, exponent);
  for (const uint16_t half : halves) AppendLe(out, half);
  return out;
}

Bytes EncodeOne(CodecName codec, const std::vector<float>& values) {
  const size_t counts[] = {values.size()};
  const Result<Bytes> bytes = Encode(codec, counts, values);
  EXPECT_THAT(bytes, IsOk());
  return *bytes;
}

Result<std::vector<float>> DecodeOne(CodecName codec, size_t count,
                                     ByteSpan bytes) {
  const size_t counts[] = {count};
  return Decode(codec, counts, bytes);
}

TEST(EncodedSize, EachCodec_IsHeaderAndElements) {
  const std::vector<size_t> counts = {3, 0, 5};
  EXPECT_EQ(EncodedSize(CodecName::kFloat32, counts), 8u * 4);
  EXPECT_EQ(EncodedSize(CodecName::kFloat16, counts), 3u * 4 + 8u * 2);
  EXPECT_EQ(EncodedSize(CodecName::kFloat16, {}), 0u);
}

TEST(Encode, Float16_MatchesValuesByHand) {
  // max 1: 1 * 2^15 = 32768 = 0x7800, so e = -15; 0.5 is 16384, -0.25 is -8192.
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {1.0f, 0.5f, -0.25f, 0.0f, -0.0f}),
            Block(-15, {0x7800, 0x7400, 0xf000, 0x0000, 0x8000}));
  // max 3: 3 * 2^13 = 24576 = 1.5 * 2^14, so e = -13.
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {3.0f}), Block(-13, {0x7600}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {0.0f, -0.0f}),
            Block(0, {0x0000, 0x8000}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {}), Block(0, {}));
}

TEST(Encode, Float16AtTheEdgesOfTheExponentRule_ChoosesByTheRoundedMaximum) {
  // 32784 is half way between 32768 and 32800: it rounds to 32768, so e = 0.
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {32784.0f}), Block(0, {0x7800}));
  // The next float rounds up to 32800, so e = 1, and then to 16400.
  EXPECT_EQ(
      EncodeOne(CodecName::kFloat16, {std::nextafter(32784.0f, 40000.0f)}),
      Block(1, {0x7401}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {32768.0f}), Block(0, {0x7800}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {16384.0f}), Block(-1, {0x7800}));
}

TEST(Encode, Float16OfExtremes_ClampsTheExponent) {
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {FLT_MAX}), Block(112, {0x7bff}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {-0x1p127f}), Block(112, {0xf800}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {0x1p-149f}), Block(-125, {0x0001}));
  EXPECT_EQ(EncodeOne(CodecName::kFloat16, {0x1p-110f}), Block(-125, {0x7800}));
  const Result<std::vector<float>> largest =
      DecodeOne(CodecName::kFloat16, 1, Block(112, {0x7bff}));
  ASSERT_THAT(largest, IsOk());
  EXPECT_THAT(*largest, ElementsAre(65504.0f * 0x1p112f));
}

TEST(Encode, WrongCount_IsRefused) {
  const size_t counts[] = {2, 1};
  const std::vector<float> values(4);
  EXPECT_THAT(Encode(CodecName::kFloat32, counts, values),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("4 values"), HasSubstr("3 elements"))));
}

TEST(Encode, NotFinite_NamesTensorAndElement) {
  const size_t counts[] = {2, 3};
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    EXPECT_THAT(Encode(codec, counts, std::vector<float>{1, 2, 3, kNan, 5}),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr("tensor 1, element 1 is nan")));
    EXPECT_THAT(
        Encode(codec, counts, std::vector<float>{-kInfinity, 2, 3, 4, 5}),
        StatusIs(StatusCode::kInvalidArgument,
                 HasSubstr("tensor 0, element 0 is infinite")));
  }
}

TEST(Decode, WrongSize_IsRefused) {
  const size_t counts[] = {2, 3};
  const std::vector<float> values = {1, 2, 3, 4, 5};
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    const Bytes bytes = *Encode(codec, counts, values);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_THAT(Decode(codec, counts, ByteSpan(bytes).first(size)),
                  StatusIs(StatusCode::kInvalidArgument,
                           HasSubstr(std::to_string(size) + " bytes")));
    }
    Bytes longer = bytes;
    longer.push_back(0);
    EXPECT_THAT(Decode(codec, counts, longer),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST(Decode, NotFinite_NamesTensorAndElement) {
  const std::vector<float> values = {1, kNan};
  EXPECT_THAT(DecodeOne(CodecName::kFloat32, 2,
                        AsBytes(std::span<const float>(values))),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("tensor 0, element 1 is nan")));
  for (const uint16_t half :
       std::initializer_list<uint16_t>{0x7c00, 0xfc00, 0x7c01, 0xffff}) {
    EXPECT_THAT(DecodeOne(CodecName::kFloat16, 2, Block(0, {0x7800, half})),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr("tensor 0, element 1")));
  }
}

TEST(Decode, ForeignExponent_IsRefused) {
  const auto decode = [](int32_t exponent, std::vector<uint16_t> halves) {
    return DecodeOne(CodecName::kFloat16, halves.size(),
                     Block(exponent, halves));
  };
  // The same number, 16384, canonically and not.
  EXPECT_THAT(decode(-1, {0x7800}), IsOk());
  EXPECT_THAT(decode(0, {0x7400}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("exponent 0")));
  // A larger binary16 than 32768 calls for a larger exponent, but for 112.
  EXPECT_THAT(decode(0, {0x7801}), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(decode(112, {0x7801}), IsOk());
  EXPECT_THAT(decode(112, {0x7400}), StatusIs(StatusCode::kInvalidArgument));
  // At -125 there is no smaller one to take.
  EXPECT_THAT(decode(-125, {0x0001}), IsOk());
  EXPECT_THAT(decode(-125, {0x7801}), StatusIs(StatusCode::kInvalidArgument));
  for (const int32_t exponent : {-126, 113, INT32_MIN, INT32_MAX}) {
    EXPECT_THAT(decode(exponent, {0x7700}),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr("exponent " + std::to_string(exponent))));
  }
  // Zeros have exponent 0, and nothing else.
  EXPECT_THAT(decode(0, {0x0000, 0x8000}), IsOk());
  EXPECT_THAT(decode(1, {0x0000, 0x8000}),
              StatusIs(StatusCode::kInvalidArgument));
}

struct Tensors {
  std::vector<size_t> counts;
  std::vector<float> values;
};

// Tensors whose magnitudes lie anywhere, or all in one binade.
Tensors AnyTensors(uint64_t seed) {
  SeededRandom random(seed);
  Tensors out;
  const size_t tensors = UniformBelow(random, 5);
  for (size_t t = 0; t < tensors; ++t) {
    const size_t count = UniformBelow(random, 40);
    const bool alike = UniformBelow(random, 2) == 0;
    const float first = AnyFinite(random);
    out.counts.push_back(count);
    for (size_t i = 0; i < count; ++i) {
      const auto unit = static_cast<float>(UniformUnit(random));
      out.values.push_back(alike ? first * unit : AnyFinite(random));
    }
  }
  return out;
}

TEST(CodecProperty, Float32_IsLossless) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    const Tensors tensors = AnyTensors(seed);
    const Bytes bytes =
        *Encode(CodecName::kFloat32, tensors.counts, tensors.values);
    const auto decoded = *Decode(CodecName::kFloat32, tensors.counts, bytes);
    RC_ASSERT(decoded.size() == tensors.values.size());
    // Compared as bytes: -0.0 is not 0.0 here.
    RC_ASSERT(ToHex(AsBytes(std::span(tensors.values))) == ToHex(bytes));
    RC_ASSERT(ToHex(AsBytes(std::span(std::as_const(decoded)))) ==
              ToHex(bytes));
    RC_ASSERT(*Encode(CodecName::kFloat32, tensors.counts, decoded) == bytes);
  }));
}

TEST(CodecProperty, Float16_IsIdempotentAndWithinItsErrorBound) {
  EXPECT_TRUE(rc::check([](uint64_t base) {
    for (uint64_t seed = base; seed != base + 50; ++seed) {
      const Tensors tensors = AnyTensors(seed);
      const Bytes bytes =
          *Encode(CodecName::kFloat16, tensors.counts, tensors.values);
      RC_ASSERT(bytes.size() ==
                EncodedSize(CodecName::kFloat16, tensors.counts));
      const Result<std::vector<float>> decoded =
          Decode(CodecName::kFloat16, tensors.counts, bytes);
      RC_ASSERT(decoded.ok());
      const Bytes again =
          *Encode(CodecName::kFloat16, tensors.counts, *decoded);
      RC_ASSERT(again == bytes);
      RC_ASSERT(*Decode(CodecName::kFloat16, tensors.counts, again) ==
                *decoded);
      size_t next = 0;
      for (const size_t count : tensors.counts) {
        double max = 0;
        for (size_t i = 0; i < count; ++i) {
          max = std::max(max, std::abs(double{tensors.values[next + i]}));
        }
        for (const size_t end = next + count; next < end; ++next) {
          const double error =
              std::abs(double{(*decoded)[next]} - tensors.values[next]);
          RC_ASSERT(error <= max * 0x1p-11);
          RC_ASSERT(std::signbit((*decoded)[next]) ==
                    std::signbit(tensors.values[next]));
        }
      }
    }
  }));
}

TEST(CodecProperty, Float16_EverythingDecodableIsWhatEncodeMakes) {
  size_t accepted = 0;
  SeededRandom random(7);
  for (int round = 0; round < 20'000; ++round) {
    const size_t count = UniformBelow(random, 4);
    const auto exponent = static_cast<int32_t>(UniformBelow(random, 242)) - 127;
    std::vector<uint16_t> halves(count);
    for (uint16_t& half : halves) {
      half = static_cast<uint16_t>(random.Next());
      if (UniformBelow(random, 2) == 0) {
        half = static_cast<uint16_t>(0x7400 + UniformBelow(random, 0x402));
      }
    }
    const Bytes bytes = Block(exponent, halves);
    const auto decoded = DecodeOne(CodecName::kFloat16, count, bytes);
    if (!decoded.ok()) continue;
    ++accepted;
    EXPECT_EQ(EncodeOne(CodecName::kFloat16, *decoded), bytes);
  }
  EXPECT_GT(accepted, 1000u);
}

}  // namespace
}  // namespace selvage::aggregation
