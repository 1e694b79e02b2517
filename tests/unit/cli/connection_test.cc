#include "cli/connection.h"

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

class ConnectionTest : public test::CliFixture {
 protected:
  ConnectionTest() : environment_(MakeEnvironment()) {}

  // A coordinator's data directory.
  std::string Coordinator(const std::string& name, const std::string& port) {
    Write(name + "/endpoints.json", R"({"admin":"127.0.0.1:)" + port + R"("})");
    Write(name + "/ca.pem", "CA of " + name);
    Write(name + "/admin.token", "token-of-" + name + "\n");
    return (directory_ / name).string();
  }

  Environment environment_;
};

TEST_F(ConnectionTest, Resolve_Nothing_SaysHow) {
  EXPECT_THAT(ResolveConnection(environment_, {}, {}, {}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("pass --coordinator DIR")));
}

TEST_F(ConnectionTest, Resolve_CoordinatorDirectory_GivesAllThree) {
  const auto to = ResolveConnection(
      environment_, {.coordinator = Coordinator("a", "4711")}, {}, {});
  ASSERT_THAT(to, IsOk());
  EXPECT_EQ(to->Address(), "127.0.0.1:4711");
  EXPECT_EQ(to->ca_pem, "CA of a");
  EXPECT_EQ(to->token, "token-of-a");
}

TEST_F(ConnectionTest, Resolve_Levels_FlagsBeatEnvironmentBeatFile) {
  const ConnectionOptions flags{.coordinator = Coordinator("flags", "1")};
  const ConnectionOptions env{.coordinator = Coordinator("env", "2")};
  const ConnectionOptions file{.coordinator = Coordinator("file", "3")};
  EXPECT_EQ(ResolveConnection(environment_, flags, env, file)->port, "1");
  EXPECT_EQ(ResolveConnection(environment_, {}, env, file)->port, "2");
  EXPECT_EQ(ResolveConnection(environment_, {}, {}, file)->port, "3");
  EXPECT_EQ(ResolveConnection(environment_, {}, env, file)->token,
            "token-of-env");
}

TEST_F(ConnectionTest, Resolve_DirectOption_BeatsDirectoryOfItsLevel) {
  const ConnectionOptions flags{.server = "example.org:9",
                                .coordinator = Coordinator("a", "1")};
  const auto to = ResolveConnection(environment_, flags, {}, {});
  ASSERT_THAT(to, IsOk());
  EXPECT_EQ(to->Address(), "example.org:9");
  EXPECT_EQ(to->ca_pem, "CA of a");
}

TEST_F(ConnectionTest, Resolve_ServerFlag_TakesTheRestFromTheEnvironment) {
  const ConnectionOptions flags{.server = "[::1]:9"};
  const ConnectionOptions env{.ca = Write("ca", "PEM"),
                              .token_file = Write("t", " abc \n")};
  const auto to = ResolveConnection(environment_, flags, env, {});
  ASSERT_THAT(to, IsOk());
  EXPECT_EQ(to->Address(), "[::1]:9");
  EXPECT_EQ(to->host, "::1");
  EXPECT_EQ(to->token, "abc");
}

TEST_F(ConnectionTest, Resolve_NoRunningCoordinator_IsUnavailable) {
  EXPECT_THAT(ResolveConnection(environment_,
                                {.coordinator = directory_.string()}, {}, {}),
              StatusIs(StatusCode::kUnavailable,
                       HasSubstr("no coordinator is running")));
}

TEST_F(ConnectionTest, Resolve_Insecure_IsForThisMachineAlone) {
  const std::string directory = Coordinator("a", "1");
  Write("a/endpoints.json", R"({"admin":"127.0.0.1:1","insecure":true})");
  std::filesystem::remove(directory_ / "a" / "ca.pem");
  const auto to =
      ResolveConnection(environment_, {.coordinator = directory}, {}, {});
  ASSERT_THAT(to, IsOk());
  EXPECT_TRUE(to->insecure);
  Write("a/endpoints.json", R"({"admin":"10.0.0.1:1","insecure":true})");
  EXPECT_THAT(
      ResolveConnection(environment_, {.coordinator = directory}, {}, {}),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("without TLS")));
}

TEST_F(ConnectionTest, Resolve_MissingPieces_AreNamed) {
  EXPECT_THAT(ResolveConnection(environment_, {.server = "a:1"}, {}, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("no CA given")));
  EXPECT_THAT(
      ResolveConnection(environment_, {.server = "a:1", .ca = "x"}, {}, {}),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("no token given")));
  EXPECT_THAT(ResolveConnection(
                  environment_,
                  {.server = "a:1", .ca = "/none", .token_file = "x"}, {}, {}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("cannot read the CA /none")));
}

TEST_F(ConnectionTest, Resolve_BadAddress_IsNamed) {
  for (const char* address :
       {"host", "host:", ":1", "host:0", "host:65536", "host:12a", "::1:80"}) {
    EXPECT_THAT(
        ResolveConnection(environment_, {.server = address}, {}, {}),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr("is not HOST:PORT")))
        << address;
  }
}

TEST_F(ConnectionTest, Resolve_TokenThatIsNoHeader_IsRefused) {
  for (const char* token : {"", "two words", "a\nb"}) {
    const ConnectionOptions flags{.server = "a:1",
                                  .ca = Write("ca", "PEM"),
                                  .token_file = Write("t", token)};
    EXPECT_THAT(ResolveConnection(environment_, flags, {}, {}),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr("does not hold one word")));
  }
}

TEST_F(ConnectionTest, ParseConfig_RelativeNames_AreRelativeToTheFile) {
  const auto config =
      ParseConfig("server: a:1\nca: ca.pem\ntoken_file: /t\n", "/etc/selvage");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->connection.server, "a:1");
  EXPECT_EQ(config->connection.ca, "/etc/selvage/ca.pem");
  EXPECT_EQ(config->connection.token_file, "/t");
}

TEST_F(ConnectionTest, ParseConfig_UnknownKey_NamesTheNearest) {
  EXPECT_THAT(ParseConfig("\nservr: a:1\n", ""),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("line 2: servr is not a key here; did you "
                                 "mean server?")));
  EXPECT_THAT(ParseConfig("[1]", ""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseConfig("server: [a]", ""),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseConfig("{", ""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseConfig("", ""), IsOk());
}

TEST_F(ConnectionTest, LoadConfig_XdgDirectory_BeatsHome) {
  Write("home/.config/selvage/config.yaml", "output: json\n");
  EXPECT_EQ(LoadConfig(environment_)->output, "json");
  variables_["XDG_CONFIG_HOME"] = (directory_ / "xdg").string();
  EXPECT_EQ(LoadConfig(environment_)->output, std::nullopt);
  Write("xdg/selvage/config.yaml", "output: table\n");
  EXPECT_EQ(LoadConfig(environment_)->output, "table");
}

TEST_F(ConnectionTest, LoadConfig_BadFile_NamesIt) {
  Write("home/.config/selvage/config.yaml", "colour: red\n");
  EXPECT_THAT(LoadConfig(environment_),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("selvage/config.yaml: line 1")));
}

TEST_F(ConnectionTest, ConnectionFromEnvironment_EmptyVariable_IsUnset) {
  variables_["SELVAGE_SERVER"] = "";
  variables_["SELVAGE_CA"] = "ca";
  const auto options = ConnectionFromEnvironment(environment_.get_env);
  EXPECT_EQ(options.server, std::nullopt);
  EXPECT_EQ(options.ca, "ca");
}

}  // namespace
}  // namespace selvage::cli
