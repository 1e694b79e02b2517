#include "base/bytes.h"

#include <rapidcheck.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

TEST(HexTest, ToHex_KnownBytes_GivesLowerCase) {
  EXPECT_EQ(ToHex({}), "");
  EXPECT_EQ(ToHex(Bytes{0x00, 0x0F, 0xA0, 0xFF}), "000fa0ff");
}

TEST(HexTest, FromHex_BothCases_GivesTheBytes) {
  EXPECT_EQ(*FromHex("000FfAa0"), (Bytes{0x00, 0x0F, 0xFA, 0xA0}));
  EXPECT_EQ(*FromHex(""), Bytes());
}

TEST(HexTest, FromHex_WhatToHexWrote_RoundTrips) {
  EXPECT_TRUE(rc::check([](const Bytes& bytes) {
    const Result<Bytes> back = FromHex(ToHex(bytes));
    RC_ASSERT(back.ok());
    RC_ASSERT(*back == bytes);
  }));
}

TEST(HexTest, FromHex_EveryOtherCharacter_IsRefusedByPosition) {
  const std::set<char> digits = [] {
    const std::string all = "0123456789abcdefABCDEF";
    return std::set<char>(all.begin(), all.end());
  }();
  for (int c = 0; c < 256; ++c) {
    const auto character = static_cast<char>(c);
    const std::string first = std::string("00") + character + "0";
    const std::string second = std::string("000") + character;
    if (digits.contains(character)) {
      EXPECT_THAT(FromHex(first), IsOk());
      continue;
    }
    EXPECT_THAT(FromHex(first),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("position 2")))
        << c;
    EXPECT_THAT(FromHex(second),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("position 3")))
        << c;
  }
}

TEST(HexTest, FromHex_OddLength_IsRefused) {
  EXPECT_THAT(FromHex("0"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(FromHex("000"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("3")));
}

// RFC 4648, 10.
TEST(Base64Test, ToBase64_Rfc4648_GivesPublishedText) {
  const std::pair<std::string, std::string> vectors[] = {
      {"", ""},
      {"f", "Zg=="},
      {"fo", "Zm8="},
      {"foo", "Zm9v"},
      {"foob", "Zm9vYg=="},
      {"fooba", "Zm9vYmE="},
      {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, encoded] : vectors) {
    EXPECT_EQ(ToBase64(AsBytes(plain)), encoded);
    const Result<Bytes> back = FromBase64(encoded);
    ASSERT_THAT(back, IsOk());
    EXPECT_EQ(ToString(*back), plain);
  }
}

TEST(Base64Test, FromBase64_WhatToBase64Wrote_RoundTrips) {
  EXPECT_TRUE(rc::check([](const Bytes& bytes) {
    const std::string text = ToBase64(bytes);
    RC_ASSERT(text.size() == (bytes.size() + 2) / 3 * 4);
    const Result<Bytes> back = FromBase64(text);
    RC_ASSERT(back.ok());
    RC_ASSERT(*back == bytes);
  }));
}

// One text per value: whatever is accepted is what ToBase64 writes.
TEST(Base64Test, FromBase64_AnyTextOfItsAlphabet_IsCanonicalOrRefused) {
  EXPECT_TRUE(rc::check([] {
    const auto text = *rc::gen::container<std::string>(
        rc::gen::elementOf(std::string("AQgw/+9z===")));
    const Result<Bytes> bytes = FromBase64(text);
    if (bytes.ok()) RC_ASSERT(ToBase64(*bytes) == text);
  }));
}

TEST(Base64Test, FromBase64_WhatToBase64NeverWrites_IsRefused) {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zg==\n", "Zg== ", " Zg==", "Z===", "====", "Zg=g",
        "=g==", "Zg==Zg==", "Zh==", "Zm9=", "Zm9v\n\n\n\n", "Zm-_", "Zm9v====",
        "Zm\xFF"
        "v"}) {
    EXPECT_THAT(FromBase64(text), StatusIs(StatusCode::kInvalidArgument))
        << text;
  }
  EXPECT_THAT(FromBase64(std::string(4, '\0')),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(LittleEndianTest, AppendLe_Numbers_AreLeastSignificantByteFirst) {
  Bytes out;
  AppendLe(out, uint32_t{0x01020304});
  AppendLe(out, uint8_t{5});
  AppendLe(out, 1.0F);
  EXPECT_EQ(ToHex(out),
            "04030201"
            "05"
            "0000803f");
}

template <typename T>
void ExpectRoundTrip(T value) {
  Bytes out;
  AppendLe(out, value);
  ByteReader reader(out);
  const Result<T> back = reader.Read<T>("value");
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(*back, value);
  EXPECT_EQ(reader.remaining(), 0U);
}

TEST(ByteReaderTest, Read_ExtremeValues_RoundTrip) {
  ExpectRoundTrip(std::numeric_limits<int64_t>::min());
  ExpectRoundTrip(std::numeric_limits<uint64_t>::max());
  ExpectRoundTrip(std::numeric_limits<int16_t>::min());
  ExpectRoundTrip(std::numeric_limits<double>::infinity());
  ExpectRoundTrip(std::numeric_limits<float>::denorm_min());
}

TEST(ByteReaderTest, Read_TooFewBytes_NamesWhatIsMissing) {
  const Bytes bytes = {1, 2, 3};
  ByteReader reader(bytes);
  EXPECT_THAT(reader.Read<uint32_t>("tensor count"),
              StatusIs(StatusCode::kOutOfRange,
                       "tensor count needs 4 bytes, 3 remain"));
  // A refusal takes nothing.
  EXPECT_EQ(reader.remaining(), 3U);
  EXPECT_EQ(*reader.Read<uint16_t>("x"), 0x0201);
  EXPECT_EQ(reader.remaining(), 1U);
}

TEST(ByteReaderTest, ReadBytes_UpToTheEnd_GivesViews) {
  const Bytes bytes = {1, 2, 3};
  ByteReader reader(bytes);
  EXPECT_EQ(reader.ReadBytes(2, "x")->data(), bytes.data());
  EXPECT_THAT(reader.ReadBytes(2, "name"), StatusIs(StatusCode::kOutOfRange));
  EXPECT_THAT(reader.ReadBytes(std::numeric_limits<size_t>::max(), "name"),
              StatusIs(StatusCode::kOutOfRange));
  EXPECT_EQ(reader.ReadBytes(1, "x")->size(), 1U);
  EXPECT_EQ(reader.ReadBytes(0, "x")->size(), 0U);
}

TEST(BytesTest, AsBytesAndAsText_AreViewsOfTheSameMemory) {
  const std::string text("a\0b", 3);
  EXPECT_EQ(AsBytes(text).size(), 3U);
  EXPECT_EQ(AsText(AsBytes(text)), text);
  EXPECT_EQ(ToString(ToBytes(text)), text);
  const std::vector<float> floats = {1.0F, 2.0F};
  EXPECT_EQ(AsBytes(std::span<const float>(floats)).size(), 8U);
}

}  // namespace
}  // namespace selvage
