// Tokens, certificates, populations, request ids.
#include <gmock/gmock.h>

#include "crypto/x509.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

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
