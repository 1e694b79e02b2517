// `selvage doctor` against a TLS 1.3 server.
#include <nlohmann/json.hpp>

#include <gmock/gmock.h>

#include "base/time.h"
#include "base/version.h"
#include "cli/app.h"
#include "cli/tls_probe.h"
#include "tests/integration/cli/fake_admin.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

class DoctorVerbTest : public test::CliFixture {
 protected:
  DoctorVerbTest() : admin_(directory_ / "coordinator") {
    admin_.info.set_version(std::string(Version()));
    // The fake's certificate is of now.
    SystemClock clock;
    clock_.Advance(clock.Now() - clock_.Now());
  }

  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"--coordinator", (directory_ / "coordinator").string()});
    out_.str("");
    Environment environment = MakeEnvironment();
    return static_cast<int>(RunCli(arguments, environment));
  }
  // check -> health
  std::map<std::string, std::string> Checks() {
    std::map<std::string, std::string> out;
    const Json json = Json::parse(out_.str());
    for (const Json& check : json["data"]["checks"]) {
      out[check["check"]] = check["health"];
    }
    return out;
  }
  std::string Ca() { return Read(directory_ / "coordinator" / "ca.pem"); }
  std::string Port() {
    return admin_.address().substr(admin_.address().rfind(':') + 1);
  }

  test::FakeAdmin admin_;
};

TEST_F(DoctorVerbTest, Doctor_HealthyCoordinator_IsOk) {
  EXPECT_EQ(Run({"doctor", "-o", "json"}), 0) << out_.str();
  EXPECT_EQ(Checks(),
            (std::map<std::string, std::string>{{"configuration", "ok"},
                                                {"port", "ok"},
                                                {"tls", "ok"},
                                                {"certificate", "ok"},
                                                {"tls12", "ok"},
                                                {"token", "ok"},
                                                {"clock", "ok"},
                                                {"disk", "ok"},
                                                {"version", "ok"},
                                                {"blas", "skipped"}}));
}

TEST_F(DoctorVerbTest, Doctor_Table_IsAChecklist) {
  admin_.info.set_free_bytes(1);
  EXPECT_EQ(Run({"doctor"}), 6);
  EXPECT_THAT(out_.str(), HasSubstr("ok       tls12          TLS 1.2 is "
                                    "refused\n"));
  EXPECT_THAT(out_.str(), HasSubstr("failure  disk           1 B free"));
  EXPECT_THAT(out_.str(), HasSubstr("-> free space"));
}

TEST_F(DoctorVerbTest, Doctor_NobodyThere_Is8) {
  Write("coordinator/endpoints.json", R"({"admin":"127.0.0.1:1"})");
  EXPECT_EQ(Run({"doctor", "-o", "json"}), 8);
  EXPECT_EQ(Checks()["port"], "failure");
}

TEST_F(DoctorVerbTest, Doctor_ForeignCa_Is3) {
  test::FakeAdmin other(directory_ / "other");
  Write("coordinator/ca.pem", Read(directory_ / "other" / "ca.pem"));
  EXPECT_EQ(Run({"doctor", "-o", "json"}), 3);
  EXPECT_EQ(Checks()["tls"], "failure");
}

TEST_F(DoctorVerbTest, Doctor_WrongToken_Is3) {
  Write("coordinator/admin.token", "guess");
  EXPECT_EQ(Run({"doctor", "-o", "json"}), 3);
  EXPECT_EQ(Checks()["token"], "failure");
  EXPECT_EQ(Checks()["clock"], "skipped");
}

TEST_F(DoctorVerbTest, Doctor_ClockApart_Warns) {
  clock_.Advance(std::chrono::seconds(30));
  EXPECT_EQ(Run({"doctor", "-o", "json"}), 0);
  EXPECT_EQ(Checks()["clock"], "warning");
}

TEST_F(DoctorVerbTest, ProbeTls_OldVersion_IsRefused) {
  const Duration timeout = std::chrono::seconds(5);
  const auto peer =
      ProbeTls("127.0.0.1", Port(), Ca(), TlsVersion::kTls13, timeout);
  ASSERT_THAT(peer, IsOk());
  EXPECT_EQ(peer->protocol, "TLSv1.3");
  EXPECT_THAT(ProbeTls("127.0.0.1", Port(), Ca(), TlsVersion::kTls12, timeout),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(ProbeTls("localhost", Port(), Ca(), TlsVersion::kTls13, timeout),
              IsOk());
  EXPECT_THAT(
      ProbeTls("127.0.0.1", Port(), "none", TlsVersion::kTls13, timeout),
      StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::cli
