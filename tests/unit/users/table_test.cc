#include "examples/users/table.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"

namespace selvage::users {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<Run> TwoRuns() {
  return {{.fleet = {{"a", 50, 80, 90}, {"b", 70, 90, 92}},
           .newcomers = {{"n", 60, 81, 91}}},
          {.fleet = {{"a", 60, 92, 91.5}, {"b", 64, 90, 90}},
           .newcomers = {{"n", 60, 85, 95}}}};
}

TEST(TableTest, Summarise_TwoRuns_MeansButTheWorstOfAll) {
  const Summary summary = Summarise(TwoRuns());
  EXPECT_EQ(summary.runs, 2u);
  EXPECT_DOUBLE_EQ(summary.alone.mean, 61);
  EXPECT_DOUBLE_EQ(summary.alone.p10, (52 + 60.4) / 2);
  EXPECT_DOUBLE_EQ(summary.alone.worst, 50);
  EXPECT_DOUBLE_EQ(summary.global.mean, 88);
  EXPECT_DOUBLE_EQ(summary.personal.worst, 90);
  EXPECT_DOUBLE_EQ(summary.newcomers_before.mean, 83);
  EXPECT_DOUBLE_EQ(summary.newcomers_after.mean, 93);
  EXPECT_DOUBLE_EQ(summary.least_gain, -0.25);
}

TEST(TableTest, Table_Targets_AreMetOrMissed) {
  const Summary summary = Summarise(TwoRuns());
  const auto targets = TargetsOf("har");
  ASSERT_THAT(targets, IsOk());
  const std::string table = Table("har", summary, *targets);
  EXPECT_THAT(table, HasSubstr("har: accuracy"));
  EXPECT_THAT(table, HasSubstr("(2 seeds)"));
  EXPECT_THAT(table, HasSubstr("88.0  (target 87.0: met)"));
  EXPECT_THAT(table, HasSubstr("90.9  (target 94.0: MISSED)"));
  EXPECT_FALSE(AllMet(summary, *targets));
  EXPECT_TRUE(AllMet(summary, targets->first(1)));
}

TEST(TableTest, TargetsOf_Unknown_NamesWhatThereIs) {
  EXPECT_THAT(TargetsOf("iris"),
              StatusIs(StatusCode::kNotFound, HasSubstr("fashion, har, ")));
}

class FilesTest : public ::testing::Test {
 protected:
  FilesTest()
      : directory_(Path(::testing::TempDir()) /
                   ("selvage-table-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~FilesTest() override { std::filesystem::remove_all(directory_); }

  const Path directory_;
  PosixFileSystem files_;
};

TEST_F(FilesTest, AppendRows_Again_ReplacesItsOwnOnly) {
  const Path path = directory_ / "results.json";
  const std::string other =
      R"([{"id":"B1","case":"har: personal, mean"},)"
      R"({"id":"accuracy","case":"har-accelerometer: global, mean"}])";
  ASSERT_THAT(WriteFileDurably(files_, path, AsBytes(other)), IsOk());
  const Summary summary = Summarise(TwoRuns());
  const auto targets = TargetsOf("har");
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(AppendRows(files_, path, "har", summary, *targets), IsOk());
    const auto list = nlohmann::json::parse(
        ToString(*ReadFile(files_, path, uint64_t{1} << 20)));
    EXPECT_EQ(list.size(), 2u + 10 + 3);
    const auto& row = list.back();
    EXPECT_EQ(row.at("case"), "har: newcomers' gain");
    EXPECT_EQ(row.at("reference"), "target");
    EXPECT_EQ(row.at("value"), 10.0);
    EXPECT_EQ(row.at("reference_value"), 7.0);
    EXPECT_EQ(row.at("unit"), "%");
  }
}

TEST_F(FilesTest, AppendRows_NotAList_IsLeftAlone) {
  const Path path = directory_ / "results.json";
  ASSERT_THAT(WriteFileDurably(files_, path, AsBytes("{}")), IsOk());
  EXPECT_THAT(AppendRows(files_, path, "har", Summarise(TwoRuns()), {}),
              StatusIs(StatusCode::kDataLoss));
}

TEST_F(FilesTest, ReadRun_NoScores_IsNotFound) {
  std::filesystem::create_directories(directory_ / "devices");
  EXPECT_THAT(ReadRun(files_, directory_), Not(IsOk()));
}

}  // namespace
}  // namespace selvage::users
