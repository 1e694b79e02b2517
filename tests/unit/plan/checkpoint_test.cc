#include "plan/checkpoint.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/plan/test_programs.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;

TensorTable Single(std::vector<int64_t> shape, Init init,
                   std::string name = "w") {
  TensorSpec spec;
  spec.name = std::move(name);
  spec.shape = std::move(shape);
  spec.init = init;
  return *TensorTable::Create({spec});
}

struct Moments {
  double mean = 0;
  double variance = 0;
  double max_abs = 0;
};

Moments MomentsOf(const std::vector<float>& values) {
  Moments m;
  for (const float v : values) m.mean += v;
  m.mean /= static_cast<double>(values.size());
  for (const float v : values) {
    m.variance += (v - m.mean) * (v - m.mean);
    m.max_abs = std::max(m.max_abs, std::abs(static_cast<double>(v)));
  }
  m.variance /= static_cast<double>(values.size());
  return m;
}

TEST(InitializeCheckpoint, EveryRole_IsValidAndDependsOnSeedAlone) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  const Checkpoint a = InitializeCheckpoint(table, 1);
  EXPECT_THAT(ValidateCheckpoint(table, a), IsOk());
  EXPECT_EQ(a, InitializeCheckpoint(table, 1));
  EXPECT_NE(a, InitializeCheckpoint(table, 2));
  EXPECT_THAT(a.ints, ::testing::Each(0));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(a.floats[24 + i], 0);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(a.floats[94 + i], 1);
}

TEST(InitializeCheckpoint, TensorElsewhereInTable_KeepsItsValues) {
  std::vector<TensorSpec> specs = test::EveryRole();
  const TensorTable table = *TensorTable::Create(specs);
  std::reverse(specs.begin(), specs.end());
  const TensorTable reversed = *TensorTable::Create(specs);
  const Checkpoint a = InitializeCheckpoint(table, 7);
  const Checkpoint b = InitializeCheckpoint(reversed, 7);
  for (const TensorTable::Entry& entry : table.entries()) {
    if (entry.spec.dtype != DType::kFloat32) continue;
    const size_t other = reversed.Find(entry.spec.name)->offset;
    for (size_t i = 0; i < entry.count; ++i) {
      EXPECT_EQ(a.floats[entry.offset + i], b.floats[other + i]);
    }
  }
}

// The first values, to the bit: a change here breaks every recorded run.
TEST(InitializeCheckpoint, Seed42_GoldenValues) {
  const auto first = [](Init init) {
    const Bytes bytes =
        SerializeMaster(InitializeCheckpoint(Single({8, 4}, init), 42));
    return ToHex(ByteSpan(bytes).first(16));
  };
  EXPECT_EQ(first(Init::kKaimingUniform), "67d1c5bdc38da03e110075be6768a73e");
  EXPECT_EQ(first(Init::kXavierUniform), "e1e00bbeab0ee33ec93dadbe1bc0ec3e");
  EXPECT_EQ(first(Init::kNormal), "e1bc933cd9a1783c99df3a3d934c7b3b");
}

TEST(InitializeCheckpoint, KaimingUniform_BoundIsInverseRootOfFanIn) {
  const struct {
    std::vector<int64_t> shape;
    double fan_in;
  } cases[] = {{{1000, 25}, 25}, {{200, 4, 5, 5}, 100}, {{400}, 400}};
  for (const auto& c : cases) {
    const double bound = 1 / std::sqrt(c.fan_in);
    const Moments m = MomentsOf(
        InitializeCheckpoint(Single(c.shape, Init::kKaimingUniform), 3).floats);
    EXPECT_LE(m.max_abs, bound * (1 + 1e-6));
    EXPECT_GT(m.max_abs, bound * 0.97);
    EXPECT_NEAR(m.mean, 0, 0.15 * bound);
    EXPECT_NEAR(m.variance / (bound * bound / 3), 1, 0.15);
  }
}

