#include "plan/tensor_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/plan/test_programs.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsNull;
using ::testing::NotNull;

TEST(TensorTable, Create_EveryRole_LaysOutFlatArrays) {
  const auto table = TensorTable::Create(test::EveryRole());
  ASSERT_THAT(table, IsOk());
  EXPECT_EQ(table->float_count(), 24U + 4 + 12 + 54 + 3);
  EXPECT_EQ(table->int_count(), 3U);
  EXPECT_EQ(table->Find("bn.mean")->offset, 24U);
  EXPECT_EQ(table->Find("stem.weight")->offset, 40U);
  EXPECT_EQ(table->Find("bn.count")->count, 1U);
  EXPECT_EQ(table->Find("bn.steps")->offset, 1U);
  EXPECT_EQ(table->Find("bn.steps")->count, 2U);
}

TEST(TensorTable, Has_OnlyRolesOfItsTensors) {
  const auto table = TensorTable::Create(
      {{.name = "a", .shape = {2}},
       {.name = "b", .shape = {2}, .role = Role::kPersonal}});
  ASSERT_THAT(table, IsOk());
  EXPECT_TRUE(table->Has(Role::kShared));
  EXPECT_TRUE(table->Has(Role::kPersonal));
  EXPECT_FALSE(table->Has(Role::kFrozen));
  EXPECT_FALSE(TensorTable().Has(Role::kShared));
}

TEST(TensorTable, Create_EveryRole_AggregatesSharedAndFloatBuffersOnly) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  ASSERT_EQ(table.aggregated().size(), 3U);
  EXPECT_EQ(table.update_count(), 24U + 4 + 3);
  const TensorTable::AggregatedSlice& mean = table.aggregated()[1];
  EXPECT_EQ(mean.entry, 2U);
  EXPECT_EQ(mean.float_offset, 24U);
  EXPECT_EQ(mean.update_offset, 24U);
  EXPECT_EQ(mean.role, Role::kBufferFloat);
  const TensorTable::AggregatedSlice& bias = table.aggregated()[2];
  EXPECT_EQ(bias.float_offset, 94U);
  EXPECT_EQ(bias.update_offset, 28U);
  EXPECT_EQ(bias.count, 3U);
}

TEST(TensorTable, Find_UnknownName_IsNull) {
  const TensorTable table = *TensorTable::Create(test::EveryRole());
  EXPECT_THAT(table.Find("body"), IsNull());
  EXPECT_THAT(table.Find(""), IsNull());
  EXPECT_THAT(table.Find("zzz"), IsNull());
  EXPECT_THAT(table.Find("body.weight"), NotNull());
  EXPECT_THAT(TensorTable().Find("body.weight"), IsNull());
}

struct BadTable {
  std::string name;
  std::vector<TensorSpec> specs;
  std::string message;
};

class TensorTableRefusal : public ::testing::TestWithParam<BadTable> {};

TEST_P(TensorTableRefusal, Create_BadSpec_NamesTensorAndRule) {
  EXPECT_THAT(
      TensorTable::Create(GetParam().specs),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr(GetParam().message)));
}

TensorSpec Named(std::string name) {
  TensorSpec spec;
  spec.name = std::move(name);
  spec.shape = {2};
  return spec;
}

TensorSpec Shaped(std::vector<int64_t> shape) {
  TensorSpec spec = Named("w");
  spec.shape = std::move(shape);
  return spec;
}

TensorSpec Typed(DType dtype, Role role, Init init = Init::kZeros) {
  TensorSpec spec = Named("w");
  spec.dtype = dtype;
  spec.role = role;
  spec.init = init;
  return spec;
}

