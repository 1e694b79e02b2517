#include "crypto/x509.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "base/bytes.h"
#include "base/random.h"
#include "crypto/openssl_ptr.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"

namespace selvage::crypto {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using std::chrono::hours;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Time kNow = FromMicros(1'800'000'000'000'000);  // January 2027
constexpr Duration kDay = hours(24);
constexpr Duration kCaLifetime = 3650 * kDay;

// The bytes between the two lines of a PEM block, and back.
Bytes DerOf(const std::string& pem) {
  std::string base64;
  for (size_t i = 0; i < pem.size();) {
    const size_t end = std::min(pem.find('\n', i), pem.size());
    if (pem[i] != '-') base64 += pem.substr(i, end - i);
    i = end + 1;
  }
  return *FromBase64(base64);
}

std::string PemOf(const std::string& label, ByteSpan der) {
  const std::string base64 = ToBase64(der);
  std::string pem = "-----BEGIN " + label + "-----\n";
  for (size_t i = 0; i < base64.size(); i += 64) {
    pem += base64.substr(i, 64) + "\n";
  }
  return pem + "-----END " + label + "-----\n";
}

PkeyPtr KeyOf(const PrivateKeyPem& pem) {
  const std::string_view text = pem.ExposeSecret();
  const BioPtr in(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  return PkeyPtr(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
}

std::string TextOf(const BioPtr& out) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

// A request as another program might write it.
std::string ForeignRequest(EVP_PKEY* key, const EVP_MD* digest,
                           const std::function<void(X509_REQ*)>& change = {}) {
  const X509ReqPtr request(X509_REQ_new());
  X509_REQ_set_pubkey(request.get(), key);
  if (change) change(request.get());
  X509_REQ_sign(request.get(), key, digest);
  const BioPtr out(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(out.get(), request.get());
  return TextOf(out);
}

std::string KeyPem(EVP_PKEY* key) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr,
                                nullptr);
  return TextOf(out);
}

class X509Test : public ::testing::Test {
 protected:
  // `pem` with `change` applied to it and the CA's signature renewed: what a
  // careless operator might get this CA's key to sign.
  std::string Resigned(const std::string& pem,
                       const std::function<void(X509*)>& change) {
    const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    const X509Ptr x(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
    change(x.get());
    X509_sign(x.get(), KeyOf(ca_.key()).get(), EVP_sha256());
    const BioPtr out(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(out.get(), x.get());
    return TextOf(out);
  }

  static void RemoveExtension(X509* x, int nid) {
    X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, nid, -1)));
  }
  static void AddExtension(X509* x, int nid, const char* value) {
    const X509ExtensionPtr extension(
        X509V3_EXT_nconf_nid(nullptr, nullptr, nid, value));
    ASSERT_NE(extension, nullptr);
    X509_add_ext(x, extension.get(), -1);
  }

  Result<std::string> Device(const std::string& id = "device-1") {
    return ca_.IssueDevice(request_, "demo", id, kNow, 30 * kDay, random_);
  }

  SeededRandom random_{1};
  const CertificateAuthority ca_ =
      *CertificateAuthority::Create("demo CA", kNow, kCaLifetime, random_);
  const PrivateKeyPem key_ = *NewP256Key();
  const std::string request_ = *NewCertificateRequest(key_, "wish");
};

// ---- Keys ------------------------------------------------------------------

TEST_F(X509Test, ParseP256Key_ANewKey_IsTheSameKey) {
  const Result<PrivateKeyPem> parsed = ParseP256Key(key_.ExposeSecret());
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->ExposeSecret(), key_.ExposeSecret());
  EXPECT_EQ(*PublicKeyDigest(*parsed), *PublicKeyDigest(key_));
  EXPECT_NE(*PublicKeyDigest(key_), *PublicKeyDigest(*NewP256Key()));
}

TEST_F(X509Test, ParseP256Key_Sec1Form_BecomesPkcs8) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  ASSERT_EQ(
      PEM_write_bio_PrivateKey_traditional(
          out.get(), KeyOf(key_).get(), nullptr, nullptr, 0, nullptr, nullptr),
      1);
  ASSERT_THAT(TextOf(out), HasSubstr("BEGIN EC PRIVATE KEY"));
  const Result<PrivateKeyPem> parsed = ParseP256Key(TextOf(out));
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->ExposeSecret(), key_.ExposeSecret());
}

TEST_F(X509Test, ParseP256Key_OtherKindsOfKey_AreRefused) {
  const PkeyPtr p384(EVP_EC_gen("P-384"));
  const PkeyPtr rsa(EVP_RSA_gen(2048));
  const PkeyPtr ed25519(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  for (EVP_PKEY* key : {p384.get(), rsa.get(), ed25519.get()}) {
    EXPECT_THAT(ParseP256Key(KeyPem(key)),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("P-256")));
  }
}

