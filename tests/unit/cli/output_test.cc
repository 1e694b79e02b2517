#include "cli/output.h"

#include <nlohmann/json.hpp>

#include <gmock/gmock.h>

#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::Not;

class OutputTest : public test::CliFixture {};

TEST_F(OutputTest, Data_Json_IsAnEnvelope) {
  Environment environment = MakeEnvironment();
  Output output(environment, OutputFormat::kJson);
  output.Data({{"name", "x"}}, [] { return std::string("table"); });
  const Json json = Json::parse(out_.str());
  EXPECT_EQ(json["schema_version"], 1);
  EXPECT_EQ(json["status"], "ok");
  EXPECT_EQ(json["data"]["name"], "x");
}

TEST_F(OutputTest, Data_Table_IsPlain) {
  Environment environment = MakeEnvironment();
  Output output(environment, OutputFormat::kTable);
  output.Data({{"name", "x"}}, [] { return std::string("table\n"); });
  EXPECT_EQ(out_.str(), "table\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(OutputTest, Data_InvalidUtf8_IsStillJson) {
  Environment environment = MakeEnvironment();
  Output output(environment, OutputFormat::kJson);
  output.Data({{"name", "\xff"}}, [] { return std::string(); });
  EXPECT_TRUE(Json::accept(out_.str()));
}

TEST_F(OutputTest, Error_Table_SaysWhatAndWhatToDo) {
  Environment environment = MakeEnvironment();
  Output output(environment, OutputFormat::kTable);
  const Status status = NotFound("task x does not exist");
  EXPECT_EQ(output.Error(status, "try selvage list"), ExitCode::kNotFound);
  EXPECT_EQ(err_.str(),
            "selvage: error: task x does not exist\n  try selvage list\n");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(OutputTest, Error_Json_IsAnEnvelopeOnStdout) {
  Environment environment = MakeEnvironment();
  Output output(environment, OutputFormat::kJson);
  output.Error(NotFound("gone"), "");
  const Json json = Json::parse(out_.str());
  EXPECT_EQ(json["status"], "error");
  EXPECT_EQ(json["error"]["code"], "NOT_FOUND");
  EXPECT_EQ(json["error"]["exit_code"], 4);
  EXPECT_EQ(json["error"]["message"], "gone");
  EXPECT_FALSE(json.contains("data"));
}

TEST_F(OutputTest, Message_ControlCharacters_AreReplaced) {
  Environment environment = MakeEnvironment();
  Output output(environment, OutputFormat::kTable);
  output.Message("one\ntwo \x1b[31m");
  EXPECT_EQ(err_.str(), "one\ntwo ?[31m\n");
}

TEST_F(OutputTest, Color_NoTerminalOrNoColor_IsOff) {
  out_is_terminal_ = true;
  Environment terminal = MakeEnvironment();
  EXPECT_TRUE(Output(terminal, OutputFormat::kTable).color());
  variables_["NO_COLOR"] = "1";
  EXPECT_FALSE(Output(terminal, OutputFormat::kTable).color());
  variables_["NO_COLOR"] = "";  // no-color.org: empty means unset
  EXPECT_TRUE(Output(terminal, OutputFormat::kTable).color());
  variables_["TERM"] = "dumb";
  EXPECT_FALSE(Output(terminal, OutputFormat::kTable).color());
  variables_.erase("TERM");
  out_is_terminal_ = false;
  Environment pipe = MakeEnvironment();
  EXPECT_FALSE(Output(pipe, OutputFormat::kTable).color());
}

TEST_F(OutputTest, Unicode_FirstLocaleVariable_Decides) {
  variables_["LANG"] = "en_US.UTF-8";
  Environment environment = MakeEnvironment();
  EXPECT_TRUE(Output(environment, OutputFormat::kTable).unicode());
  variables_["LC_ALL"] = "C";
  EXPECT_FALSE(Output(environment, OutputFormat::kTable).unicode());
}

TEST_F(OutputTest, ParseOutputFormat_Unknown_IsRefused) {
  EXPECT_TRUE(ParseOutputFormat("json").ok());
  EXPECT_TRUE(ParseOutputFormat("table").ok());
  EXPECT_FALSE(ParseOutputFormat("xml").ok());
}

}  // namespace
}  // namespace selvage::cli