INSTANTIATE_TEST_SUITE_P(
    All, TensorTableRefusal,
    ::testing::Values(
        BadTable{"NoTensors", {}, "0 tensors; a table has 1..4096"},
        BadTable{"TooMany", std::vector<TensorSpec>(4097, Named("w")),
                 "4097 tensors; a table has 1..4096"},
        BadTable{"EmptyName", {Named("")}, "tensor name ''"},
        BadTable{"EmptyPart", {Named("a..b")}, "tensor name 'a..b'"},
        BadTable{"TrailingDot", {Named("a.")}, "tensor name 'a.'"},
        BadTable{"Space", {Named("a b")}, "tensor name 'a b'"},
        BadTable{"Digit", {Named("1a")}, "tensor name '1a'"},
        BadTable{"LeadingZero", {Named("a.01")}, "tensor name 'a.01'"},
        BadTable{"Control", {Named("a\nb")}, "tensor name 'a?b'"},
        BadTable{"LongName",
                 {Named(std::string(257, 'a'))},
                 "is not dotted identifiers of at most 256"},
        BadTable{"Reserved", {Named("__metadata__")}, "reserved"},
        BadTable{"Duplicate",
                 {Named("a"), Named("b"), Named("a")},
                 "tensor a is there twice"},
        BadTable{"Module",
                 {Named("a.b.c"), Named("a.b")},
                 "tensor a.b.c: a.b is a tensor, not a module"},
        BadTable{"ZeroDimension",
                 {Shaped({3, 0})},
                 "tensor w: dimension 0 is not positive"},
        BadTable{"NegativeDimension",
                 {Shaped({-1})},
                 "tensor w: dimension -1 is not positive"},
        BadTable{"Rank",
                 {Shaped({1, 1, 1, 1, 1, 1, 1, 1, 1})},
                 "tensor w: rank 9 exceeds 8"},
        BadTable{"Elements",
                 {Shaped({1 << 16, 1 << 15, 2})},
                 "tensor w: more than 2147483648 elements"},
        BadTable{"ElementsOverflow",
                 {Shaped({INT64_MAX, INT64_MAX})},
                 "tensor w: more than 2147483648 elements"},
        BadTable{"ElementsTogether",
                 {Named("a"), Shaped({1 << 16, 1 << 15})},
                 "tensor w: the table has more than 2147483648 elements"},
        BadTable{"Uint8",
                 {Typed(DType::kUint8, Role::kShared)},
                 "tensor w: u8 is for inputs only"},
        BadTable{"IntShared",
                 {Typed(DType::kInt64, Role::kShared)},
                 "tensor w: role shared needs dtype f32, not i64"},
        BadTable{"FloatBufferInt",
                 {Typed(DType::kFloat32, Role::kBufferInt)},
                 "tensor w: role buffer_int needs dtype i64, not f32"},
        BadTable{"IntOnes",
                 {Typed(DType::kInt64, Role::kBufferInt, Init::kOnes)},
                 "tensor w: an i64 tensor starts as zeros"}),
    [](const auto& bad) { return bad.param.name; });

TEST(TensorTable, Create_AtTheBounds_IsAccepted) {
  EXPECT_THAT(TensorTable::Create({Named(std::string(256, 'a'))}), IsOk());
  EXPECT_THAT(TensorTable::Create({Shaped({1 << 16, 1 << 15})}), IsOk());
  EXPECT_THAT(TensorTable::Create({Shaped({1, 1, 1, 1, 1, 1, 1, 1})}), IsOk());
  EXPECT_THAT(TensorTable::Create({Named("layers.0.weight"), Named("_a.B9")}),
              IsOk());
}

TEST(TensorTable, ParseNames_EveryName_RoundTrips) {
  for (const DType d : {DType::kFloat32, DType::kInt64, DType::kUint8}) {
    EXPECT_EQ(*ParseDType(DTypeName(d)), d);
  }
  for (const Role r : {Role::kShared, Role::kBufferFloat, Role::kBufferInt,
                       Role::kPersonal, Role::kFrozen}) {
    EXPECT_EQ(*ParseRole(RoleName(r)), r);
  }
  for (const Init i : {Init::kZeros, Init::kOnes, Init::kKaimingUniform,
                       Init::kXavierUniform, Init::kNormal}) {
    EXPECT_EQ(*ParseInit(InitName(i)), i);
  }
  EXPECT_THAT(ParseDType("float"),
              StatusIs(StatusCode::kInvalidArgument,
                       "dtype 'float' is none of f32, i64, u8"));
  EXPECT_THAT(ParseRole(""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseInit("Zeros"), StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::plan
