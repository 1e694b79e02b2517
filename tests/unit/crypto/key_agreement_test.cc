#include "crypto/key_agreement.h"

#include <string>

#include <gtest/gtest.h>
#include <openssl/err.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/crypto/hex.h"

namespace selvage::crypto {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;

std::string Shared(const std::string& scalar, const std::string& point) {
  const Result<SecretBytes> secret =
      X25519(Secret(Hex(scalar)), HexArray<32>(point));
  return secret.ok() ? ToHex(secret->ExposeSecret())
                     : secret.status().ToString();
}

// RFC 7748, 5.2.
TEST(KeyAgreementTest, X25519_Rfc7748Vectors_GivePublishedResults) {
  EXPECT_EQ(
      Shared(
          "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
          "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
  EXPECT_EQ(
      Shared(
          "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
          "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
      "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957");
}

// RFC 7748, 5.2: k, u = X25519(k, u), k; here 1 and 1,000 times.
TEST(KeyAgreementTest, X25519_Rfc7748Iterated_GivesPublishedResults) {
  std::string k =
      "0900000000000000000000000000000000000000000000000000000000000000";
  std::string u = k;
  for (int i = 1; i <= 1000; ++i) {
    const std::string next = Shared(k, u);
    u = k;
    k = next;
    if (i == 1) {
      EXPECT_EQ(
          k,
          "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    }
  }
  EXPECT_EQ(k,
            "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
}

// RFC 7748, 6.1.
TEST(KeyAgreementTest, X25519_Rfc7748AliceAndBob_AgreeOnThePublishedSecret) {
  const std::string alice =
      "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
  const std::string bob =
      "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
  const std::string base =
      "0900000000000000000000000000000000000000000000000000000000000000";
  const std::string alice_public =
      "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
  const std::string bob_public =
      "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
  const std::string secret =
      "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
  EXPECT_EQ(Shared(alice, base), alice_public);
  EXPECT_EQ(Shared(bob, base), bob_public);
  EXPECT_EQ(Shared(alice, bob_public), secret);
  EXPECT_EQ(Shared(bob, alice_public), secret);
}

TEST(KeyAgreementTest, X25519_NewPairs_Agree) {
  SeededRandom random(11);
  for (int i = 0; i < 20; ++i) {
    const X25519KeyPair a = NewX25519KeyPair(random);
    const X25519KeyPair b = NewX25519KeyPair(random);
    const Result<SecretBytes> ab = X25519(a.private_key, b.public_key);
    const Result<SecretBytes> ba = X25519(b.private_key, a.public_key);
    ASSERT_THAT(ab, IsOk());
    ASSERT_THAT(ba, IsOk());
    EXPECT_TRUE(*ab == *ba);
  }
}

// The points of order 1, 2, 4 and 8 of the curve and its twist, and their
// non-canonical encodings.
TEST(KeyAgreementTest, X25519_LowOrderPoint_IsRefused) {
  SeededRandom random(12);
  const X25519KeyPair pair = NewX25519KeyPair(random);
  for (const char* point : {
           "0000000000000000000000000000000000000000000000000000000000000000",
           "0100000000000000000000000000000000000000000000000000000000000000",
           "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
           "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
       }) {
    EXPECT_THAT(X25519(pair.private_key, HexArray<32>(point)),
                StatusIs(StatusCode::kInvalidArgument))
        << point;
  }
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(KeyAgreementTest, X25519_WrongKeySize_IsRefused) {
  SeededRandom random(13);
  const X25519KeyPair pair = NewX25519KeyPair(random);
  for (const size_t size : {0U, 31U, 33U}) {
    EXPECT_THAT(X25519(SecretBytes(size), pair.public_key),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace selvage::crypto
