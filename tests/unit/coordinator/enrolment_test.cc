// Tokens, certificates, populations, request ids.
#include <gmock/gmock.h>

#include "crypto/identity_key.h"
#include "crypto/x509.h"
#include "tests/testing/fake_keystore.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using ::selvage::test::FakeKeystore;
using std::chrono::hours;
using ::testing::HasSubstr;

class EnrolmentTest : public ::testing::TestWithParam<bool> {
 protected:
  EnrolmentTest() {
    WorldOptions options;
    options.sqlite = GetParam();
    options.strategy = "cohort: 2";
    world_ = std::make_unique<World>(std::move(options));
    EXPECT_THAT(api().CreatePopulation("demo", ""), IsOk());
  }
  Coordinator& api() { return world_->coordinator(); }
  NewToken Token(uint32_t uses = 2) {
    const auto token = api().CreateToken("demo", hours(1), uses, "");
    EXPECT_THAT(token, IsOk());
    return *token;
  }
  static EnrollRequest RequestFor(const NewToken& token,
                                  const crypto::PrivateKeyPem& key,
                                  const std::string& name) {
    return {token.info.id, World::SecretOf(token.bundle),
            *crypto::NewCertificateRequest(key, "ignored"), name};
  }

  std::unique_ptr<World> world_;
  const crypto::PrivateKeyPem key_ = *crypto::NewP256Key();
  const crypto::PrivateKeyPem other_key_ = *crypto::NewP256Key();
};
INSTANTIATE_TEST_SUITE_P(Stores, EnrolmentTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(EnrolmentTest, Enroll_GoodToken_GivesACertificateOfThisCa) {
  const auto answer =
      api().Enroll(std::nullopt, RequestFor(Token(), key_, "d"));

  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->device_id, "d");
  EXPECT_EQ(answer->population, "demo");
  ASSERT_EQ(answer->plan_public_keys.size(), 1u);
  EXPECT_EQ(answer->plan_public_keys[0], world_->plan_key().public_key);
  EXPECT_THAT(world_->authority().VerifyDevice(answer->certificate_pem,
                                               world_->clock.Now()),
              IsOk());
  const auto certificate = crypto::ParseCertificate(answer->certificate_pem);
  ASSERT_THAT(certificate, IsOk());
  EXPECT_THAT(certificate->uris,
              ::testing::ElementsAre("selvage://demo/device/d"));
  EXPECT_EQ(api().Info()->certificates_issued, 1u);
}

TEST_P(EnrolmentTest, Enroll_NoName_DerivesOneFromTheKey) {
  const NewToken token = Token();
  const auto answer = api().Enroll(std::nullopt, RequestFor(token, key_, ""));
  ASSERT_THAT(answer, IsOk());
  EXPECT_THAT(answer->device_id, ::testing::MatchesRegex("d-[0-9a-f]{16}"));
}

TEST_P(EnrolmentTest, Enroll_SameTokenSameKey_SameCertificateOneUse) {
  const NewToken token = Token(1);
  const EnrollRequest request = RequestFor(token, key_, "d");
  const auto first = api().Enroll(std::nullopt, request);
  world_->clock.Advance(std::chrono::minutes(5));
  ASSERT_THAT(world_->Reopen(), IsOk());

  const auto second = api().Enroll(std::nullopt, request);

  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->certificate_pem, first->certificate_pem);
  EXPECT_EQ(api().ListTokens("demo", {})->items[0].uses, 1u);
  EXPECT_EQ(api().Info()->certificates_issued, 1u);
  EXPECT_THAT(api().Enroll(std::nullopt, RequestFor(token, other_key_, "e")),
              StatusIs(StatusCode::kUnauthenticated));  // used up
}