TEST_F(X509Test, ParseP256Key_EncryptedKey_IsRefusedWithoutAskingForAPassword) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(out.get(), KeyOf(key_).get(),
                                          EVP_aes_256_cbc(), "word", 4, nullptr,
                                          nullptr),
            1);
  EXPECT_THAT(ParseP256Key(TextOf(out)),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(X509Test, ParseP256Key_Damaged_IsRefused) {
  const std::string pem(key_.ExposeSecret());
  // Only the last line break may be missing.
  for (size_t size = 0; size + 1 < pem.size(); ++size) {
    EXPECT_THAT(ParseP256Key(pem.substr(0, size)),
                StatusIs(StatusCode::kInvalidArgument))
        << "size " << size;
  }
  EXPECT_THAT(ParseP256Key(pem + pem), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseP256Key("text\n" + pem),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseP256Key(request_), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseP256Key(pem + std::string(9000, '\n')),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST_F(X509Test, ParseP256Key_PrivateAndPublicPartDiffer_IsRefused) {
  const Bytes mine = DerOf(std::string(key_.ExposeSecret()));
  const Bytes other = DerOf(std::string(NewP256Key()->ExposeSecret()));
  ASSERT_EQ(mine.size(), other.size());
  Bytes mixed = mine;  // the public point is the last 64 bytes
  std::copy(other.end() - 64, other.end(), mixed.end() - 64);
  EXPECT_THAT(ParseP256Key(PemOf("PRIVATE KEY", mixed)),
              StatusIs(StatusCode::kInvalidArgument));
}

// ---- Requests --------------------------------------------------------------

TEST_F(X509Test, ParseCertificateRequest_AGoodOne_NamesItsKey) {
  const Result<CertificateRequest> parsed = ParseCertificateRequest(request_);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->common_name, "wish");
  EXPECT_EQ(parsed->public_key_digest, *PublicKeyDigest(key_));
}

TEST_F(X509Test, ParseCertificateRequest_NoCommonName_IsAllowed) {
  const Result<CertificateRequest> parsed =
      ParseCertificateRequest(*NewCertificateRequest(key_, ""));
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->common_name, "");
}

TEST_F(X509Test, ParseCertificateRequest_AnyBitFlipped_IsRefused) {
  const Bytes der = DerOf(request_);
  for (size_t bit = 0; bit < der.size() * 8; ++bit) {
    Bytes altered = der;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(ParseCertificateRequest(PemOf("CERTIFICATE REQUEST", altered)),
                StatusIs(StatusCode::kInvalidArgument))
        << "bit " << bit;
  }
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST_F(X509Test, ParseCertificateRequest_AnyTruncationOrExtension_IsRefused) {
  const Bytes der = DerOf(request_);
  for (size_t size = 0; size < der.size(); ++size) {
    EXPECT_THAT(ParseCertificateRequest(
                    PemOf("CERTIFICATE REQUEST", ByteSpan(der).first(size))),
                StatusIs(StatusCode::kInvalidArgument))
        << "size " << size;
  }
  Bytes longer = der;
  longer.push_back(0);
  EXPECT_THAT(ParseCertificateRequest(PemOf("CERTIFICATE REQUEST", longer)),
              StatusIs(StatusCode::kInvalidArgument));
  for (size_t size = 0; size + 1 < request_.size(); ++size) {
    EXPECT_THAT(ParseCertificateRequest(request_.substr(0, size)),
                StatusIs(StatusCode::kInvalidArgument))
        << "text size " << size;
  }
}

TEST_F(X509Test, ParseCertificateRequest_Oversized_IsRefused) {
  const std::string padding(8 * 1024 - request_.size(), '\n');
  EXPECT_THAT(ParseCertificateRequest(request_ + padding), IsOk());
  EXPECT_THAT(ParseCertificateRequest(request_ + padding + "\n"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("8192")));
}

TEST_F(X509Test, ParseCertificateRequest_OtherKindsOfKey_AreRefused) {
  const PkeyPtr rsa(EVP_RSA_gen(2048));
  const PkeyPtr p384(EVP_EC_gen("P-384"));
  const PkeyPtr ed25519(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  EXPECT_THAT(ParseCertificateRequest(ForeignRequest(rsa.get(), EVP_sha256())),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("P-256")));
  EXPECT_THAT(ParseCertificateRequest(ForeignRequest(p384.get(), EVP_sha256())),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("P-256")));
  EXPECT_THAT(ParseCertificateRequest(ForeignRequest(ed25519.get(), nullptr)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("P-256")));
}

TEST_F(X509Test, ParseCertificateRequest_CompressedPoint_IsRefused) {
  const PkeyPtr key(EVP_EC_gen("P-256"));
  ASSERT_EQ(
      EVP_PKEY_set_utf8_string_param(key.get(), "point-format", "compressed"),
      1);
  EXPECT_THAT(
      ParseCertificateRequest(ForeignRequest(key.get(), EVP_sha256())),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("uncompressed")));
}

