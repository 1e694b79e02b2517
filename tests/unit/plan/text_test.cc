#include "plan/internal/text.h"

#include <gtest/gtest.h>

namespace selvage::plan::internal {
namespace {

TEST(Text, IsValidUtf8_WellFormed_Accepted) {
  for (const char* text :
       {"", "plain", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
        "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
  }
}

TEST(Text, IsValidUtf8_Malformed_Refused) {
  for (const char* text :
       {"\x80", "\xc3", "a\xc3(", "\xc0\xaf", "\xe0\x80\xaf",
        "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff",
        "\xe2\x82", "\xf8\x88\x80\x80\x80"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << text;
  }
}

TEST(Text, Quoted_HostileText_IsBoundedAndPrintable) {
  EXPECT_EQ(Quoted("a"), "'a'");
  EXPECT_EQ(Quoted("a\n\x1b[31m"), "'a??[31m'");
  EXPECT_EQ(Quoted(std::string(1000, 'x')),
            "'" + std::string(80, 'x') + "...'");
}

TEST(Text, DurationText_LargestExactUnit) {
  using namespace std::chrono;
  EXPECT_EQ(DurationText(Duration{}), "0s");
  EXPECT_EQ(DurationText(microseconds(7)), "7us");
  EXPECT_EQ(DurationText(milliseconds(250)), "250ms");
  EXPECT_EQ(DurationText(seconds(90)), "90s");
  EXPECT_EQ(DurationText(minutes(5)), "5m");
  EXPECT_EQ(DurationText(hours(2)), "2h");
  EXPECT_EQ(DurationText(hours(48)), "2d");
}

TEST(Text, Nearest_TypingMistakes_Found) {
  const std::vector<std::string_view> keys = {"num_rounds", "cohort", "lr",
                                              "min_updates"};
  EXPECT_EQ(Nearest("num_round", keys), "num_rounds");
  EXPECT_EQ(Nearest("chort", keys), "cohort");
  EXPECT_EQ(Nearest("min", keys), "min_updates");
  EXPECT_EQ(Nearest("cohort_size", keys), "cohort");
  EXPECT_EQ(Nearest("lrr", keys), "lr");
  EXPECT_EQ(Nearest("xy", keys), "");
  EXPECT_EQ(Nearest("learning_rate", keys), "");
  EXPECT_EQ(Nearest("", keys), "");
  EXPECT_EQ(Nearest(std::string(100'000, 'c'), keys), "");
}

}  // namespace
}  // namespace selvage::plan::internal
