#include "cli/text.h"

#include <cmath>
#include <vector>

#include <gmock/gmock.h>

#include "cli/exit_code.h"
#include "tests/testing/status_matchers.h"

namespace selvage::cli {
namespace {

using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

TEST(TableTest, ToString_MixedColumns_AlignsNumbersRight) {
  Table table({"NAME", "COUNT"});
  table.Add({"a", "5"});
  table.Add({"long-name", "1234"});
  EXPECT_EQ(table.ToString(),
            "NAME       COUNT\n"
            "a              5\n"
            "long-name   1234\n");
}

TEST(TableTest, ToString_NoRows_IsTheHeader) {
  EXPECT_EQ(Table({"A", "B"}).ToString(), "A  B\n");
}

TEST(TableTest, Add_ControlCharacters_AreReplaced) {
  Table table({"NAME"});
  table.Add({"\x1b[2Jevil\n"});
  EXPECT_EQ(table.ToString(), "NAME\n?[2Jevil?\n");
}

TEST(TableTest, ToString_Utf8_CountsCodePoints) {
  Table table({"NAME", "X"});
  table.Add({"größe", "y"});
  table.Add({"12345", "z"});
  EXPECT_THAT(table.ToString(), HasSubstr("größe  y\n12345  z\n"));
}

TEST(SparklineTest, Sparkline_RisingValues_ClimbsAllHeights) {
  const std::vector<double> values = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(Sparkline(values, 8, true), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(Sparkline(values, 8, false), "_.,-=+*#");
}

TEST(SparklineTest, Sparkline_FlatLine_IsHalfHigh) {
  const std::vector<double> values = {3, 3, 3};
  EXPECT_EQ(Sparkline(values, 10, false), "===");
}

TEST(SparklineTest, Sparkline_MoreValuesThanWidth_AveragesGroups) {
  const std::vector<double> values = {0, 0, 10, 10};
  EXPECT_EQ(Sparkline(values, 2, false), "_#");
}

TEST(SparklineTest, Sparkline_NaN_IsAGap) {
  const std::vector<double> values = {0, NAN, 1};
  EXPECT_EQ(Sparkline(values, 3, false), "_ #");
}

TEST(SparklineTest, Sparkline_NothingToDraw_IsEmpty) {
  EXPECT_EQ(Sparkline({}, 3, true), "");
  const std::vector<double> values = {1};
  EXPECT_EQ(Sparkline(values, 0, true), "");
}

TEST(ProgressBarTest, ProgressBar_Shares_Fill) {
  EXPECT_EQ(ProgressBar(0, 10, 4, false), "....");
  EXPECT_EQ(ProgressBar(5, 10, 4, false), "##..");
  EXPECT_EQ(ProgressBar(20, 10, 4, false), "####");
  EXPECT_EQ(ProgressBar(1, 0, 4, false), "....");
}

TEST(FormatTest, FormatBytes_Units) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 30), "3.0 GiB");
}

TEST(FormatTest, FormatDuration_Units) {
  EXPECT_EQ(FormatDuration(std::chrono::milliseconds(3210)), "3.2s");
  EXPECT_EQ(FormatDuration(std::chrono::seconds(125)), "2m05s");
  EXPECT_EQ(FormatDuration(std::chrono::minutes(62)), "1h02m");
  EXPECT_EQ(FormatDuration(std::chrono::seconds(-5)), "0.0s");
}

TEST(FormatTest, FormatMicros_ZeroIsNever) {
  EXPECT_EQ(FormatMicros(0), "-");
  EXPECT_EQ(FormatMicros(1'000'000), "1970-01-01 00:00:01Z");
}

TEST(ParseDurationTest, ParseDuration_Units_Accepted) {
  EXPECT_EQ(*ParseDuration("250ms"), std::chrono::milliseconds(250));
  EXPECT_EQ(*ParseDuration("90s"), std::chrono::seconds(90));
  EXPECT_EQ(*ParseDuration("5m"), std::chrono::minutes(5));
  EXPECT_EQ(*ParseDuration("2h"), std::chrono::hours(2));
  EXPECT_EQ(*ParseDuration("1d"), std::chrono::hours(24));
}

TEST(ParseDurationTest, ParseDuration_Anything_ElseIsRefused) {
  for (const char* text :
       {"", "5", "m", "-5m", "5 m", "5w", "1.5h", "99999999999999999999s",
        "1000000001s", "1000001d"}) {
    EXPECT_THAT(ParseDuration(text), StatusIs(StatusCode::kInvalidArgument,
                                              HasSubstr("is not a duration")))
        << text;
  }
}

TEST(NearestTest, Nearest_Typo_FindsTheWord) {
  const std::vector<std::string> words = {"run", "list", "show", "watch"};
  EXPECT_EQ(Nearest("lst", words), "list");
  EXPECT_EQ(Nearest("wacth", words), "watch");
  EXPECT_EQ(Nearest("lsit", words), "list");
  EXPECT_EQ(Nearest("tsil", words), "");
  EXPECT_EQ(Nearest("wtch", words), "watch");
  EXPECT_EQ(Nearest("frobnicate", words), "");
}

TEST(ExitCodeTest, ExitCodeOf_EveryCode_HasItsNumber) {
  const std::pair<StatusCode, int> expected[] = {
      {StatusCode::kOk, 0},
      {StatusCode::kCancelled, 130},
      {StatusCode::kUnknown, 1},
      {StatusCode::kInvalidArgument, 2},
      {StatusCode::kDeadlineExceeded, 7},
      {StatusCode::kNotFound, 4},
      {StatusCode::kAlreadyExists, 5},
      {StatusCode::kPermissionDenied, 3},
      {StatusCode::kResourceExhausted, 8},
      {StatusCode::kFailedPrecondition, 6},
      {StatusCode::kAborted, 5},
      {StatusCode::kOutOfRange, 2},
      {StatusCode::kUnimplemented, 1},
      {StatusCode::kInternal, 1},
      {StatusCode::kUnavailable, 8},
      {StatusCode::kDataLoss, 1},
      {StatusCode::kUnauthenticated, 3}};
  for (const auto& [code, number] : expected) {
    EXPECT_EQ(static_cast<int>(ExitCodeOf(code)), number)
        << StatusCodeName(code);
  }
}

}  // namespace
}  // namespace selvage::cli
