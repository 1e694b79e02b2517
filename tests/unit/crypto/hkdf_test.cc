#include "crypto/hkdf.h"

#include <string>

#include <gtest/gtest.h>

#include "crypto/digest.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/crypto/hex.h"

namespace selvage::crypto {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;

struct HkdfVector {
  std::string input_key, salt, info, output;
};

// RFC 5869, A.1, A.2 and A.3.
TEST(HkdfTest, HkdfSha256_Rfc5869_GivesPublishedKeys) {
  const HkdfVector vectors[] = {
      {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
       "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
       "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
       "34007208d5b887185865"},
      {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
       "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
       "404142434445464748494a4b4c4d4e4f",
       "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
       "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
       "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
       "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
       "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef"
       "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
       "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
       "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
       "cc30c58179ec3e87c14c01d5c1f3434f1d87"},
      {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
       "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
       "9d201395faa4b61a96c8"},
  };
  for (const HkdfVector& v : vectors) {
    const Result<SecretBytes> key =
        HkdfSha256(Secret(Hex(v.input_key)), Hex(v.salt), Hex(v.info),
                   v.output.size() / 2);
    ASSERT_THAT(key, IsOk());
    EXPECT_EQ(ToHex(key->ExposeSecret()), v.output);
  }
}

TEST(HkdfTest, HkdfSha256_OtherInfoOrSalt_GivesAnotherKey) {
  const SecretBytes input = Secret(Hex("0b0b0b0b"));
  const SecretBytes key = *HkdfSha256(input, {}, AsBytes("a"), 32);
  EXPECT_FALSE(key == *HkdfSha256(input, {}, AsBytes("b"), 32));
  EXPECT_FALSE(key == *HkdfSha256(input, AsBytes("s"), AsBytes("a"), 32));
  EXPECT_TRUE(key == *HkdfSha256(input, {}, AsBytes("a"), 32));
}

TEST(HkdfTest, HkdfSha256_EverythingEmpty_IsHmacOfNothing) {
  // RFC 5869, 2.2 and 2.3, by hand: PRK = HMAC(0^32, ""), T(1) = HMAC(PRK, 1).
  const Digest prk = HmacSha256(Bytes(32), {});
  const Digest first = HmacSha256(prk.span(), Bytes{1});
  const Result<SecretBytes> key = HkdfSha256(SecretBytes(0), {}, {}, 32);
  ASSERT_THAT(key, IsOk());
  EXPECT_EQ(ToHex(key->ExposeSecret()), first.ToHex());
}

TEST(HkdfTest, HkdfSha256_SizeOutOfRange_IsRefused) {
  const SecretBytes input(32);
  EXPECT_THAT(HkdfSha256(input, {}, {}, 0),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(HkdfSha256(input, {}, {}, 255 * 32), IsOk());
  EXPECT_THAT(HkdfSha256(input, {}, {}, 255 * 32 + 1),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(SecretBytesTest, Equal_EveryDifference_IsFalse) {
  const SecretBytes a = Secret(Hex("0011"));
  EXPECT_TRUE(a == Secret(Hex("0011")));
  EXPECT_FALSE(a == Secret(Hex("0010")));
  EXPECT_FALSE(a == Secret(Hex("001100")));
  EXPECT_FALSE(a == SecretBytes(0));
}

TEST(SecretBytesTest, Move_TakesTheContents) {
  SecretBytes a = Secret(Hex("0011"));
  SecretBytes b(std::move(a));
  SecretBytes c(5);
  c = std::move(b);
  EXPECT_EQ(ToHex(c.ExposeSecret()), "0011");
}

}  // namespace
}  // namespace selvage::crypto
