#include "crypto/aead.h"

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

struct GcmVector {
  std::string key, nonce, plaintext, associated_data, ciphertext, tag;
};

// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13-16:
// the AES-256 vectors with a 96-bit nonce that NIST publishes with SP 800-38D.
const GcmVector kVectors[] = {
    {std::string(64, '0'), std::string(24, '0'), "", "", "",
     "530f8afbc74536b9a963b4f1c4cb738b"},
    {std::string(64, '0'), std::string(24, '0'), std::string(32, '0'), "",
     "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
     "",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

// A source that hands out given bytes, so that Seal can be held to a vector.
class FixedRandom final : public RandomSource {
 public:
  explicit FixedRandom(Bytes bytes) : bytes_(std::move(bytes)) {}
  void Fill(std::span<uint8_t> out) override {
    ASSERT_EQ(out.size(), bytes_.size());
    std::copy(bytes_.begin(), bytes_.end(), out.begin());
  }

 private:
  const Bytes bytes_;
};

TEST(AeadTest, Open_PublishedVectors_GivesThePlaintext) {
  for (const GcmVector& v : kVectors) {
    const Result<Bytes> plaintext =
        Open(Secret(Hex(v.key)), Hex(v.nonce + v.ciphertext + v.tag),
             Hex(v.associated_data));
    ASSERT_THAT(plaintext, IsOk());
    EXPECT_EQ(ToHex(*plaintext), v.plaintext);
  }
}

TEST(AeadTest, Seal_PublishedVectors_GivesTheCiphertextAndTag) {
  for (const GcmVector& v : kVectors) {
    FixedRandom nonce(Hex(v.nonce));
    const Result<Bytes> sealed = Seal(Secret(Hex(v.key)), Hex(v.plaintext),
                                      Hex(v.associated_data), nonce);
    ASSERT_THAT(sealed, IsOk());
    EXPECT_EQ(ToHex(*sealed), v.nonce + v.ciphertext + v.tag);
  }
}

TEST(AeadTest, Open_SealedOfEverySize_RoundTrips) {
  SeededRandom random(1);
  const SecretBytes key = NewAeadKey(random);
  for (size_t size = 0; size < 70; ++size) {
    Bytes message(size);
    random.Fill(message);
    const Result<Bytes> sealed = Seal(key, message, AsBytes("label"), random);
    ASSERT_THAT(sealed, IsOk());
    EXPECT_EQ(sealed->size(), size + kAeadOverhead);
    const Result<Bytes> opened = Open(key, *sealed, AsBytes("label"));
    ASSERT_THAT(opened, IsOk());
    EXPECT_EQ(*opened, message);
  }
}

TEST(AeadTest, Seal_TheSameMessageTwice_DrawsANewNonce) {
  SeededRandom random(1);
  const SecretBytes key = NewAeadKey(random);
  EXPECT_NE(*Seal(key, AsBytes("m"), {}, random),
            *Seal(key, AsBytes("m"), {}, random));
}

class AeadTamperTest : public ::testing::Test {
 protected:
  SeededRandom random_{7};
  const SecretBytes key_ = NewAeadKey(random_);
  const Bytes label_ = ToBytes("round 7");
  const Bytes sealed_ =
      *Seal(key_, AsBytes("a secret update"), label_, random_);
};

TEST_F(AeadTamperTest, Open_AnyBitFlipped_IsRefused) {
  for (size_t bit = 0; bit < sealed_.size() * 8; ++bit) {
    Bytes altered = sealed_;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(Open(key_, altered, label_), StatusIs(StatusCode::kDataLoss))
        << "bit " << bit;
  }
}

TEST_F(AeadTamperTest, Open_AnyTruncationOrExtension_IsRefused) {
  for (size_t size = 0; size < sealed_.size(); ++size) {
    EXPECT_THAT(Open(key_, ByteSpan(sealed_).first(size), label_),
                StatusIs(StatusCode::kDataLoss))
        << "size " << size;
  }
  Bytes longer = sealed_;
  longer.push_back(0);
  EXPECT_THAT(Open(key_, longer, label_), StatusIs(StatusCode::kDataLoss));
}

TEST_F(AeadTamperTest, Open_OtherAssociatedData_IsRefused) {
  for (size_t bit = 0; bit < label_.size() * 8; ++bit) {
    Bytes altered = label_;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(Open(key_, sealed_, altered), StatusIs(StatusCode::kDataLoss));
  }
  EXPECT_THAT(Open(key_, sealed_, {}), StatusIs(StatusCode::kDataLoss));
}

TEST_F(AeadTamperTest, Open_OtherKey_IsRefused) {
  for (size_t bit = 0; bit < kAeadKeySize * 8; ++bit) {
    SecretBytes other = Secret(key_.ExposeSecret());
    other.writable()[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(Open(other, sealed_, label_), StatusIs(StatusCode::kDataLoss));
  }
}

TEST_F(AeadTamperTest, Open_EveryRefusal_SaysTheSameAndLeavesNoError) {
  const Status wrong_key = Open(SecretBytes(32), sealed_, label_).status();
  const Status wrong_size = Open(SecretBytes(16), sealed_, label_).status();
  const Status truncated = Open(key_, {}, label_).status();
  EXPECT_EQ(wrong_key.ToString(), wrong_size.ToString());
  EXPECT_EQ(wrong_key.ToString(), truncated.ToString());
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(AeadTest, Seal_WrongKeySize_IsRefused) {
  SeededRandom random(1);
  for (const size_t size : {0U, 16U, 31U, 33U}) {
    EXPECT_THAT(Seal(SecretBytes(size), {}, {}, random),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace selvage::crypto