TEST_F(X509Test, ParseCertificateRequest_WeakSignatureDigest_IsRefused) {
  const PkeyPtr key = KeyOf(key_);
  EXPECT_THAT(ParseCertificateRequest(ForeignRequest(key.get(), EVP_sha1())),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("SHA-256")));
}

TEST_F(X509Test, ParseCertificateRequest_SignedByAnotherKey_IsRefused) {
  const PkeyPtr other = KeyOf(*NewP256Key());
  const std::string stolen =
      ForeignRequest(other.get(), EVP_sha256(), [&](X509_REQ* request) {
        X509_REQ_set_pubkey(request, KeyOf(key_).get());
      });
  EXPECT_THAT(ParseCertificateRequest(stolen),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("signature")));
}

TEST_F(X509Test, ParseCertificateRequest_ControlCharacterInName_IsRefused) {
  const PkeyPtr key = KeyOf(key_);
  const unsigned char name[] = {'a', '\n', 'b', 0, 'c'};
  const std::string request =
      ForeignRequest(key.get(), EVP_sha256(), [&](X509_REQ* r) {
        X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(r), "CN",
                                   MBSTRING_UTF8, name, sizeof name, -1, 0);
      });
  EXPECT_THAT(ParseCertificateRequest(request),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("name")));
}

TEST_F(X509Test, NewCertificateRequest_BadCommonName_IsRefused) {
  EXPECT_THAT(NewCertificateRequest(key_, std::string(64, 'x')), IsOk());
  EXPECT_THAT(NewCertificateRequest(key_, std::string(65, 'x')),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("65")));
  EXPECT_THAT(NewCertificateRequest(key_, "a\nb"),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(NewCertificateRequest(key_, "\xFF\xFE"),
              StatusIs(StatusCode::kInvalidArgument));
}

// ---- The authority ---------------------------------------------------------

TEST_F(X509Test, Create_ANewAuthority_IsASelfSignedCa) {
  const Result<Certificate> parsed = ParseCertificate(ca_.certificate_pem());
  ASSERT_THAT(parsed, IsOk());
  EXPECT_TRUE(parsed->is_ca);
  EXPECT_EQ(parsed->common_name, "demo CA");
  EXPECT_EQ(parsed->not_before, kNow - hours(1));
  EXPECT_EQ(parsed->not_after, kNow + kCaLifetime);
  EXPECT_EQ(parsed->serial_hex.size(), 32U);
  EXPECT_EQ(parsed->public_key_digest, *PublicKeyDigest(ca_.key()));
  EXPECT_THAT(parsed->uris, IsEmpty());
  EXPECT_THAT(parsed->names, IsEmpty());
}

TEST_F(X509Test, Create_AtTheEpoch_StartsThere) {
  const Result<CertificateAuthority> ca =
      CertificateAuthority::Create("early", Time{}, kDay, random_);
  ASSERT_THAT(ca, IsOk());
  const Certificate parsed = *ParseCertificate(ca->certificate_pem());
  EXPECT_EQ(parsed.not_before, Time{});
  EXPECT_EQ(parsed.not_after, Time{} + kDay);
}

