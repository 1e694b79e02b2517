#include "plan/tensor_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/plan/test_programs.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TensorTable& Table() {
  static const TensorTable kTable = *TensorTable::Create(test::EveryRole());
  return kTable;
}

TEST(MatchTensors, NoPatterns_EveryTrainableTensor) {
  EXPECT_THAT(*MatchTensors(Table(), {}), ElementsAre(0, 3, 5));
}

TEST(MatchTensors, Patterns_TheirUnionInTableOrder) {
  EXPECT_THAT(*MatchTensors(Table(), {"^head\\."}), ElementsAre(3, 5));
  EXPECT_THAT(*MatchTensors(Table(), {"bias$", "^body", "weight$"}),
              ElementsAre(0, 3, 4, 5));
  EXPECT_THAT(*MatchTensors(Table(), {"^(?!head\\.)"}),
              ElementsAre(0, 1, 2, 4, 6));
}

TEST(MatchTensors, PatternWithoutMatch_IsNamed) {
  EXPECT_THAT(MatchTensors(Table(), {"^head\\.", "^tail\\."}),
              StatusIs(StatusCode::kInvalidArgument,
                       "the pattern '^tail\\.' matches no tensor"));
}

TEST(MatchTensors, TooManyPatterns_Refused) {
  EXPECT_THAT(
      MatchTensors(Table(), std::vector<std::string>(65, "w")),
      StatusIs(StatusCode::kInvalidArgument, "65 patterns; at most 64"));
}

TEST(CheckPattern, EscapedBackslashBeforeADigit_IsNoBackReference) {
  EXPECT_THAT(CheckPattern("a\\\\1"), IsOk());
  EXPECT_THAT(CheckPattern("layer12345678901234567890"), IsOk());
}

TEST(CheckPattern, UnsafeOrMalformed_SaysWhatItMustBe) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "1..256 printable characters"},
      {std::string(257, 'a'), "1..256 printable characters"},
      {"caf\xc3\xa9", "1..256 printable characters"},
      {"a\n", "1..256 printable characters"},
      {"[0-9]{2}", "counted repetition"},
      {"((a{99}){99}){99}", "counted repetition"},
      {"(a)\\1", "back-references"},
      {"\\11111111111111111111", "back-references"},
      {"[\\12]", "back-references"},
      {"a(?=b)", "look-ahead but at the start"},
      {"^(?!a)(?!b)", "look-ahead but at the start"},
      {"(unbalanced", "ECMAScript"},
      {"[z-a]", "ECMAScript"},
      {"*", "ECMAScript"},
      {"a\\", "ECMAScript"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(CheckPattern(c.first),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(c.second)))
        << c.first;
  }
  EXPECT_THAT(CheckPattern(std::string(256, 'a')), IsOk());
}

// Exponential for a backtracking matcher: it would not come back.
TEST(MatchNames, CatastrophicPattern_IsPolynomial) {
  const std::vector<std::string> names = {std::string(256, 'a')};
  std::string nested(60, '(');
  nested += "a";
  for (int i = 0; i < 60; ++i) nested += ")*";
  const std::string patterns[] = {"^(a*)*b$", "^(a|a)*(a|a)*(a|a)*b$",
                                  nested + "b$"};
  for (const std::string& pattern : patterns) {
    EXPECT_THAT(
        MatchNames(names, {pattern}),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr("matches no tensor")));
  }
}

TEST(MatchNames, CostOfPatternsAndNames_IsBounded) {
  const std::vector<std::string> usual(500, std::string(50, 'a'));
  EXPECT_THAT(MatchNames(usual, {"^a", "a$"}), IsOk());
  const std::vector<std::string> long_names(4096, std::string(256, 'a'));
  EXPECT_THAT(MatchNames(long_names, {"a*a*a*a*b"}),
              StatusIs(StatusCode::kInvalidArgument,
                       "the patterns, 9 characters in all, are too long for "
                       "4096 tensors with such names"));
  EXPECT_THAT(MatchNames(long_names, {}), IsOk());
}

// The scanner of libstdc++ 12 looks past the end of this one.
TEST(CheckPattern, OpenGroupAtTheEnd_Refused) {
  const char open[] = {'('};
  EXPECT_THAT(CheckPattern(std::string_view(open, 1)),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::plan
