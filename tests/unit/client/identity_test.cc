// A device whose identity is a key of the host's keystore: its TLS keys, its
// renewals, and everything that a keystore may do wrong.
#include <sys/stat.h>

#include <gmock/gmock.h>

#include "tests/testing/fake_keystore.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::test {
namespace {

using namespace std::chrono_literals;
using client::RunOutcome;
using client::RunResult;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class LentKey final : public client::IdentityKey {
 public:
  const crypto::P256PublicKey& public_key() const override {
    return public_key_;
  }
  Result<Bytes> Sign(const crypto::Digest& digest) override {
    ++signatures;
    return instead ? instead(digest) : keystore_.Sign(digest);
  }

  std::function<Result<Bytes>(const crypto::Digest&)> instead;
  int signatures = 0;

 private:
  const FakeKeystore keystore_;
  const crypto::P256PublicKey public_key_ =
      *crypto::P256PublicKey::Parse(keystore_.PublicKey());
};

class IdentityTest : public ClientFixture {
 protected:
  void OpenWith(client::IdentityKey* key) {
    client_.reset();
    client::ClientDependencies dependencies = Dependencies();
    dependencies.identity_key = key;
    auto client = client::Client::Open(Options(), std::move(dependencies));
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
  }
  void OpenEnrolled() {
    OpenWith(&key_);
    AddExamples(24);
    EXPECT_EQ(Run().result, RunResult::kNothingToDo);
    ASSERT_EQ(server_->enrolments, 1);
    WaitForTurn();
  }
  std::string KeyFile() {
    Result<Bytes> bytes = ReadFile(files_, state_dir_ / "tls.key", 8 << 10);
    EXPECT_THAT(bytes, IsOk());
    return ToString(*bytes);
  }
  bool Exists(const char* name) {
    return std::filesystem::exists(state_dir_ / name);
  }

  LentKey key_;
};

TEST_F(IdentityTest, RunOnce_First_EnrolsWithASignature) {
  OpenWith(&key_);
  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kNothingToDo) << outcome.reason;
  EXPECT_TRUE(outcome.enrolled);
  EXPECT_EQ(key_.signatures, 1);
  EXPECT_EQ(server_->identities.at("dev-7"), key_.public_key().digest());
  EXPECT_EQ(client_->device_id(), "dev-7");
  EXPECT_FALSE(Exists("device.key"));
  struct stat about {};
  ASSERT_EQ(stat((state_dir_ / "tls.key").c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600U);
  // Another key than the host's.
  ASSERT_THAT(server_->tls_keys, SizeIs(1));
  EXPECT_NE(server_->tls_keys[0], key_.public_key().digest());
}

TEST_F(IdentityTest, RunOnce_Again_SignsNothing) {
  OpenEnrolled();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
  OpenWith(&key_);
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
  EXPECT_EQ(key_.signatures, 1);
}

TEST_F(IdentityTest, RunOnce_LastThirdOfTheDay_RenewsWithANewTlsKey) {
  OpenEnrolled();
  const std::string before = KeyFile();
  clock_.Advance(17h);
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kNothingToDo) << outcome.reason;
  EXPECT_EQ(server_->enrolments, 2);
  EXPECT_EQ(key_.signatures, 2);
  EXPECT_NE(KeyFile(), before);
  ASSERT_THAT(server_->tls_keys, SizeIs(2));
  EXPECT_NE(server_->tls_keys[0], server_->tls_keys[1]);
}

TEST_F(IdentityTest, RunOnce_AfterAMonth_RenewsWithoutToken) {
  OpenEnrolled();
  clock_.Advance(24h * 31);
  OpenWith(&key_);
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
  EXPECT_EQ(server_->enrolments, 2);
  EXPECT_EQ(server_->tokens_shown, 1);  // the first time
}

// The certificate ends while an update waits for a network.
TEST_F(IdentityTest, Upload_AfterTheCertificate_KeepsTheWork) {
  OpenEnrolled();
  client::Assignment assignment = server_->NewAssignment();
  assignment.compute_deadline = 24h * 3;
  assignment.upload_deadline = 24h * 4;
  server_->Give(assignment);
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("no network") : OkStatus();
  };
  RunUntil(RunResult::kFailed);
  server_->hook = [](const std::string&) { return OkStatus(); };
  clock_.Advance(24h * 2);
  OpenWith(&key_);
  const RunOutcome outcome = RunUntil(RunResult::kContributed);
  EXPECT_EQ(outcome.round, 1U);
  EXPECT_EQ(trainer_.state.trainings, 2);  // the round's, and fine-tuning
  EXPECT_THAT(server_->updates, SizeIs(1));
}

