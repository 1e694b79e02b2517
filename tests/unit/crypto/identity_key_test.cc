#include "crypto/identity_key.h"

#include <gtest/gtest.h>

#include "crypto/x509.h"
#include "tests/testing/fake_keystore.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/crypto/hex.h"

namespace selvage::crypto {
namespace {

using test::FakeKeystore;
using test::IsOk;
using test::StatusIs;

// RFC 6979, A.2.5.
constexpr char kPoint[] =
    "04"
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
constexpr char kSampleSignature[] =
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
constexpr char kTestSignature[] =
    "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367"
    "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083";
// The group's order (FIPS 186-5, SP 800-186 3.2.1.3).
constexpr char kOrder[] =
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

P256PublicKey VectorKey() { return *P256PublicKey::Parse(Hex(kPoint)); }

TEST(P256PublicKey, Parse_PointAndInfo_AreTheSameKey) {
  const Result<P256PublicKey> point = P256PublicKey::Parse(Hex(kPoint));
  ASSERT_THAT(point, IsOk());
  EXPECT_EQ(point->der().size(), kP256PublicKeySize);

  const Result<P256PublicKey> info = P256PublicKey::Parse(point->der());

  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(*info, *point);
  EXPECT_EQ(info->digest(), Sha256(info->der()));
}

TEST(P256PublicKey, Parse_AnythingElse_IsRefused) {
  const P256PublicKey key = VectorKey();
  const Bytes der(key.der().begin(), key.der().end());
  std::vector<Bytes> wrong = {{}, {4}, Bytes(65, 4), Bytes(91, 0)};
  for (size_t size = 0; size < der.size(); ++size) {
    wrong.emplace_back(der.begin(), der.begin() + static_cast<ptrdiff_t>(size));
  }
  Bytes longer = der;
  longer.push_back(0);
  wrong.push_back(longer);
  Bytes other_curve = der;
  other_curve[22] ^= 1;  // in the curve's identifier
  wrong.push_back(other_curve);
  Bytes off_curve = der;
  off_curve.back() ^= 1;
  wrong.push_back(off_curve);
  Bytes compressed = Hex(kPoint);
  compressed.resize(33);
  compressed[0] = 3;
  wrong.push_back(compressed);
  Bytes infinity = der;
  std::fill(infinity.begin() + 27, infinity.end(), uint8_t{0});
  wrong.push_back(infinity);

  for (const Bytes& bytes : wrong) {
    EXPECT_THAT(P256PublicKey::Parse(bytes),
                StatusIs(StatusCode::kInvalidArgument))
        << ToHex(bytes);
  }
}

TEST(VerifyP256, Rfc6979Vectors_Fit) {
  EXPECT_THAT(
      VerifyP256(VectorKey(), Sha256(AsBytes("sample")), Hex(kSampleSignature)),
      IsOk());
  EXPECT_THAT(
      VerifyP256(VectorKey(), Sha256(AsBytes("test")), Hex(kTestSignature)),
      IsOk());
}

TEST(VerifyP256, OtherMessageKeyOrBits_IsDataLoss) {
  const Bytes good = Hex(kSampleSignature);
  const Digest digest = Sha256(AsBytes("sample"));
  const P256PublicKey other = *P256PublicKey::Parse(FakeKeystore().PublicKey());

  EXPECT_THAT(VerifyP256(VectorKey(), Sha256(AsBytes("sampl")), good),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(VerifyP256(other, digest, good), StatusIs(StatusCode::kDataLoss));
  for (size_t i = 0; i < good.size(); ++i) {
    Bytes bad = good;
    bad[i] ^= 0x10;
    EXPECT_THAT(VerifyP256(VectorKey(), digest, bad),
                StatusIs(StatusCode::kDataLoss))
        << i;
  }
}

TEST(VerifyP256, HalvesOutOfRangeOrWrongSizes_AreDataLoss) {
  const Digest digest = Sha256(AsBytes("sample"));
  const Bytes good = Hex(kSampleSignature);
  const Bytes order = Hex(kOrder);
  const Bytes zero(32, 0);
  const Bytes ones(32, 0xFF);
  const Bytes r(good.begin(), good.begin() + 32);
  const Bytes s(good.begin() + 32, good.end());
  for (const Bytes& bad : {zero, order, ones}) {
    Bytes first = bad;
    AppendBytes(first, s);
    Bytes second = r;
    AppendBytes(second, bad);
    EXPECT_THAT(VerifyP256(VectorKey(), digest, first),
                StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(VerifyP256(VectorKey(), digest, second),
                StatusIs(StatusCode::kDataLoss));
  }
  for (const size_t size : {0u, 32u, 63u, 65u, 72u}) {
    Bytes bad = good;
    bad.resize(size);
    EXPECT_THAT(VerifyP256(VectorKey(), digest, bad),
                StatusIs(StatusCode::kDataLoss))
        << size;
  }
}

TEST(VerifyP256, KeystoresSignatures_Fit) {
  const FakeKeystore keystore;
  const P256PublicKey key = *P256PublicKey::Parse(keystore.PublicKey());
  for (int i = 0; i < 32; ++i) {
    const Digest digest = Sha256(AsBytes(std::to_string(i)));
    EXPECT_THAT(VerifyP256(key, digest, keystore.Sign(digest)), IsOk());
  }
}

TEST(TlsKeyDigest, EveryField_Counts) {
  const Bytes nonce(40, 1);
  const Bytes request = {0x30, 0};
  const Digest digest = TlsKeyDigest("demo", "d", nonce, request);

  Bytes message = ToBytes("selvage/v1 tls key\ndemo");
  message.push_back(0);
  message.push_back('d');
  message.push_back(0);
  AppendBytes(message, nonce);
  AppendBytes(message, request);
  EXPECT_EQ(digest, Sha256(message));
  EXPECT_NE(digest, TlsKeyDigest("dem", "od", nonce, request));
  EXPECT_NE(digest, TlsKeyDigest("demod", "", nonce, request));
  EXPECT_NE(digest, TlsKeyDigest("demo", "e", nonce, request));
  EXPECT_NE(digest, TlsKeyDigest("demo", "d", Bytes(40, 2), request));
  EXPECT_NE(digest, TlsKeyDigest("demo", "d", nonce, Bytes{0x30, 1}));
}

TEST(CertificateRequest, Der_IsWhatThePemHolds) {
  const PrivateKeyPem key = *NewP256Key();
  const std::string pem = *NewCertificateRequest(key, "d");
  const Result<CertificateRequest> request = ParseCertificateRequest(pem);
  ASSERT_THAT(request, IsOk());
  EXPECT_GT(request->der.size(), 150u);
  EXPECT_EQ(request->der[0], 0x30);
  EXPECT_EQ(request->der, ParseCertificateRequest(pem)->der);
}

}  // namespace
}  // namespace selvage::crypto