TEST_F(X509Test, Create_ForEver_EndsWithTheYear9999) {
  const Result<CertificateAuthority> ca =
      CertificateAuthority::Create("late", kNow, Duration::max(), random_);
  ASSERT_THAT(ca, IsOk());
  EXPECT_EQ(ToMicros(ParseCertificate(ca->certificate_pem())->not_after),
            253'402'300'799'000'000);
}

TEST_F(X509Test, Create_BadArguments_AreRefused) {
  const auto create = [this](std::string_view name, Time now,
                             Duration lifetime) {
    return CertificateAuthority::Create(name, now, lifetime, random_);
  };
  EXPECT_THAT(create("", kNow, kDay), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(create(std::string(65, 'x'), kNow, kDay),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(create("a\tb", kNow, kDay),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(create("ca", kNow, Duration(999'999)),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(create("ca", kNow, -kDay),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(create("ca", FromMicros(-1), kDay),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(create("ca", kNever, kDay),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(X509Test, Load_WhatCreateMade_IssuesTheSameKindOfCertificate) {
  const Result<CertificateAuthority> loaded = CertificateAuthority::Load(
      ca_.certificate_pem(), *ParseP256Key(ca_.key().ExposeSecret()));
  ASSERT_THAT(loaded, IsOk());
  const Result<std::string> leaf =
      loaded->IssueDevice(request_, "demo", "device-1", kNow, kDay, random_);
  ASSERT_THAT(leaf, IsOk());
  EXPECT_THAT(ca_.VerifyDevice(*leaf, kNow), IsOk());
}

TEST_F(X509Test, Load_PairsThatDoNotBelongTogether_AreRefused) {
  EXPECT_THAT(
      CertificateAuthority::Load(ca_.certificate_pem(), *NewP256Key()),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("does not fit")));
  EXPECT_THAT(
      CertificateAuthority::Load(*Device(), *ParseP256Key(key_.ExposeSecret())),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("authority")));
  EXPECT_THAT(CertificateAuthority::Load("", *NewP256Key()),
              StatusIs(StatusCode::kInvalidArgument));
  // An intermediate: a CA, but not its own issuer.
  const std::string intermediate =
      Resigned(ca_.certificate_pem(),
               [this](X509* x) { X509_set_pubkey(x, KeyOf(key_).get()); });
  EXPECT_THAT(CertificateAuthority::Load(intermediate,
                                         *ParseP256Key(key_.ExposeSecret())),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("self-signed")));
}

// ---- Devices ---------------------------------------------------------------

TEST_F(X509Test, IssueDevice_AGoodRequest_SaysWhatTheHeaderPromises) {
  const Result<std::string> leaf = Device();
  ASSERT_THAT(leaf, IsOk());
  const Result<Certificate> parsed = ParseCertificate(*leaf);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_FALSE(parsed->is_ca);
  EXPECT_EQ(parsed->common_name, "device-1");
  EXPECT_THAT(parsed->uris, ElementsAre("selvage://demo/device/device-1"));
  EXPECT_THAT(parsed->names, IsEmpty());
  EXPECT_EQ(parsed->public_key_digest, *PublicKeyDigest(key_));
  EXPECT_EQ(parsed->not_before, kNow - hours(1));
  EXPECT_EQ(parsed->not_after, kNow + 30 * kDay);
  EXPECT_THAT(ca_.VerifyDevice(*leaf, kNow), IsOk());
}

TEST_F(X509Test, IssueDevice_AnyCertificate_HasTheCriticalExtensions) {
  const std::string pem = *Device();
  const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const X509Ptr x(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
  ASSERT_NE(x, nullptr);
  EXPECT_EQ(X509_get_version(x.get()), X509_VERSION_3);
  EXPECT_EQ(X509_get_signature_nid(x.get()), NID_ecdsa_with_SHA256);
  for (const int nid : {NID_basic_constraints, NID_key_usage}) {
    const int at = X509_get_ext_by_NID(x.get(), nid, -1);
    ASSERT_GE(at, 0);
    EXPECT_EQ(X509_EXTENSION_get_critical(X509_get_ext(x.get(), at)), 1);
  }
  EXPECT_EQ(X509_get_key_usage(x.get()), KU_DIGITAL_SIGNATURE);
  EXPECT_EQ(X509_get_extended_key_usage(x.get()), XKU_SSL_CLIENT);
  EXPECT_NE(X509_get0_subject_key_id(x.get()), nullptr);
  EXPECT_NE(X509_get0_authority_key_id(x.get()), nullptr);
}

TEST_F(X509Test, IssueDevice_TheSameRequestTwice_DiffersInTheSerialOnly) {
  const Certificate a = *ParseCertificate(*Device());
  const Certificate b = *ParseCertificate(*Device());
  EXPECT_NE(a.serial_hex, b.serial_hex);
  EXPECT_EQ(a.public_key_digest, b.public_key_digest);
  EXPECT_EQ(a.uris, b.uris);
}

TEST_F(X509Test, IssueDevice_AnySerial_IsPositiveAnd16BytesLong) {
  // The extreme draws.
  class Constant final : public RandomSource {
   public:
    explicit Constant(uint8_t value) : value_(value) {}
    void Fill(std::span<uint8_t> out) override {
      std::fill(out.begin(), out.end(), value_);
    }

   private:
    const uint8_t value_;
  };
  for (const int value : {0x00, 0x7F, 0x80, 0xFF}) {
    Constant random(static_cast<uint8_t>(value));
    const Result<std::string> leaf =
        ca_.IssueDevice(request_, "demo", "d", kNow, kDay, random);
    ASSERT_THAT(leaf, IsOk());
    const std::string serial = ParseCertificate(*leaf)->serial_hex;
    EXPECT_EQ(serial.size(), 32U);
    EXPECT_GE(serial[0], '4');
    EXPECT_LE(serial[0], '7');
  }
}

TEST_F(X509Test, IssueDevice_BeyondTheAuthority_IsCutToItsLife) {
  const Result<std::string> leaf = ca_.IssueDevice(
      request_, "demo", "d", kNow + kCaLifetime - kDay, 30 * kDay, random_);
  ASSERT_THAT(leaf, IsOk());
  EXPECT_EQ(ParseCertificate(*leaf)->not_after, kNow + kCaLifetime);
  const Result<std::string> first =
      ca_.IssueDevice(request_, "demo", "d", kNow - hours(1), kDay, random_);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(ParseCertificate(*first)->not_before, kNow - hours(1));
}

TEST_F(X509Test, IssueDevice_OutsideTheAuthoritysLife_IsRefused) {
  for (const Time now : {kNow - hours(1) - Duration(1), kNow + kCaLifetime,
                         kNow + 2 * kCaLifetime}) {
    EXPECT_THAT(ca_.IssueDevice(request_, "demo", "d", now, kDay, random_),
                StatusIs(StatusCode::kFailedPrecondition));
  }
}

TEST_F(X509Test, IssueDevice_NamesThatAreNoIdentifiers_AreRefused) {
  for (const std::string name : {"", ".", "..", "-x", "_x", "a/b", "a b", "a\n",
                                 "a,URI:x", "\xC3\xA9"}) {
    EXPECT_THAT(ca_.IssueDevice(request_, "demo", name, kNow, kDay, random_),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("device id")));
    EXPECT_THAT(
        ca_.IssueDevice(request_, name, "d", kNow, kDay, random_),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr("population")));
  }
  EXPECT_THAT(Device(std::string(64, 'd')), IsOk());
  EXPECT_THAT(Device(std::string(65, 'd')),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("65")));
}

TEST_F(X509Test, IssueDevice_AlteredRequestOrNoLifetime_IsRefused) {
  Bytes der = DerOf(request_);
  der.back() ^= 1;
  EXPECT_THAT(ca_.IssueDevice(PemOf("CERTIFICATE REQUEST", der), "demo", "d",
                              kNow, kDay, random_),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(
      ca_.IssueDevice(request_, "demo", "d", kNow, Duration(0), random_),
      StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(X509Test, IssueDevice_NamesAndExtensionsInTheRequest_AreIgnored) {
  const PkeyPtr key = KeyOf(key_);
  const std::string request =
      ForeignRequest(key.get(), EVP_sha256(), [](X509_REQ* r) {
        X509_EXTENSIONS* extensions = sk_X509_EXTENSION_new_null();
        sk_X509_EXTENSION_push(
            extensions,
            X509V3_EXT_nconf_nid(nullptr, nullptr, NID_basic_constraints,
                                 "critical,CA:TRUE"));
        sk_X509_EXTENSION_push(
            extensions,
            X509V3_EXT_nconf_nid(nullptr, nullptr, NID_subject_alt_name,
                                 "URI:selvage://demo/device/someone-else"));
        X509_REQ_add_extensions(r, extensions);
        sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
      });
  const Result<std::string> leaf =
      ca_.IssueDevice(request, "demo", "mine", kNow, kDay, random_);
  ASSERT_THAT(leaf, IsOk());
  const Certificate parsed = *ParseCertificate(*leaf);
  EXPECT_FALSE(parsed.is_ca);
  EXPECT_THAT(parsed.uris, ElementsAre("selvage://demo/device/mine"));
}

// ---- Verification ----------------------------------------------------------

TEST_F(X509Test, VerifyDevice_OutsideItsValidity_IsRefused) {
  const std::string leaf = *Device();
  const Time from = kNow - hours(1);
  const Time to = kNow + 30 * kDay;
  EXPECT_THAT(
      ca_.VerifyDevice(leaf, from - Duration(1)),
      StatusIs(StatusCode::kPermissionDenied, HasSubstr("not yet valid")));
  EXPECT_THAT(ca_.VerifyDevice(leaf, from), IsOk());
  EXPECT_THAT(ca_.VerifyDevice(leaf, to - Duration(1)), IsOk());
  EXPECT_THAT(ca_.VerifyDevice(leaf, to + seconds(1)),
              StatusIs(StatusCode::kPermissionDenied, HasSubstr("expired")));
  EXPECT_THAT(ca_.VerifyDevice(leaf, Time{}),
              StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(ca_.VerifyDevice(leaf, kNever),
              StatusIs(StatusCode::kPermissionDenied));
}

TEST_F(X509Test, VerifyDevice_ForeignAuthorityOfTheSameName_IsRefused) {
  const CertificateAuthority foreign =
      *CertificateAuthority::Create("demo CA", kNow, kCaLifetime, random_);
  const std::string leaf =
      *foreign.IssueDevice(request_, "demo", "device-1", kNow, kDay, random_);
  EXPECT_THAT(foreign.VerifyDevice(leaf, kNow), IsOk());
  EXPECT_THAT(ca_.VerifyDevice(leaf, kNow),
              StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(foreign.VerifyDevice(*Device(), kNow),
              StatusIs(StatusCode::kPermissionDenied));
}

TEST_F(X509Test, VerifyDevice_AnyBitFlipped_IsRefused) {
  const Bytes der = DerOf(*Device());
  for (size_t bit = 0; bit < der.size() * 8; ++bit) {
    Bytes altered = der;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_THAT(ca_.VerifyDevice(PemOf("CERTIFICATE", altered), kNow),
                StatusIs(StatusCode::kPermissionDenied))
        << "bit " << bit;
  }
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST_F(X509Test, VerifyDevice_NotADeviceCertificate_IsRefused) {
  EXPECT_THAT(ca_.VerifyDevice(ca_.certificate_pem(), kNow),
              StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(
      ca_.VerifyDevice(
          *ca_.IssueServer(key_, {"localhost"}, kNow, kDay, random_), kNow),
      StatusIs(StatusCode::kPermissionDenied));
  for (const std::string& text : {std::string(), request_, *Device() + "x"}) {
    EXPECT_THAT(ca_.VerifyDevice(text, kNow),
                StatusIs(StatusCode::kPermissionDenied));
  }
}

TEST_F(X509Test, VerifyDevice_ExtendedKeyUsageAbsentOrOther_IsRefused) {
  const std::string without = Resigned(
      *Device(), [](X509* x) { RemoveExtension(x, NID_ext_key_usage); });
  EXPECT_THAT(ca_.VerifyDevice(without, kNow),
              StatusIs(StatusCode::kPermissionDenied,
                       HasSubstr("client authentication")));
  const std::string other = Resigned(*Device(), [](X509* x) {
    RemoveExtension(x, NID_ext_key_usage);
    AddExtension(x, NID_ext_key_usage, "codeSigning");
  });
  EXPECT_THAT(ca_.VerifyDevice(other, kNow),
              StatusIs(StatusCode::kPermissionDenied));
  // The helper itself keeps a good certificate good.
  EXPECT_THAT(ca_.VerifyDevice(Resigned(*Device(), [](X509*) {}), kNow),
              IsOk());
}

TEST_F(X509Test, VerifyDevice_SignedByADevice_IsRefused) {
  // device-1 signs a certificate for itself under another name.
  const std::string forged = [&] {
    const std::string pem = *Device("device-2");
    const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    const X509Ptr x(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
    X509_sign(x.get(), KeyOf(key_).get(), EVP_sha256());
    const BioPtr out(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(out.get(), x.get());
    return TextOf(out);
  }();
  EXPECT_THAT(ca_.VerifyDevice(forged, kNow),
              StatusIs(StatusCode::kPermissionDenied));
}

TEST_F(X509Test, VerifyDevice_AfterTheAuthorityExpired_IsRefused) {
  const std::string leaf = *ca_.IssueDevice(
      request_, "demo", "d", kNow + kCaLifetime - hours(1), kDay, random_);
  EXPECT_THAT(ca_.VerifyDevice(leaf, kNow + kCaLifetime - seconds(1)), IsOk());
  EXPECT_THAT(ca_.VerifyDevice(leaf, kNow + kCaLifetime + seconds(1)),
              StatusIs(StatusCode::kPermissionDenied));
}

// ---- Proxies ---------------------------------------------------------------

TEST_F(X509Test, IssueProxy_NamesItselfAndItsHosts_AndNoDevice) {
  const Result<std::string> leaf = ca_.IssueProxy(
      key_, "edge-1", {"fl.example.org", "127.0.0.1"}, kNow, kDay, random_);
  ASSERT_THAT(leaf, IsOk());
  const Certificate parsed = *ParseCertificate(*leaf);
  EXPECT_THAT(parsed.uris, ElementsAre("selvage://proxy/edge-1"));
  EXPECT_THAT(parsed.names, ElementsAre("fl.example.org", "127.0.0.1"));
  EXPECT_EQ(parsed.common_name, "edge-1");
  EXPECT_EQ(*ParseProxyUri(parsed.uris.front()), "edge-1");
  EXPECT_THAT(ParseDeviceUri(parsed.uris.front()),
              StatusIs(StatusCode::kInvalidArgument));
  // It may be a client, too.
  EXPECT_THAT(ca_.VerifyDevice(*leaf, kNow), IsOk());
}

TEST_F(X509Test, ProxyNames_ThatAreNoIdentifiers_AreRefused) {
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a/b"),
        std::string("device/x"), std::string(65, 'a')}) {
    EXPECT_THAT(ca_.IssueProxy(key_, name, {"localhost"}, kNow, kDay, random_),
                StatusIs(StatusCode::kInvalidArgument))
        << name;
    EXPECT_THAT(ParseProxyUri("selvage://proxy/" + name),
                StatusIs(StatusCode::kInvalidArgument))
        << name;
  }
  EXPECT_THAT(ParseProxyUri("selvage://demo/device/a"),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(X509Test, ParseForwardedCertificate_BothForms_GiveThePem) {
  const std::string pem = *Device();
  std::string escaped;
  for (const char c : pem) {
    if (c == '\n' || c == '+' || c == '/' || c == '=' || c == ' ') {
      escaped += "%" + ToHex(AsBytes(std::string_view(&c, 1)));
    } else {
      escaped += c;
    }
  }
  for (const std::string& header :
       {escaped, ":" + ToBase64(DerOf(pem)) + ":"}) {
    const Result<std::string> parsed = ParseForwardedCertificate(header);
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(*parsed, pem);
  }
}

TEST_F(X509Test, ParseForwardedCertificate_AnythingElse_IsRefused) {
  const std::string pem = *Device();
  const std::string base64 = ToBase64(DerOf(pem));
  for (const std::string& header :
       {std::string(), std::string(":"), std::string("::"), std::string("%"),
        std::string("%2"), std::string("%zz"),
        std::string("selvage://demo/device/a"), ":" + base64, base64 + ":",
        ":" + base64 + "AAAA:", pem + pem, pem + "%00", request_,
        std::string(49'153, 'a')}) {
    EXPECT_THAT(ParseForwardedCertificate(header),
                StatusIs(StatusCode::kInvalidArgument))
        << header.substr(0, 80);
  }
}

// ---- Servers ---------------------------------------------------------------

TEST_F(X509Test, IssueServer_NamesAndAddresses_AreAlternativeNames) {
  const Result<std::string> leaf =
      ca_.IssueServer(key_, {"fl.example.org", "localhost", "127.0.0.1", "::1"},
                      kNow, kDay, random_);
  ASSERT_THAT(leaf, IsOk());
  const Certificate parsed = *ParseCertificate(*leaf);
  EXPECT_THAT(parsed.names,
              ElementsAre("fl.example.org", "localhost", "127.0.0.1", "::1"));
  EXPECT_THAT(parsed.uris, IsEmpty());
  EXPECT_EQ(parsed.common_name, "fl.example.org");
  EXPECT_EQ(parsed.public_key_digest, *PublicKeyDigest(key_));
}

TEST_F(X509Test, IssueServer_LongDnsName_StillFits) {
  const std::string label(60, 'a');
  const std::string name = label + "." + label + "." + label;
  const Result<std::string> leaf =
      ca_.IssueServer(key_, {name}, kNow, kDay, random_);
  ASSERT_THAT(leaf, IsOk());
  EXPECT_THAT(ParseCertificate(*leaf)->names, ElementsAre(name));
}

TEST_F(X509Test, IssueServer_BadNames_AreRefused) {
  EXPECT_THAT(ca_.IssueServer(key_, {}, kNow, kDay, random_),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ca_.IssueServer(key_, std::vector<std::string>(65, "localhost"),
                              kNow, kDay, random_),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("65")));
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string(".a"), std::string("a."),
        std::string("a..b"), std::string("*.example.org"),
        std::string("x,DNS:y"), std::string("a\0b", 3), std::string(254, 'a'),
        std::string("127.0.0.1\0.example.org", 22)}) {
    EXPECT_THAT(ca_.IssueServer(key_, {name}, kNow, kDay, random_),
                StatusIs(StatusCode::kInvalidArgument))
        << name;
  }
}

// ---- Parsing ---------------------------------------------------------------

TEST_F(X509Test, ParseCertificate_AnyTruncation_IsRefused) {
  const std::string pem = *Device();
  const Bytes der = DerOf(pem);
  for (size_t size = 0; size < der.size(); ++size) {
    EXPECT_THAT(
        ParseCertificate(PemOf("CERTIFICATE", ByteSpan(der).first(size))),
        StatusIs(StatusCode::kInvalidArgument))
        << "size " << size;
  }
  EXPECT_THAT(ParseCertificate(pem + pem),
              StatusIs(StatusCode::kInvalidArgument));
  const std::string padding(16 * 1024 - pem.size(), '\n');
  EXPECT_THAT(ParseCertificate(pem + padding), IsOk());
  EXPECT_THAT(ParseCertificate(pem + padding + "\n"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("16384")));
}

TEST_F(X509Test, ParseCertificate_AnyBitFlipped_NeverCrashes) {
  const Bytes der = DerOf(*Device());
  for (size_t bit = 0; bit < der.size() * 8; ++bit) {
    Bytes altered = der;
    altered[bit / 8] ^= static_cast<uint8_t>(1U << (bit % 8));
    const Result<Certificate> parsed =
        ParseCertificate(PemOf("CERTIFICATE", altered));
    if (!parsed.ok()) {
      EXPECT_THAT(parsed, StatusIs(StatusCode::kInvalidArgument));
    }
  }
}

TEST_F(X509Test, ParseCertificate_NegativeSerialOrHostileNames_AreRefused) {
  const std::string negative = Resigned(*Device(), [](X509* x) {
    ASN1_INTEGER_set(X509_get_serialNumber(x), -5);
  });
  EXPECT_THAT(ParseCertificate(negative),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("serial")));
  const std::string hostile = Resigned(*Device(), [](X509* x) {
    RemoveExtension(x, NID_subject_alt_name);
    AddExtension(x, NID_subject_alt_name, "URI:selvage://demo\n/device/x");
  });
  EXPECT_THAT(
      ParseCertificate(hostile),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("alternative name")));
  const std::string twice = Resigned(*Device(), [](X509* x) {
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>("other"),
                               -1, -1, 0);
  });
  EXPECT_THAT(ParseCertificate(twice),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("several common names")));
}

TEST(DeviceUriTest, ParseDeviceUri_GoodOnes_GiveTheirParts) {
  const Result<DeviceName> name =
      ParseDeviceUri("selvage://demo/device/kiosk-7.b");
  ASSERT_THAT(name, IsOk());
  EXPECT_EQ(name->population, "demo");
  EXPECT_EQ(name->device_id, "kiosk-7.b");
  // "device" may be a name as well.
  EXPECT_THAT(ParseDeviceUri("selvage://device/device/device"), IsOk());
}

TEST(DeviceUriTest, ParseDeviceUri_BadOnes_AreRefused) {
  for (const std::string uri :
       {"", "selvage://", "selvage:///device/a", "selvage://demo/device/",
        "selvage://demo/device", "selvage://demo", "selvage://demo/server/a",
        "selvage://demo/device/a/b", "selvage://demo/x/device/a",
        "https://demo/device/a", "SELVAGE://demo/device/a",
        " selvage://demo/device/a", "selvage://demo/device/a ",
        "selvage://demo/device/a?b", "selvage://demo/device/..",
        "selvage://de mo/device/a"}) {
    EXPECT_THAT(ParseDeviceUri(uri), StatusIs(StatusCode::kInvalidArgument))
        << uri;
  }
  EXPECT_THAT(ParseDeviceUri("selvage://demo/device/" + std::string(65, 'a')),
              StatusIs(StatusCode::kInvalidArgument));
}

// ---- Somebody else's opinion -----------------------------------------------

class OpenSslCommandTest : public X509Test {
 protected:
  void SetUp() override {
    if (std::system("openssl version >/dev/null 2>&1") != 0) {
      GTEST_SKIP() << "the openssl command is not installed";
    }
  }
  std::string Write(const std::string& name, const std::string& contents) {
    std::ofstream(folder_ / name) << contents;
    return (folder_ / name).string();
  }
  // The exit code of `openssl ARGUMENTS`.
  static int OpenSsl(const std::string& arguments) {
    return std::system(("openssl " + arguments + " >/dev/null 2>&1").c_str());
  }

  const test::ScratchFolder scratch_;
  const std::filesystem::path& folder_ = scratch_.path();
};

TEST_F(OpenSslCommandTest, Verify_OurChains_AreAccepted) {
  const std::string ca = Write("ca.pem", ca_.certificate_pem());
  const std::string device = Write("device.pem", *Device());
  const std::string server = Write(
      "server.pem", *ca_.IssueServer(key_, {"fl.example.org", "127.0.0.1"},
                                     kNow, kDay, random_));
  const std::string verify =
      "verify -x509_strict -attime 1800000000 -CAfile " + ca + " ";
  EXPECT_EQ(OpenSsl(verify + "-purpose sslclient " + device), 0);
  EXPECT_EQ(OpenSsl(verify +
                    "-purpose sslserver -verify_hostname "
                    "fl.example.org " +
                    server),
            0);
  EXPECT_EQ(
      OpenSsl(verify + "-purpose sslserver -verify_ip 127.0.0.1 " + server), 0);
  // The same command can say no.
  EXPECT_NE(OpenSsl(verify + "-purpose sslserver " + device), 0);
  EXPECT_NE(OpenSsl(verify + "-purpose sslclient " + server), 0);
}

TEST_F(OpenSslCommandTest, Req_TheirRequest_IsAccepted) {
  const std::string out = (folder_ / "request.pem").string();
  ASSERT_EQ(OpenSsl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
                    "-nodes -sha256 -subj /CN=theirs -keyout " +
                    (folder_ / "key.pem").string() + " -out " + out),
            0);
  std::ifstream in(out);
  const std::string pem{std::istreambuf_iterator<char>(in), {}};
  const Result<CertificateRequest> parsed = ParseCertificateRequest(pem);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->common_name, "theirs");
  EXPECT_EQ(OpenSsl("req -verify -in " + Write("ours.pem", request_)), 0);
}

}  // namespace
}  // namespace selvage::crypto