TEST_F(IdentityTest, Sign_LockedKeystore_FailsTheSessionAndIsTriedAgain) {
  OpenEnrolled();
  clock_.Advance(25h);
  key_.instead = [](const crypto::Digest&) {
    return Unavailable("the device is locked");
  };
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("the device is locked"));
  EXPECT_THAT(outcome.reason, HasSubstr("identity key"));
  EXPECT_TRUE(outcome.enrolled);
  key_.instead = nullptr;
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
}

TEST_F(IdentityTest, Sign_NoValidSignature_IsAnOutcomeWithItsReason) {
  const struct {
    const char* reason;
    std::function<Result<Bytes>(const crypto::Digest&)> sign;
  } cases[] = {
      {"70 bytes, not 64", [](const auto&) { return Bytes(70); }},
      {"0 bytes, not 64", [](const auto&) { return Bytes(); }},
      {"does not fit its identity key", [](const auto&) { return Bytes(64); }},
      {"does not fit its identity key",
       [](const crypto::Digest& digest) {
         return FakeKeystore().Sign(digest);
       }},
      {"no such key", [](const auto&) { return NotFound("no such key"); }},
      {"took 61 s",
       [this](const crypto::Digest&) {
         clock_.Advance(61s);
         return Bytes(64);
       }},
  };
  OpenWith(&key_);
  for (const auto& wrong : cases) {
    key_.instead = wrong.sign;
    const RunOutcome outcome = Run();
    EXPECT_EQ(outcome.result, RunResult::kFailed);
    EXPECT_THAT(outcome.reason, HasSubstr(wrong.reason));
    EXPECT_FALSE(outcome.enrolled);
    EXPECT_GT(outcome.next_run, clock_.Now());
    WaitForTurn();
  }
  EXPECT_EQ(server_->enrolments, 0);
  key_.instead = nullptr;
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
}

TEST_F(IdentityTest, Enroll_StaleNonce_SignsTheNewOne) {
  server_->stale_nonces = 1;
  OpenWith(&key_);
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
  EXPECT_EQ(key_.signatures, 2);
}

TEST_F(IdentityTest, Enroll_EveryNonceStale_GivesUpForNow) {
  server_->stale_nonces = 100;
  OpenWith(&key_);
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("too old"));
  EXPECT_EQ(key_.signatures, 2);
}

TEST_F(IdentityTest, Open_AnotherKey_SaysSoUntilThereIsANewBundle) {
  OpenEnrolled();
  const std::string old_bundle = server_->Bundle();
  LentKey other;
  bundle_ = "";
  OpenWith(&other);
  RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("was enrolled with the identity key"));
  EXPECT_THAT(outcome.reason,
              HasSubstr(other.public_key().digest().ToHex().substr(0, 16)));
  EXPECT_FALSE(outcome.enrolled);
  EXPECT_EQ(other.signatures, 0);

  OpenWith(nullptr);
  WaitForTurn();
  outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("the host gives none"));

  // The old key is back: as if nothing had happened.
  OpenWith(&key_);
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);

  server_->identities.clear();  // another name, for all this device knows
  bundle_ = old_bundle + " ";
  OpenWith(&other);
  WaitForTurn();
  outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kNothingToDo) << outcome.reason;
  EXPECT_EQ(server_->identities.at("dev-7"), other.public_key().digest());
}

TEST_F(IdentityTest, Open_EnrolledWithoutKey_SaysSo) {
  Open();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
  OpenWith(&key_);
  WaitForTurn();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("enrolled without an identity key"));
  Open();
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
}

// A crash between the two writes, a damaged file, a file that is gone.
TEST_F(IdentityTest, Open_TlsKeyLost_GetsAnother) {
  OpenEnrolled();
  client_.reset();
  const std::vector<const char*> damages = {"", "nonsense", nullptr};
  for (const char* contents : damages) {
    if (contents == nullptr) {
      std::filesystem::remove(state_dir_ / "tls.key");
    } else {
      ASSERT_THAT(WriteFileDurably(files_, state_dir_ / "tls.key",
                                   AsBytes(std::string_view(contents)), 0600),
                  IsOk());
    }
    OpenWith(&key_);
    WaitForTurn();
    const RunOutcome outcome = Run();
    EXPECT_EQ(outcome.result, RunResult::kNothingToDo) << outcome.reason;
    EXPECT_EQ(client_->device_id(), "dev-7");
    client_.reset();
  }
  EXPECT_EQ(server_->enrolments, 4);
}

TEST_F(IdentityTest, Enroll_CoordinatorWithoutIdentityKeys_IsExplained) {
  OpenWith(&key_);
  server_->hook = [](const std::string& call) {
    return call == "enroll" ? InvalidArgument("csr_pem is missing")
                            : OkStatus();
  };
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("csr_pem is missing"));
}

}  // namespace
}  // namespace selvage::test
