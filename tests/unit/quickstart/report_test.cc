#include "examples/quickstart/report.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include <gmock/gmock.h>

#include "crypto/digest.h"
#include "examples/quickstart/check.h"
#include "tests/testing/status_matchers.h"

namespace selvage::quickstart {
namespace {

using Json = nlohmann::ordered_json;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Findings Example() {
  Findings f;
  f.seed = 1;
  f.devices = 3;
  f.rounds = 2;
  f.fleet = {{"device-000", 70, 75, 80},
             {"device-001", 80, 85, 90},
             {"device-002", 90, 95, 100}};
  f.newcomers = {{"newcomer-000", 60, 70, 84}};
  f.history = {{1, true, 3, 0.5, true, 20, 10, 30},
               {2, true, 3, 0.5, true, 60, 40, 80}};
  f.bytes_up = 1'000'000;
  f.bytes_down = 2'000'000;
  f.seconds = 12.345;
  f.model = "out/<model>.pt";
  f.model_digest = "abc";
  f.certificates = 4;
  f.connections = 5;
  return f;
}

TEST(ReportTest, SpreadOf_Interpolates) {
  const Spread spread = SpreadOf({30, 10, 20});
  EXPECT_DOUBLE_EQ(spread.mean, 20);
  EXPECT_DOUBLE_EQ(spread.p10, 12);
  EXPECT_DOUBLE_EQ(spread.worst, 10);
  EXPECT_DOUBLE_EQ(SpreadOf({5}).p10, 5);
}

TEST(ReportTest, SummaryJson_HasExactlyTheAgreedKeys) {
  const Json json = Json::parse(SummaryJson(Example()));
  std::vector<std::string> keys;
  for (const auto& item : json.items()) keys.push_back(item.key());
  EXPECT_EQ(keys,
            (std::vector<std::string>{
                "seed", "devices", "rounds", "alone", "global", "personal",
                "newcomers", "bytes_up", "bytes_down", "seconds", "model",
                "model_digest", "certificates", "connections"}));
  EXPECT_EQ(json["personal"]["mean"], 90);
  EXPECT_EQ(json["personal"]["p10"], 82);
  EXPECT_EQ(json["personal"]["worst"], 80);
  EXPECT_EQ(json["newcomers"]["before"], 70);
  EXPECT_EQ(json["newcomers"]["after"], 84);
  EXPECT_EQ(json["seconds"], 12.35);
}

TEST(ReportTest, SummaryTable_IsPlainText) {
  EXPECT_THAT(
      SummaryTable(Example()),
      AllOf(HasSubstr("  personal     90.0     82.0    80.0"),
            HasSubstr("1 newcomer that never took part: 70.0 before, 84.0"),
            HasSubstr("1.0 MB up, 2.0 MB down"), Not(HasSubstr("\x1b"))));
}

TEST(ReportTest, ReportHtml_NeedsNothingElse) {
  const std::string html = ReportHtml(Example());
  for (const char* link :
       {"http:", "https:", "src=", "href=", "url(", "@import", "<script"}) {
    EXPECT_THAT(html, Not(HasSubstr(link)));
  }
  EXPECT_THAT(
      html, AllOf(HasSubstr("<polyline class=\"curve\""),
                  HasSubstr("device-002: alone 90, global 95"),
                  HasSubstr("newcomer-000"), HasSubstr("out/&lt;model&gt;.pt"),
                  // A narrow screen scrolls the drawings, not the page.
                  HasSubstr("<div class=\"scroll\"><svg"),
                  HasSubstr("prefers-color-scheme: dark")));
}

TEST(ReportTest, ReportHtml_NothingMeasured_SaysSo) {
  Findings findings = Example();
  findings.history.resize(1);
  EXPECT_THAT(ReportHtml(findings), HasSubstr("there is no curve to draw"));
}

TEST(ReportTest, ParseRounds_Lines) {
  const auto rounds = ParseRounds(
      R"({"round":1,"state":"COMMITTED","funnel":{"accepted":3},"seconds":1.5,)"
      R"("metrics":{"accuracy":{"mean":0.5,"p10":0.25,"p90":0.75}}})"
      "\n"
      R"({"round":2,"state":"ABANDONED","funnel":{"accepted":0},"seconds":2,)"
      R"("metrics":{}})"
      "\n");
  ASSERT_THAT(rounds, IsOk());
  ASSERT_EQ(rounds->size(), 2u);
  EXPECT_TRUE((*rounds)[0].measured);
  EXPECT_EQ((*rounds)[0].accuracy, 50);
  EXPECT_EQ((*rounds)[0].p10, 25);
  EXPECT_EQ((*rounds)[0].p90, 75);
  EXPECT_FALSE((*rounds)[1].committed);
  EXPECT_FALSE((*rounds)[1].measured);
  EXPECT_THAT(ParseRounds("{}\n"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("line 1")));
}

TEST(ReportTest, Percentiles_NotSaid_LeaveTheCurve) {
  const auto rounds = ParseRounds(
      R"({"round":1,"state":"COMMITTED","funnel":{"accepted":3},"seconds":1.5,)"
      R"("metrics":{"accuracy":{"mean":0.5}}})"
      "\n");
  ASSERT_THAT(rounds, IsOk());
  EXPECT_TRUE((*rounds)[0].measured);
  EXPECT_FALSE((*rounds)[0].p10.has_value());
  Findings findings = Example();
  for (RoundPoint& point : findings.history) point.p10 = point.p90 = {};
  EXPECT_THAT(ReportHtml(findings),
              AllOf(HasSubstr("<polyline class=\"curve\""),
                    Not(HasSubstr("(10th percentile"))));
}

TEST(ReportTest, ParseServerInfo_MissingCounter_IsNamed) {
  Findings findings;
  EXPECT_THAT(
      ParseServerInfo(R"({"data":{"socket_bytes_received":1}})", findings),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("socket_bytes_sent")));
}

TEST(ReportTest, ReadScores_Folder) {
  const Path directory =
      Path(::testing::TempDir()) / ("scores-" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  PosixFileSystem files;
  EXPECT_THAT(ReadScores(files, directory), StatusIs(StatusCode::kNotFound));
  const std::string text =
      R"({"device":"d","alone":{"accuracy":0.5},"global":{"accuracy":0.6},)"
      R"("personal":{"accuracy":0.1},"serving":{"accuracy":0.7}})";
  ASSERT_THAT(WriteFileDurably(files, directory / "d.json", AsBytes(text)),
              IsOk());
  const auto scores = ReadScores(files, directory);
  ASSERT_THAT(scores, IsOk());
  EXPECT_DOUBLE_EQ(scores->at(0).alone, 50);
  EXPECT_DOUBLE_EQ(scores->at(0).global, 60);
  EXPECT_DOUBLE_EQ(scores->at(0).personal, 70);
  ASSERT_THAT(WriteFileDurably(files, directory / "e.json", AsBytes("{}")),
              IsOk());
  EXPECT_THAT(ReadScores(files, directory),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("e.json")));
  std::filesystem::remove_all(directory);
}

class CheckTest : public ::testing::Test {
 protected:
  CheckTest()
      : directory_(Path(::testing::TempDir()) /
                   ("check-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(directory_);
    Findings findings = Example();
    findings.model_digest = crypto::Sha256(AsBytes("values")).ToHex();
    Write("summary.json", SummaryJson(findings));
    Write("report.html", ReportHtml(findings));
    Write("model.safetensors", "values");
    Write("model.pt", "PK archive");
    const std::string round =
        R"({"round":1,"state":"COMMITTED","funnel":{"accepted":3},)"
        R"("seconds":1.5,"metrics":{}})";
    Write("rounds.jsonl", round + "\n" + round + "\n");
  }
  ~CheckTest() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& text) {
    EXPECT_THAT(WriteFileDurably(files_, directory_ / name, AsBytes(text)),
                IsOk());
  }
  std::vector<std::string> Check(const Expectations& expected = {}) {
    return CheckArtefacts(files_, directory_, expected);
  }

