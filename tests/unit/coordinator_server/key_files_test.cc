#include "coordinator/server/key_files.h"

#include <sys/stat.h>

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/server/proxy_certificate.h"
#include "crypto/x509.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

namespace fs = std::filesystem;
using selvage::test::IsOk;
using selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Duration kDay = std::chrono::hours(24);

class KeyFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root = fs::path(::testing::TempDir()) /
           ("selvage_keys_" + std::string(info->name()));
    fs::remove_all(root);
    options.data_dir = root / "data";
    options.wrapping_key_file = root / "elsewhere" / "wrapping.key";
    options.server_names = {"localhost", "127.0.0.1", "::1"};
    options.may_create = true;
    clock.Advance(SystemClock().Now() - clock.Now());
  }
  void TearDown() override { fs::remove_all(root); }

  Result<CoordinatorKeys> Open() {
    return OpenKeys(files, options, clock.Now(), random);
  }

  Path root;
  KeyFileOptions options;
  PosixFileSystem files;
  OsRandom random;
  selvage::test::FakeClock clock;
};

TEST_F(KeyFilesTest, FirstStart_EveryFileIsPrivate) {
  ASSERT_THAT(Open(), IsOk());
  int count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    struct stat info {};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, entry.is_directory() ? 0700U : 0600U)
        << entry.path();
    if (entry.is_regular_file()) ++count;
  }
  // ca.pem, ca.key, server.pem, server.key, plan, assignment, wrapping, token
  EXPECT_EQ(count, 8);
}

TEST_F(KeyFilesTest, ProxyCertificate_IsOfThisAuthority_AndPrivate) {
  const Result<CoordinatorKeys> keys = Open();
  ASSERT_THAT(keys, IsOk());
  const ProxyCertificateOptions wanted{.keys_dir = options.data_dir,
                                       .name = "edge",
                                       .hosts = {"fl.example.org"},
                                       .lifetime = 10 * kDay,
                                       .out = root / "proxy"};
  ASSERT_THAT(WriteProxyCertificate(wanted, files, clock, random), IsOk());
  const auto text = [&](const char* name) {
    struct stat info {};
    EXPECT_EQ(stat((wanted.out / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U) << name;
    return ToString(*ReadFile(files, wanted.out / name, 1 << 16));
  };
  EXPECT_EQ(text("ca.pem"), keys->authority.certificate_pem());
  const std::string pem = text("proxy.pem");
  const auto certificate = crypto::ParseCertificate(pem);
  ASSERT_THAT(certificate, IsOk());
  EXPECT_THAT(certificate->uris, ElementsAre("selvage://proxy/edge"));
  EXPECT_THAT(certificate->names, ElementsAre("fl.example.org"));
  EXPECT_LE(certificate->not_after, clock.Now() + 10 * kDay);
  EXPECT_GT(certificate->not_after, clock.Now() + 9 * kDay);
  EXPECT_THAT(keys->authority.VerifyDevice(pem, clock.Now()), IsOk());
  const auto key = crypto::ParseP256Key(text("proxy.key.pem"));
  ASSERT_THAT(key, IsOk());
  EXPECT_EQ(*crypto::PublicKeyDigest(*key), certificate->public_key_digest);
  // The one in use is not overwritten, with half of another pair or at all.
  EXPECT_THAT(WriteProxyCertificate(wanted, files, clock, random),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("proxy.key.pem")));
  EXPECT_EQ(text("proxy.pem"), pem);
}

TEST_F(KeyFilesTest, ProxyCertificate_WithoutAnAuthority_IsDataLoss) {
  EXPECT_THAT(WriteProxyCertificate({.keys_dir = options.data_dir,
                                     .name = "edge",
                                     .hosts = {"localhost"},
                                     .out = root / "proxy"},
                                    files, clock, random),
              StatusIs(StatusCode::kDataLoss, HasSubstr("ca.pem is missing")));
  EXPECT_FALSE(fs::exists(root / "proxy"));
}

TEST_F(KeyFilesTest, Restart_LoadsTheSameKeys) {
  const Result<CoordinatorKeys> first = Open();
  ASSERT_THAT(first, IsOk());
  options.may_create = false;
  clock.Advance(300 * kDay);
  const Result<CoordinatorKeys> second = Open();
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->authority.certificate_pem(),
            second->authority.certificate_pem());
  EXPECT_EQ(first->server_certificate_pem, second->server_certificate_pem);
  EXPECT_EQ(first->server_key.pem, second->server_key.pem);
  EXPECT_EQ(first->plan_key.public_key, second->plan_key.public_key);
  EXPECT_EQ(first->assignment_key, second->assignment_key);
  EXPECT_EQ(first->wrapping_key, second->wrapping_key);
  EXPECT_EQ(first->admin_token, second->admin_token);
  EXPECT_EQ(first->admin_token.size(), 64U);
}

