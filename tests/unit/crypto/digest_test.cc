#include "crypto/digest.h"

#include <sstream>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/crypto/hex.h"

namespace selvage::crypto {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;

// FIPS 180-4 examples (CSRC, "Examples with Intermediate Values").
TEST(DigestTest, Sha256_PublishedMessages_GivePublishedDigests) {
  EXPECT_EQ(Sha256({}).ToHex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256(AsBytes("abc")).ToHex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      Sha256(
          AsBytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))
          .ToHex(),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256(AsBytes(std::string(1'000'000, 'a'))).ToHex(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(DigestTest, Sha256Hasher_AnySplit_EqualsOneShot) {
  std::string message;
  for (int i = 0; i < 200; ++i) message.push_back(static_cast<char>(i));
  const Digest whole = Sha256(AsBytes(message));
  for (size_t cut = 0; cut <= message.size(); ++cut) {
    Sha256Hasher hasher;
    hasher.Update(AsBytes(message).first(cut));
    hasher.Update({});
    hasher.Update(AsBytes(message).subspan(cut));
    EXPECT_EQ(std::move(hasher).Finish(), whole) << "cut at " << cut;
  }
}

TEST(DigestTest, Sha256Hasher_Moved_KeepsWhatItHashed) {
  Sha256Hasher first;
  first.Update(AsBytes("a"));
  Sha256Hasher second(std::move(first));
  second.Update(AsBytes("b"));
  Sha256Hasher third;
  third = std::move(second);
  third.Update(AsBytes("c"));
  EXPECT_EQ(std::move(third).Finish(), Sha256(AsBytes("abc")));
}

struct HmacVector {
  Bytes key;
  Bytes message;
  std::string mac;
};

// RFC 4231, 4.2-4.4, 4.5, 4.7 and 4.8 (4.6 truncates its output).
TEST(DigestTest, HmacSha256_Rfc4231_GivesPublishedMacs) {
  const HmacVector vectors[] = {
      {Bytes(20, 0x0B), ToBytes("Hi There"),
       "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
      {ToBytes("Jefe"), ToBytes("what do ya want for nothing?"),
       "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
      {Bytes(20, 0xAA), Bytes(50, 0xDD),
       "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
      {Hex("0102030405060708090a0b0c0d0e0f10111213141516171819"),
       Bytes(50, 0xCD),
       "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
      {Bytes(131, 0xAA),
       ToBytes("Test Using Larger Than Block-Size Key - Hash Key First"),
       "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
      {Bytes(131, 0xAA),
       ToBytes("This is a test using a larger than block-size key and a larger "
               "than block-size data. The key needs to be hashed before being "
               "used by the HMAC algorithm."),
       "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
  };
  for (const HmacVector& v : vectors) {
    EXPECT_EQ(HmacSha256(v.key, v.message).ToHex(), v.mac);
  }
}

TEST(DigestTest, HmacSha256_EmptyKeyAndMessage_GivesKnownMac) {
  EXPECT_EQ(HmacSha256({}, {}).ToHex(),
            "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(DigestTest, FromHex_RoundTripOfBothCases_GivesTheDigest) {
  const Digest digest = Sha256(AsBytes("abc"));
  std::string hex = digest.ToHex();
  EXPECT_EQ(*Digest::FromHex(hex), digest);
  for (char& c : hex) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(*Digest::FromHex(hex), digest);
}

TEST(DigestTest, FromHex_WrongLengthOrCharacter_IsRefused) {
  const std::string hex = Sha256({}).ToHex();
  for (size_t size = 0; size < hex.size(); ++size) {
    EXPECT_THAT(Digest::FromHex(hex.substr(0, size)),
                StatusIs(StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(Digest::FromHex(hex + "00"),
              StatusIs(StatusCode::kInvalidArgument));
  for (size_t i = 0; i < hex.size(); ++i) {
    std::string bad = hex;
    bad[i] = 'g';
    EXPECT_THAT(Digest::FromHex(bad), StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST(DigestTest, FromBytes_WrongLength_IsRefused) {
  EXPECT_THAT(Digest::FromBytes(Bytes(31)),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Digest::FromBytes(Bytes(33)),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Digest::FromBytes(Bytes(32)), IsOk());
}

TEST(DigestTest, Empty_OnlyAllZeros_IsTrue) {
  EXPECT_TRUE(Digest{}.empty());
  Digest digest;
  digest.bytes[31] = 1;
  EXPECT_FALSE(digest.empty());
  EXPECT_LT(Digest{}, digest);
}

TEST(DigestTest, Stream_ADigest_PrintsHex) {
  std::ostringstream out;
  out << Digest{};
  EXPECT_EQ(out.str(), std::string(64, '0'));
}

TEST(DigestTest, EqualConstantTime_EveryDifference_IsFalse) {
  const Bytes bytes = Hex("00112233");
  EXPECT_TRUE(EqualConstantTime(bytes, Hex("00112233")));
  EXPECT_TRUE(EqualConstantTime({}, {}));
  EXPECT_FALSE(EqualConstantTime(bytes, {}));
  EXPECT_FALSE(EqualConstantTime(bytes, ByteSpan(bytes).first(3)));
  for (size_t bit = 0; bit < 32; ++bit) {
    Bytes other = bytes;
    other[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_FALSE(EqualConstantTime(bytes, other));
  }
}

}  // namespace
}  // namespace selvage::crypto