  Path directory_;
  PosixFileSystem files_;
};

TEST_F(CheckTest, CheckArtefacts_WholeRun_IsGood) {
  Expectations expected;
  expected.devices = 3;
  expected.rounds = 2;
  expected.targets = true;
  EXPECT_THAT(Check(expected), IsEmpty());
}

TEST_F(CheckTest, CheckArtefacts_EveryDefect_IsNamed) {
  Expectations expected;
  expected.devices = 4;
  EXPECT_THAT(Check(expected), Contains(HasSubstr("devices is 3")));
  Write("model.pt", "text");
  EXPECT_THAT(Check(), Contains(HasSubstr("not an archive")));
  Write("report.html", "<svg><a href='x'>");
  EXPECT_THAT(Check(), Contains(HasSubstr("not self-contained")));
  Write("rounds.jsonl", "");
  EXPECT_THAT(Check(), Contains(HasSubstr("has 0 committed rounds")));
  Write("model.safetensors", "other");
  EXPECT_THAT(Check(), Contains(HasSubstr("model_digest")));
  Write("summary.json", "{}");
  EXPECT_THAT(Check(), Contains(HasSubstr("summary.json:")));
  std::filesystem::remove(directory_ / "model.pt");
  EXPECT_THAT(Check(), Contains(HasSubstr("model.pt:")));
}

TEST_F(CheckTest, CheckArtefacts_NoGain_IsADefect) {
  Findings findings = Example();
  for (DeviceScore& score : findings.fleet) score.personal = score.global;
  Write("summary.json", SummaryJson(findings));
  EXPECT_THAT(Check(), Contains(HasSubstr("no better than global")));
}

}  // namespace
}  // namespace selvage::quickstart
