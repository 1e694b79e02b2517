#include "examples/quickstart/partition.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"

namespace selvage::quickstart {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<uint8_t> Labels(size_t per_class) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i < 10 * per_class; ++i) {
    out.push_back(static_cast<uint8_t>(i % 10));
  }
  return out;
}

TEST(DirichletTest, SampleDirichlet_ManyDraws_HasItsMeanAndVariance) {
  SeededRandom random(1);
  constexpr int kDraws = 20'000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const std::vector<double> p = SampleDirichlet(0.5, 10, random);
    EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 1e-12);
    sum += p[3];
    squares += p[3] * p[3];
  }
  const double mean = sum / kDraws;
  // Beta(0.5, 4.5): mean 0.1, variance 0.1 * 0.9 / 6 = 0.015. Bounds are five
  // standard errors.
  EXPECT_NEAR(mean, 0.1, 0.0044);
  EXPECT_NEAR(squares / kDraws - mean * mean, 0.015, 0.0012);
}

TEST(PartitionTest, Partition_EnoughImages_GivesNoneTwice) {
  const auto shares = Partition(Labels(6000), Labels(1000), {});
  ASSERT_EQ(shares.size(), 35u);
  std::set<size_t> train;
  std::set<size_t> test;
  for (const DeviceShare& share : shares) {
    EXPECT_EQ(share.train.size(), 60u);
    EXPECT_EQ(share.test.size(), 100u);
    train.insert(share.train.begin(), share.train.end());
    test.insert(share.test.begin(), share.test.end());
  }
  EXPECT_EQ(train.size(), 35u * 60);
  EXPECT_EQ(test.size(), 35u * 100);
  EXPECT_EQ(shares[29].name, "device-029");
  EXPECT_EQ(shares[30].name, "newcomer-000");
}

TEST(PartitionTest, Partition_TrainAndTest_HaveTheSameMix) {
  const auto train_labels = Labels(6000);
  const auto test_labels = Labels(1000);
  for (const DeviceShare& share : Partition(train_labels, test_labels, {})) {
    std::vector<double> difference(10, 0);
    for (const size_t i : share.train) difference[train_labels[i]] += 1.0 / 60;
    for (const size_t i : share.test) difference[test_labels[i]] -= 1.0 / 100;
    for (const double d : difference) EXPECT_LT(std::abs(d), 0.35);
  }
}

TEST(PartitionTest, Partition_SameSeed_SameShares) {
  const auto a = Partition(Labels(600), Labels(600), {.seed = 7});
  const auto b = Partition(Labels(600), Labels(600), {.seed = 7});
  const auto c = Partition(Labels(600), Labels(600), {.seed = 8});
  EXPECT_EQ(a[3].train, b[3].train);
  EXPECT_EQ(a[3].test, b[3].test);
  EXPECT_NE(a[3].train, c[3].train);
}

TEST(PartitionTest, Partition_TooFewImages_StartsAgain) {
  const auto shares =
      Partition(Labels(3), Labels(3), {.devices = 4, .newcomers = 0});
  ASSERT_EQ(shares.size(), 4u);
  for (const DeviceShare& share : shares) EXPECT_EQ(share.train.size(), 60u);
}

class FilesTest : public ::testing::Test {
 protected:
  FilesTest()
      : directory_(Path(::testing::TempDir()) /
                   ("selvage-quickstart-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~FilesTest() override { std::filesystem::remove_all(directory_); }

  Path Write(const std::string& name, const Bytes& bytes) {
    const Path path = directory_ / name;
    EXPECT_THAT(WriteFileDurably(files_, path, bytes), IsOk());
    return path;
  }

  Path directory_;
  PosixFileSystem files_;
};

TEST_F(FilesTest, WriteShare_ThenRead_GivesTheImagesBack) {
  LabelledImages all;
  all.rows = 1;
  all.columns = 2;
  all.pixels = {1, 2, 3, 4, 5, 6};
  all.labels = {7, 8, 9};
  ASSERT_THAT(WriteShare(files_, directory_, {"d", {2, 0}, {1}}, all, all),
              IsOk());
  const auto train =
      ReadLabelledImages(files_, directory_ / "d" / "train-x.idx",
                         directory_ / "d" / "train-y.idx");
  ASSERT_THAT(train, IsOk());
  EXPECT_THAT(train->pixels, ElementsAre(5, 6, 1, 2));
  EXPECT_THAT(train->labels, ElementsAre(9, 7));
  EXPECT_EQ(train->columns, 2u);
}

TEST_F(FilesTest, ReadLabelledImages_Nonsense_IsRefused) {
  const Path good_y = Write("y", {0, 0, 8, 1, 0, 0, 0, 1, 5});
  const Path good_x =
      Write("x", {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9});
  EXPECT_THAT(ReadLabelledImages(files_, good_x, good_y), IsOk());
  EXPECT_THAT(ReadLabelledImages(files_, good_y, good_y),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("not an IDX file of rank 3")));
  const Path short_y = Write("short", {0, 0, 8, 1, 0, 0, 0, 2, 5});
  EXPECT_THAT(
      ReadLabelledImages(files_, good_x, short_y),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("its header says 2")));
  const Path two_y = Write("two", {0, 0, 8, 1, 0, 0, 0, 2, 5, 5});
  EXPECT_THAT(ReadLabelledImages(files_, good_x, two_y),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 images")));
  EXPECT_THAT(ReadLabelledImages(files_, directory_ / "none", good_y),
              StatusIs(StatusCode::kNotFound));
}

}  // namespace
}  // namespace selvage::quickstart