TEST(InitializeCheckpoint, XavierUniform_BoundUsesBothFans) {
  const double bound = std::sqrt(6.0 / ((30 + 200) * 9));
  const Moments m = MomentsOf(
      InitializeCheckpoint(Single({200, 30, 3, 3}, Init::kXavierUniform), 3)
          .floats);
  EXPECT_LE(m.max_abs, bound * (1 + 1e-6));
  EXPECT_GT(m.max_abs, bound * 0.99);
  EXPECT_NEAR(m.variance / (bound * bound / 3), 1, 0.03);
}

TEST(InitializeCheckpoint, Normal_HasItsMomentsAndTails) {
  const std::vector<float> values =
      InitializeCheckpoint(Single({500, 400}, Init::kNormal), 3).floats;
  const Moments m = MomentsOf(values);
  // 200,000 values: five standard errors.
  EXPECT_NEAR(m.mean, 0, 5 * 0.02 / std::sqrt(200'000.0));
  EXPECT_NEAR(m.variance / (0.02 * 0.02), 1, 5 * std::sqrt(2 / 200'000.0));
  double beyond_two_sigma = 0;
  for (const float v : values) beyond_two_sigma += std::abs(v) > 0.04F ? 1 : 0;
  EXPECT_NEAR(beyond_two_sigma / 200'000, 0.0455, 0.0025);
}

TEST(InitializeCheckpoint, Scalar_HasFanOfOne) {
  for (const Init init : {Init::kKaimingUniform, Init::kXavierUniform}) {
    const Checkpoint values = InitializeCheckpoint(Single({}, init), 5);
    ASSERT_EQ(values.floats.size(), 1U);
    EXPECT_LE(std::abs(values.floats[0]), 1.7321F);
  }
}

TEST(ValidateCheckpoint, WrongSizeOrNotFinite_IsNamed) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  Checkpoint values = InitializeCheckpoint(table, 1);
  values.floats.pop_back();
  EXPECT_THAT(ValidateCheckpoint(table, values),
              StatusIs(StatusCode::kInvalidArgument,
                       "floats has 96 values; the table has 97"));
  values = InitializeCheckpoint(table, 1);
  values.ints.push_back(0);
  EXPECT_THAT(ValidateCheckpoint(table, values),
              StatusIs(StatusCode::kInvalidArgument,
                       "ints has 4 values; the table has 3"));
  values = InitializeCheckpoint(table, 1);
  values.floats[30] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(ValidateCheckpoint(table, values),
              StatusIs(StatusCode::kInvalidArgument,
                       "tensor head.weight: element 2 is nan; must be finite"));
  values.floats[30] = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(
      ValidateCheckpoint(table, values),
      StatusIs(StatusCode::kInvalidArgument,
               "tensor head.weight: element 2 is -inf; must be finite"));
}

TEST(Master, SerializeAndParse_RoundTripsToTheBit) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  Checkpoint values = InitializeCheckpoint(table, 1);
  values.ints = {INT64_MIN, -1, INT64_MAX};
  values.floats[0] = std::numeric_limits<float>::denorm_min();
  values.floats[1] = -0.0F;
  const Bytes bytes = SerializeMaster(values);
  EXPECT_EQ(bytes.size(), 97U * 4 + 3 * 8);
  const auto parsed = ParseMaster(table, bytes);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(SerializeMaster(*parsed), bytes);
  EXPECT_EQ(MasterDigest(values), crypto::Sha256(bytes));
}

TEST(Master, Parse_EveryTruncationAndOneByteMore_Refused) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  Bytes bytes = SerializeMaster(InitializeCheckpoint(table, 1));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(ParseMaster(table, ByteSpan(bytes).first(size)),
                StatusIs(StatusCode::kInvalidArgument));
  }
  bytes.push_back(0);
  EXPECT_THAT(ParseMaster(table, bytes),
              StatusIs(StatusCode::kInvalidArgument,
                       "a checkpoint of 413 bytes; the table needs 412"));
}

TEST(Master, Parse_NotFinite_Refused) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  Bytes bytes = SerializeMaster(InitializeCheckpoint(table, 1));
  bytes[2] = 0xC0;
  bytes[3] = 0x7F;  // a quiet NaN
  EXPECT_THAT(ParseMaster(table, bytes),
              StatusIs(StatusCode::kInvalidArgument,
                       ::testing::HasSubstr("body.weight: element 0")));
}

}  // namespace
}  // namespace selvage::plan
