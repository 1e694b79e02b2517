#include "crypto/signature.h"

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

struct SignatureVector {
  std::string private_key, public_key, message, signature;
};

// RFC 8032, 7.1, tests 1 to 3.
const SignatureVector kVectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb88215"
     "90a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e4"
     "3e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b53"
     "8d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
};

TEST(SignatureTest, SignEd25519_Rfc8032_GivesPublishedSignatures) {
  for (const SignatureVector& v : kVectors) {
    const SecretBytes key = Secret(Hex(v.private_key));
    const Result<Ed25519PublicKey> public_key = Ed25519PublicKeyOf(key);
    ASSERT_THAT(public_key, IsOk());
    EXPECT_EQ(ToHex(*public_key), v.public_key);
    const Result<Ed25519Signature> signature = SignEd25519(key, Hex(v.message));
    ASSERT_THAT(signature, IsOk());
    EXPECT_EQ(ToHex(*signature), v.signature);
    EXPECT_THAT(VerifyEd25519(*public_key, Hex(v.message), *signature), IsOk());
  }
}

class SignatureTamperTest : public ::testing::Test {
 protected:
  SeededRandom random_{3};
  const Ed25519KeyPair pair_ = NewEd25519KeyPair(random_);
  const Bytes message_ = ToBytes("selvage/v1 plan\n{}");
  const Ed25519Signature signature_ = *SignEd25519(pair_.private_key, message_);
};

TEST_F(SignatureTamperTest, VerifyEd25519_AnyBitOfSignatureFlipped_IsRefused) {
  for (size_t bit = 0; bit < signature_.size() * 8; ++bit) {
    Ed25519Signature altered = signature_;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(VerifyEd25519(pair_.public_key, message_, altered),
                StatusIs(StatusCode::kDataLoss))
        << "bit " << bit;
  }
}

TEST_F(SignatureTamperTest, VerifyEd25519_AnyBitOfMessageFlipped_IsRefused) {
  for (size_t bit = 0; bit < message_.size() * 8; ++bit) {
    Bytes altered = message_;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(VerifyEd25519(pair_.public_key, altered, signature_),
                StatusIs(StatusCode::kDataLoss));
  }
}

TEST_F(SignatureTamperTest, VerifyEd25519_AnyBitOfKeyFlipped_IsRefused) {
  for (size_t bit = 0; bit < pair_.public_key.size() * 8; ++bit) {
    Ed25519PublicKey altered = pair_.public_key;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(VerifyEd25519(altered, message_, signature_),
                StatusIs(StatusCode::kDataLoss));
  }
}

TEST_F(SignatureTamperTest, VerifyEd25519_AnyOtherLength_IsRefused) {
  Bytes longer(signature_.begin(), signature_.end());
  longer.push_back(0);
  EXPECT_THAT(VerifyEd25519(pair_.public_key, message_, longer),
              StatusIs(StatusCode::kDataLoss));
  for (size_t size = 0; size < signature_.size(); ++size) {
    EXPECT_THAT(VerifyEd25519(pair_.public_key, message_,
                              ByteSpan(signature_).first(size)),
                StatusIs(StatusCode::kDataLoss));
  }
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(SignatureTest, SignEd25519_WrongKeySize_IsRefused) {
  for (const size_t size : {0U, 31U, 33U, 64U}) {
    EXPECT_THAT(SignEd25519(SecretBytes(size), {}),
                StatusIs(StatusCode::kInvalidArgument));
    EXPECT_THAT(Ed25519PublicKeyOf(SecretBytes(size)),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST(SignatureTest, NewEd25519KeyPair_SameSeed_GivesTheSameKey) {
  SeededRandom a(5);
  SeededRandom b(5);
  EXPECT_EQ(NewEd25519KeyPair(a).public_key, NewEd25519KeyPair(b).public_key);
  EXPECT_NE(NewEd25519KeyPair(a).public_key, NewEd25519KeyPair(a).public_key);
}

}  // namespace
}  // namespace selvage::crypto
