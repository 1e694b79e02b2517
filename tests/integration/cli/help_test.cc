// Every verb's --help, and the golden text of those people read first. To
// accept a change: SELVAGE_UPDATE_GOLDEN=1 cli_integration_test
// --gtest_filter='Help*'.
#include <cstdlib>

#include <gmock/gmock.h>

#include "cli/app.h"
#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class HelpTest : public test::CliFixture {
 protected:
  std::string Help(std::vector<std::string> arguments) {
    arguments.push_back("--help");
    out_.str("");
    Environment environment = MakeEnvironment();
    EXPECT_EQ(RunCli(arguments, environment), ExitCode::kOk);
    EXPECT_EQ(err_.str(), "");
    return out_.str();
  }
  void ExpectGolden(const std::string& name, const std::string& text) {
    const std::filesystem::path path =
        std::filesystem::path(SELVAGE_GOLDEN_DIR) / name;
    if (std::getenv("SELVAGE_UPDATE_GOLDEN") != nullptr) {
      std::ofstream(path, std::ios::binary) << text;
    }
    EXPECT_EQ(text, Read(path)) << "see the top of help_test.cc";
  }
};

TEST_F(HelpTest, Help_EveryVerb_HasExamples) {
  const std::vector<std::vector<std::string>> verbs = {{},
                                                       {"run"},
                                                       {"clone"},
                                                       {"watch"},
                                                       {"wait"},
                                                       {"stop"},
                                                       {"list"},
                                                       {"show"},
                                                       {"get"},
                                                       {"describe"},
                                                       {"pull"},
                                                       {"model"},
                                                       {"model", "package"},
                                                       {"model", "list"},
                                                       {"model", "show"},
                                                       {"population"},
                                                       {"population", "create"},
                                                       {"population", "list"},
                                                       {"token"},
                                                       {"token", "create"},
                                                       {"token", "list"},
                                                       {"token", "revoke"},
                                                       {"admin", "backup"},
                                                       {"admin", "restore"},
                                                       {"doctor"},
                                                       {"version"}};
  for (const auto& verb : verbs) {
    const std::string help = Help(verb);
    EXPECT_THAT(help, HasSubstr("Examples:\n  selvage "));
    EXPECT_THAT(help, Not(HasSubstr("\x1b")));
  }
}

TEST_F(HelpTest, Help_FirstPages_AreGolden) {
  ExpectGolden("help.txt", Help({}));
  ExpectGolden("run_help.txt", Help({"run"}));
  ExpectGolden("token_create_help.txt", Help({"token", "create"}));
}

TEST_F(HelpTest, Version_Flag_HasTheCommit) {
  Environment environment = MakeEnvironment();
  EXPECT_EQ(RunCli({"--version"}, environment), ExitCode::kOk);
  EXPECT_THAT(out_.str(),
              ::testing::MatchesRegex("selvage [0-9.]+ \\([0-9a-z]+\\)\n"));
}

}  // namespace
}  // namespace selvage::cli