TEST_P(EnrolmentTest, Enroll_EveryBadToken_GetsTheSameAnswer) {
  const NewToken token = Token();
  EnrollRequest wrong_secret = RequestFor(token, key_, "d");
  wrong_secret.token_secret[0] ^= 1;
  EnrollRequest unknown = RequestFor(token, key_, "d");
  unknown.token_id = "0123456789abcdef";
  EnrollRequest none = RequestFor(token, key_, "d");
  none.token_id.clear();
  const NewToken revoked = Token();
  ASSERT_THAT(api().RevokeToken(revoked.info.id), IsOk());

  std::vector<Status> refusals;
  for (const EnrollRequest& request :
       {wrong_secret, unknown, none, RequestFor(revoked, key_, "d")}) {
    refusals.push_back(api().Enroll(std::nullopt, request).status());
  }
  world_->clock.Advance(hours(1));
  refusals.push_back(
      api().Enroll(std::nullopt, RequestFor(token, key_, "d")).status());

  for (const Status& status : refusals) {
    EXPECT_THAT(status, StatusIs(StatusCode::kUnauthenticated));
    EXPECT_EQ(status.message(), refusals[0].message());
  }
}

TEST_P(EnrolmentTest, Enroll_BadNameOrCsr_IsInvalidAndUsesNothing) {
  const NewToken token = Token();
  EnrollRequest bad_name = RequestFor(token, key_, "Device One");
  EnrollRequest bad_csr = RequestFor(token, key_, "d");
  bad_csr.csr_pem = "-----BEGIN NONSENSE-----";

  EXPECT_THAT(api().Enroll(std::nullopt, bad_name),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().Enroll(std::nullopt, bad_csr),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(api().ListTokens("demo", {})->items[0].uses, 0u);
}

TEST_P(EnrolmentTest, Enroll_NameOfAnotherKey_AlreadyExists) {
  const NewToken token = Token();
  ASSERT_THAT(api().Enroll(std::nullopt, RequestFor(token, key_, "d")), IsOk());

  EXPECT_THAT(api().Enroll(std::nullopt, RequestFor(token, other_key_, "d")),
              StatusIs(StatusCode::kAlreadyExists));
}

TEST_P(EnrolmentTest, Renew_OwnKey_GetsANewCertificate) {
  const auto first = api().Enroll(std::nullopt, RequestFor(Token(), key_, "d"));
  world_->clock.Advance(hours(24));
  EnrollRequest renewal;
  renewal.csr_pem = *crypto::NewCertificateRequest(key_, "");
  const DeviceIdentity self{"demo", "d"};

  const auto renewed = api().Enroll(self, renewal);

  ASSERT_THAT(renewed, IsOk());
  EXPECT_NE(renewed->certificate_pem, first->certificate_pem);
  EXPECT_EQ(renewed->device_id, "d");
  renewal.csr_pem = *crypto::NewCertificateRequest(other_key_, "");
  EXPECT_THAT(api().Enroll(self, renewal),
              StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(api().Enroll(DeviceIdentity{"demo", "stranger"}, renewal),
              StatusIs(StatusCode::kPermissionDenied));
}

// ---- identity keys

// One device with a key in a keystore.
class IdentityEnrolmentTest : public EnrolmentTest {
 protected:
  // As a device asks: for a nonce, then with a signature over it.
  EnrollRequest Ask(const FakeKeystore& keystore,
                    const crypto::PrivateKeyPem& tls_key,
                    const std::string& name) {
    EnrollRequest request;
    request.device_name = name;
    request.population = "demo";
    request.identity_public_key = keystore.PublicKey();
    const auto question = api().Enroll(std::nullopt, request);
    EXPECT_THAT(question, IsOk());
    EXPECT_TRUE(question->certificate_pem.empty());
    EXPECT_EQ(question->nonce.size(), kIdentityNonceSize);
    request.identity_nonce = question->nonce;
    request.csr_pem = *crypto::NewCertificateRequest(tls_key, "");
    Sign(keystore, request);
    return request;
  }
  static void Sign(const FakeKeystore& keystore, EnrollRequest& request) {
    request.identity_signature = keystore.Sign(crypto::TlsKeyDigest(
        request.population, request.device_name, request.identity_nonce,
        crypto::ParseCertificateRequest(request.csr_pem)->der));
  }
  static void Show(const NewToken& token, EnrollRequest& request) {
    request.token_id = token.info.id;
    request.token_secret = World::SecretOf(token.bundle);
  }
  Result<EnrollAnswer> EnrollFirst(const std::string& name = "d") {
    EnrollRequest request = Ask(keystore_, key_, name);
    Show(Token(), request);
    return api().Enroll(std::nullopt, request);
  }

  const FakeKeystore keystore_;
  const FakeKeystore thief_;
};
INSTANTIATE_TEST_SUITE_P(Stores, IdentityEnrolmentTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(IdentityEnrolmentTest, Enroll_Token_GivesADayToTheTlsKey) {
  const auto answer = EnrollFirst();

  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->device_id, "d");
  EXPECT_TRUE(answer->nonce.empty());
  const auto certificate = crypto::ParseCertificate(answer->certificate_pem);
  ASSERT_THAT(certificate, IsOk());
  EXPECT_EQ(certificate->public_key_digest, *crypto::PublicKeyDigest(key_));
  EXPECT_LE(certificate->not_after, world_->clock.Now() + hours(24));
  EXPECT_GT(certificate->not_after, world_->clock.Now() + hours(23));
  const auto row = world_->store().GetDevice("demo", "d");
  EXPECT_EQ(row->key_digest, crypto::Sha256(keystore_.PublicKey()));
  EXPECT_THAT(api().Report({"demo", "d"}, "r", {}), IsOk());
}

TEST_P(IdentityEnrolmentTest, Enroll_NoName_DerivesOneFromTheIdentityKey) {
  const auto answer = EnrollFirst("");
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->device_id,
            "d-" + crypto::Sha256(keystore_.PublicKey()).ToHex().substr(0, 16));
}

TEST_P(IdentityEnrolmentTest, Renew_LongAfterTheCertificate_NeedsNoToken) {
  ASSERT_THAT(EnrollFirst(), IsOk());
  world_->clock.Advance(hours(24 * 40));
  ASSERT_THAT(world_->Reopen(), IsOk());

  const auto renewed =
      api().Enroll(std::nullopt, Ask(keystore_, other_key_, "d"));

  ASSERT_THAT(renewed, IsOk());
  EXPECT_EQ(renewed->device_id, "d");
  const auto certificate = crypto::ParseCertificate(renewed->certificate_pem);
  EXPECT_EQ(certificate->public_key_digest,
            *crypto::PublicKeyDigest(other_key_));
  EXPECT_LE(certificate->not_after, world_->clock.Now() + hours(24));
  EXPECT_EQ(api().Info()->certificates_issued, 2u);
}

// A device whose answer was lost after the token was used asks with it again.
TEST_P(IdentityEnrolmentTest, Enroll_AgainWithTheToken_RenewsAndUsesNothing) {
  const NewToken token = Token(1);
  EnrollRequest first = Ask(keystore_, key_, "d");
  Show(token, first);
  ASSERT_THAT(api().Enroll(std::nullopt, first), IsOk());
  world_->clock.Advance(std::chrono::minutes(2));

  EnrollRequest again = Ask(keystore_, other_key_, "d");
  Show(token, again);

  EXPECT_THAT(api().Enroll(std::nullopt, again), IsOk());
  EXPECT_EQ(api().ListTokens("demo", {})->items[0].uses, 1u);
}

TEST_P(IdentityEnrolmentTest, Replay_AtAnyTime_GivesNothingNew) {
  EnrollRequest first = Ask(keystore_, key_, "d");
  Show(Token(), first);
  const auto answer = api().Enroll(std::nullopt, first);
  ASSERT_THAT(answer, IsOk());
  // At once: the very same certificate, whether or not the token is there.
  world_->clock.Advance(std::chrono::minutes(5));
  first.token_id.clear();
  const auto repeated = api().Enroll(std::nullopt, first);
  ASSERT_THAT(repeated, IsOk());
  EXPECT_EQ(repeated->certificate_pem, answer->certificate_pem);
  // The device has the next one: nothing.
  const EnrollRequest second = Ask(keystore_, other_key_, "d");
  ASSERT_THAT(api().Enroll(std::nullopt, second), IsOk());
  EXPECT_THAT(api().Enroll(std::nullopt, first),
              StatusIs(StatusCode::kAborted));
  // Later: a question.
  world_->clock.Advance(std::chrono::minutes(20));
  for (const EnrollRequest& old : {first, second}) {
    const auto late = api().Enroll(std::nullopt, old);
    ASSERT_THAT(late, IsOk());
    EXPECT_TRUE(late->certificate_pem.empty());
    EXPECT_NE(late->nonce, old.identity_nonce);
  }
  EXPECT_EQ(api().Info()->certificates_issued, 2u);
}

TEST_P(IdentityEnrolmentTest, Replay_WithAnotherTlsKey_IsRefused) {
  EnrollRequest first = Ask(keystore_, key_, "d");
  Show(Token(), first);
  ASSERT_THAT(api().Enroll(std::nullopt, first), IsOk());
  first.csr_pem = *crypto::NewCertificateRequest(other_key_, "");
  EXPECT_THAT(api().Enroll(std::nullopt, first),
              StatusIs(StatusCode::kUnauthenticated));
  // Even if the keystore signed two requests over one nonce.
  Sign(keystore_, first);
  EXPECT_THAT(api().Enroll(std::nullopt, first),
              StatusIs(StatusCode::kAborted));
}

TEST_P(IdentityEnrolmentTest, Nonce_TenMinutes_AndForOneKeyOnly) {
  ASSERT_THAT(EnrollFirst(), IsOk());
  world_->clock.Advance(hours(1));
  EnrollRequest request = Ask(keystore_, other_key_, "d");
  world_->clock.Advance(std::chrono::minutes(10) + std::chrono::seconds(1));
  const auto stale = api().Enroll(std::nullopt, request);
  ASSERT_THAT(stale, IsOk());
  ASSERT_FALSE(stale->nonce.empty());
  // Signed anew it is good.
  request.identity_nonce = stale->nonce;
  Sign(keystore_, request);
  world_->clock.Advance(std::chrono::minutes(9));
  EXPECT_FALSE(api().Enroll(std::nullopt, request)->certificate_pem.empty());

  // Another key's nonce, a made-up one, one of the future: a question.
  world_->clock.Advance(std::chrono::minutes(2));
  EnrollRequest own = Ask(keystore_, key_, "d");
  const EnrollRequest foreign = Ask(thief_, key_, "d");
  for (const Bytes& nonce :
       {foreign.identity_nonce, Bytes(kIdentityNonceSize, 0xFF),
        Bytes(kIdentityNonceSize, 0)}) {
    own.identity_nonce = nonce;
    Sign(keystore_, own);
    const auto answer = api().Enroll(std::nullopt, own);
    ASSERT_THAT(answer, IsOk());
    EXPECT_TRUE(answer->certificate_pem.empty());
  }
}

TEST_P(IdentityEnrolmentTest, Renew_WhoeverElse_LearnsNothing) {
  ASSERT_THAT(EnrollFirst(), IsOk());
  ASSERT_THAT(api().CreatePopulation("other", ""), IsOk());
  world_->clock.Advance(hours(1));
  // Another key for this name; this key for another name or population.
  const auto taken = api().Enroll(std::nullopt, Ask(thief_, other_key_, "d"));
  const auto free = api().Enroll(std::nullopt, Ask(thief_, other_key_, "e"));
  EXPECT_THAT(taken, StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(free, StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(api().Enroll(std::nullopt, Ask(keystore_, other_key_, "e")),
              StatusIs(StatusCode::kPermissionDenied));
  EnrollRequest elsewhere = Ask(keystore_, other_key_, "d");
  elsewhere.population = "other";
  Sign(keystore_, elsewhere);
  EXPECT_THAT(api().Enroll(std::nullopt, elsewhere),
              StatusIs(StatusCode::kPermissionDenied));
  // With a token the name is told apart, as it is without identity keys.
  EnrollRequest with_token = Ask(thief_, other_key_, "d");
  Show(Token(), with_token);
  EXPECT_THAT(api().Enroll(std::nullopt, with_token),
              StatusIs(StatusCode::kAlreadyExists));
  EXPECT_EQ(api().Info()->certificates_issued, 1u);
}

TEST_P(IdentityEnrolmentTest, Enroll_SignatureOverAnythingElse_IsRefused) {
  ASSERT_THAT(EnrollFirst(), IsOk());
  world_->clock.Advance(hours(1));
  const EnrollRequest good = Ask(keystore_, other_key_, "d");
  EnrollRequest name = good;
  name.device_name = "e";
  EnrollRequest population = good;
  population.population = "other";
  EnrollRequest bits = good;
  bits.identity_signature[40] ^= 1;
  EnrollRequest thief = good;
  Sign(thief_, thief);
  for (const EnrollRequest& request : {name, population, bits, thief}) {
    EXPECT_THAT(api().Enroll(std::nullopt, request),
                StatusIs(StatusCode::kUnauthenticated));
  }
  EXPECT_THAT(api().Enroll(std::nullopt, good), IsOk());
}

TEST_P(IdentityEnrolmentTest, Enroll_TokenOfAnotherPopulation_IsRefused) {
  ASSERT_THAT(api().CreatePopulation("other", ""), IsOk());
  EnrollRequest request = Ask(keystore_, key_, "d");
  request.population = "other";
  Sign(keystore_, request);
  Show(Token(), request);
  EXPECT_THAT(api().Enroll(std::nullopt, request),
              StatusIs(StatusCode::kPermissionDenied));
  EXPECT_EQ(api().ListTokens("demo", {})->items[0].uses, 0u);
  EnrollRequest unknown = Ask(keystore_, key_, "d");
  Show(Token(), unknown);
  unknown.token_secret[3] ^= 1;
  EXPECT_THAT(api().Enroll(std::nullopt, unknown),
              StatusIs(StatusCode::kUnauthenticated));
}

TEST_P(IdentityEnrolmentTest, Renew_WithTheCertificateAlone_IsRefused) {
  ASSERT_THAT(EnrollFirst(), IsOk());
  const DeviceIdentity self{"demo", "d"};
  EnrollRequest renewal;
  renewal.csr_pem = *crypto::NewCertificateRequest(key_, "");
  EXPECT_THAT(api().Enroll(self, renewal),
              StatusIs(StatusCode::kPermissionDenied));
  // Nor by enrolling it once more, with a token, as a device without one.
  EnrollRequest again = RequestFor(Token(), key_, "d");
  EXPECT_THAT(api().Enroll(std::nullopt, again),
              StatusIs(StatusCode::kAlreadyExists));
}

TEST_P(IdentityEnrolmentTest, Renew_TwiceInAMinute_IsTooOften) {
  ASSERT_THAT(EnrollFirst(), IsOk());
  world_->clock.Advance(std::chrono::seconds(59));
  EXPECT_THAT(api().Enroll(std::nullopt, Ask(keystore_, other_key_, "d")),
              StatusIs(StatusCode::kResourceExhausted));
  world_->clock.Advance(std::chrono::seconds(1));
  EXPECT_THAT(api().Enroll(std::nullopt, Ask(keystore_, other_key_, "d")),
              IsOk());
}

TEST_P(IdentityEnrolmentTest, Options_LifetimeAboveADay_IsRefused) {
  CoordinatorOptions options;
  options.identity_certificate_lifetime = hours(24) + std::chrono::seconds(1);
  EXPECT_THAT(options.Validate(), StatusIs(StatusCode::kInvalidArgument));
  options.identity_certificate_lifetime = Duration::zero();
  EXPECT_THAT(options.Validate(), StatusIs(StatusCode::kInvalidArgument));
  options.identity_certificate_lifetime = hours(2);
  EXPECT_THAT(options.Validate(), IsOk());
}

TEST_P(EnrolmentTest, Token_SecretIsNotStored) {
  const NewToken token = Token();

  const auto row = world_->store().GetToken(token.info.id);

  ASSERT_THAT(row, IsOk());
  EXPECT_EQ(row->secret_digest, crypto::Sha256(World::SecretOf(token.bundle)));
  EXPECT_THAT(token.bundle, HasSubstr("\"ca_certificate\":\"-----BEGIN"));
  EXPECT_THAT(token.bundle, HasSubstr("\"endpoint\":\"localhost:1\""));
  EXPECT_THAT(token.bundle, HasSubstr("\"population\":\"demo\""));
}

TEST_P(EnrolmentTest, CreateToken_RepeatedRequest_ShowsTheSameBundle) {
  const auto first = api().CreateToken("demo", hours(1), 5, "r1");
  const auto second = api().CreateToken("demo", hours(1), 5, "r1");

  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->bundle, second->bundle);
  EXPECT_EQ(api().ListTokens("demo", {})->items.size(), 1u);
  EXPECT_THAT(api().CreateToken("demo", hours(1), 6, "r1"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("r1")));
}

TEST_P(EnrolmentTest, CreateToken_Bounds_AreNamed) {
  EXPECT_THAT(api().CreateToken("demo", hours(1), 0, ""),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().CreateToken("demo", Duration::zero(), 1, ""),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().CreateToken("demo", hours(24 * 366), 1, ""),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().CreateToken("nowhere", hours(1), 1, ""),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(api().CreateToken("demo", hours(1), 1, std::string(65, 'x')),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().ListTokens("nowhere", {}), StatusIs(StatusCode::kNotFound));
}

TEST_P(EnrolmentTest, CreatePopulation_NamesAndRepeats) {
  EXPECT_THAT(api().CreatePopulation("Demo", ""),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().CreatePopulation("1st", ""),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().CreatePopulation("demo", ""),
              StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(api().CreatePopulation("two", "r"), IsOk());
  EXPECT_THAT(api().CreatePopulation("two", "r"), IsOk());
  EXPECT_THAT(api().CreatePopulation("three", "r"),
              StatusIs(StatusCode::kInvalidArgument));
  const auto page = api().ListPopulations({1, ""});
  ASSERT_EQ(page->items.size(), 1u);
  EXPECT_EQ(page->items[0].name, "demo");
  const auto next = api().ListPopulations({5, page->next_page_token});
  ASSERT_EQ(next->items.size(), 1u);
  EXPECT_EQ(next->items[0].name, "two");
  EXPECT_TRUE(next->next_page_token.empty());
}

TEST_P(EnrolmentTest, Report_CountsOncePerId) {
  ASSERT_THAT(api().Enroll(std::nullopt, RequestFor(Token(), key_, "d")),
              IsOk());
  const DeviceIdentity device{"demo", "d"};

  EXPECT_THAT(api().Report(device, "r1", {{"trained", 2}}), IsOk());
  EXPECT_THAT(api().Report(device, "r1", {{"trained", 2}}), IsOk());
  EXPECT_THAT(api().Report(device, "", {}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().Report(device, "r2", {{"Bad Name", 1}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(api().Report({"demo", "x"}, "r3", {}),
              StatusIs(StatusCode::kPermissionDenied));

  EXPECT_EQ(world_->store().ReportTotals("demo")->at("trained"), 2u);
}

}  // namespace
}  // namespace selvage::coordinator::test