TEST_F(KeyFilesTest, SharedKeys_AllButTheServersAreTheSame) {
  options.keys_dir = root / "shared";
  const Result<CoordinatorKeys> first = Open();
  ASSERT_THAT(first, IsOk());
  EXPECT_FALSE(fs::exists(options.data_dir / "keys" / "ca.key.pem"));
  EXPECT_FALSE(fs::exists(options.keys_dir / "keys" / "server.key.pem"));
  // For whoever connects from this machine.
  EXPECT_TRUE(fs::exists(options.data_dir / "ca.pem"));
  EXPECT_TRUE(fs::exists(options.data_dir / "admin.token"));

  // A replica that joins a database with something in it; it needs to write
  // nothing where the keys are.
  options.data_dir = root / "second";
  options.may_create = false;
  options.server_names = {"second.example"};
  fs::permissions(options.keys_dir,
                  fs::perms::owner_read | fs::perms::owner_exec);
  const Result<CoordinatorKeys> second = Open();
  fs::permissions(options.keys_dir, fs::perms::owner_all);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->authority.certificate_pem(),
            second->authority.certificate_pem());
  EXPECT_EQ(first->admin_token, second->admin_token);
  EXPECT_NE(first->server_key.pem, second->server_key.pem);
  EXPECT_EQ(*SharedKeysFingerprint(*first), *SharedKeysFingerprint(*second));

  // Its own copies follow; its own key may be lost.
  fs::remove_all(options.data_dir);
  EXPECT_THAT(Open(), IsOk());
  fs::remove(options.keys_dir / "keys" / "plan.key");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
}

TEST_F(KeyFilesTest, SharedKeysFingerprint_DiffersWithEveryKey) {
  options.keys_dir = root / "shared";
  const Result<CoordinatorKeys> keys = Open();
  ASSERT_THAT(keys, IsOk());
  const std::string before = *SharedKeysFingerprint(*keys);
  for (const Path& path :
       {options.keys_dir / "keys" / "plan.key",
        options.keys_dir / "keys" / "assignment.key", options.wrapping_key_file,
        options.keys_dir / "admin.token"}) {
    fs::remove(path);
    const Result<CoordinatorKeys> other = Open();
    ASSERT_THAT(other, IsOk());
    EXPECT_NE(*SharedKeysFingerprint(*other), before) << path;
  }
}

TEST_F(KeyFilesTest, ServerCertificate_IsRenewedBeforeItEnds) {
  const Result<CoordinatorKeys> first = Open();
  ASSERT_THAT(first, IsOk());
  clock.Advance(380 * kDay);
  const Result<CoordinatorKeys> second = Open();
  ASSERT_THAT(second, IsOk());
  EXPECT_NE(first->server_certificate_pem, second->server_certificate_pem);
  EXPECT_EQ(first->server_key.pem, second->server_key.pem);
}

TEST_F(KeyFilesTest, ServerNamesChange_CertificateFollows) {
  ASSERT_THAT(Open(), IsOk());
  options.server_names = {"fl.example.org"};
  const Result<CoordinatorKeys> keys = Open();
  ASSERT_THAT(keys, IsOk());
  const auto certificate =
      crypto::ParseCertificate(keys->server_certificate_pem);
  ASSERT_THAT(certificate, IsOk());
  EXPECT_THAT(certificate->names, ElementsAre("fl.example.org"));
}

TEST_F(KeyFilesTest, MissingKeyWithADatabase_IsALoss) {
  for (const Path& path :
       {options.data_dir / "ca.pem", options.data_dir / "keys" / "ca.key.pem",
        options.data_dir / "keys" / "server.key.pem",
        options.data_dir / "keys" / "plan.key",
        options.data_dir / "keys" / "assignment.key",
        options.wrapping_key_file}) {
    fs::remove_all(root);
    options.may_create = true;
    ASSERT_THAT(Open(), IsOk());
    fs::remove(path);
    options.may_create = false;
    EXPECT_THAT(Open(),
                StatusIs(StatusCode::kDataLoss, HasSubstr(path.string())));
    EXPECT_FALSE(fs::exists(path));
  }
}

TEST_F(KeyFilesTest, LostAdminToken_IsReplaced) {
  const Result<CoordinatorKeys> first = Open();
  fs::remove(options.data_dir / "admin.token");
  options.may_create = false;
  const Result<CoordinatorKeys> second = Open();
  ASSERT_THAT(second, IsOk());
  EXPECT_NE(first->admin_token, second->admin_token);
}

TEST_F(KeyFilesTest, FirstStartCutShort_IsCompleted) {
  ASSERT_THAT(Open(), IsOk());
  fs::remove(options.data_dir / "ca.pem");
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(KeyFilesTest, ReadableByOthers_IsRefused) {
  ASSERT_THAT(Open(), IsOk());
  for (const Path& path :
       {options.data_dir / "keys" / "ca.key.pem",
        options.data_dir / "admin.token", options.wrapping_key_file}) {
    ASSERT_EQ(chmod(path.c_str(), 0640), 0);
    EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                                 HasSubstr(path.string())));
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  }
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(KeyFilesTest, MalformedFiles_AreALossByName) {
  for (const Path& path :
       {options.data_dir / "ca.pem", options.data_dir / "keys" / "ca.key.pem",
        options.data_dir / "keys" / "server.key.pem",
        options.data_dir / "keys" / "plan.key",
        options.data_dir / "admin.token"}) {
    fs::remove_all(root);
    ASSERT_THAT(Open(), IsOk());
    ASSERT_THAT(WriteFileDurably(files, path, AsBytes("junk\n")), IsOk());
    EXPECT_THAT(Open(),
                StatusIs(StatusCode::kDataLoss, HasSubstr(path.string())));
  }
}

TEST_F(KeyFilesTest, AnotherAuthoritysKey_IsALoss) {
  ASSERT_THAT(Open(), IsOk());
  const auto stranger = crypto::NewP256Key();
  ASSERT_THAT(stranger, IsOk());
  ASSERT_THAT(WriteFileDurably(files, options.data_dir / "keys" / "ca.key.pem",
                               AsBytes(stranger->ExposeSecret())),
              IsOk());
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("ca.pem")));
}

}  // namespace
}  // namespace selvage::coordinator
