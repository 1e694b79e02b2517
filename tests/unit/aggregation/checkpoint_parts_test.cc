#include "aggregation/codec/checkpoint_parts.h"

#include <rapidcheck.h>

#include <numeric>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/codec/checkpoint_codec.h"
#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using plan::Role;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

plan::TensorTable TableOf(std::vector<plan::TensorSpec> specs) {
  Result<plan::TensorTable> table = plan::TensorTable::Create(std::move(specs));
  EXPECT_THAT(table, IsOk());
  return *std::move(table);
}

// 80 KB of backbone around a little that is trained.
plan::TensorTable Backbone() {
  return TableOf({{.name = "a.w", .shape = {100, 100}, .role = Role::kFrozen},
                  {.name = "a.lora", .shape = {3}},
                  {.name = "a.seen",
                   .shape = {2},
                   .dtype = plan::DType::kInt64,
                   .role = Role::kBufferInt},
                  {.name = "b.w", .shape = {100, 100}, .role = Role::kFrozen},
                  {.name = "b.lora", .shape = {2}},
                  {.name = "head", .shape = {4}, .role = Role::kPersonal}});
}

TEST(LayOutParts, NothingConstant_IsOnePart) {
  const auto parts = LayOutParts(CodecName::kFloat32,
                                 TableOf({{.name = "w", .shape = {5000000}}}));

  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].size, 20000000u);
  EXPECT_FALSE(parts[0].constant);
}

TEST(LayOutParts, LittleThatIsConstant_TravelsWithTheRest) {
  const plan::TensorTable table =
      TableOf({{.name = "w", .shape = {7}},
               {.name = "frozen", .shape = {16383}, .role = Role::kFrozen}});

  EXPECT_EQ(LayOutParts(CodecName::kFloat32, table).size(), 1u);
  const plan::TensorTable more =
      TableOf({{.name = "w", .shape = {7}},
               {.name = "frozen", .shape = {16384}, .role = Role::kFrozen}});
  EXPECT_EQ(LayOutParts(CodecName::kFloat32, more).size(), 2u);
  // Half the bytes.
  EXPECT_EQ(LayOutParts(CodecName::kFloat16, more).size(), 1u);
}

TEST(LayOutParts, Backbone_IsAPartOfItsOwn) {
  const auto parts = LayOutParts(CodecName::kFloat32, Backbone());

  ASSERT_EQ(parts.size(), 2u);
  EXPECT_THAT(parts[0].entries, ElementsAre(0, 3));
  EXPECT_TRUE(parts[0].constant);
  EXPECT_EQ(parts[0].size, 80000u);
  EXPECT_THAT(parts[1].entries, ElementsAre(1, 2, 4, 5));
  EXPECT_FALSE(parts[1].constant);
  EXPECT_EQ(parts[1].size, 9u * 4 + 2 * 8);
}

TEST(LayOutParts, LargePersonalTensors_AreAPartOfTheirOwn) {
  const auto parts = LayOutParts(
      CodecName::kFloat32,
      TableOf({{.name = "head", .shape = {20000}, .role = Role::kPersonal},
               {.name = "w", .shape = {7}},
               {.name = "stem", .shape = {30000}, .role = Role::kFrozen}}));

  ASSERT_EQ(parts.size(), 3u);
  EXPECT_THAT(parts[0].entries, ElementsAre(2));
  EXPECT_THAT(parts[1].entries, ElementsAre(0));
  EXPECT_TRUE(parts[1].constant);
  EXPECT_THAT(parts[2].entries, ElementsAre(1));
}

TEST(LayOutParts, LargeBackbone_IsGroupedAndCounted) {
  std::vector<plan::TensorSpec> specs = {{.name = "w", .shape = {7}}};
  for (int i = 0; i < 40; ++i) {  // 4 MB each
    specs.push_back({.name = "f" + std::to_string(i),
                     .shape = {1000000},
                     .role = Role::kFrozen});
  }
  const auto parts = LayOutParts(CodecName::kFloat32, TableOf(specs));

  ASSERT_EQ(parts.size(), 21u);  // two and two, and the rest
  EXPECT_EQ(parts[0].size, 8000000u);
}

TEST(LayOutParts, AnyTable_HasBoundedPartsWithEveryTensorOnce) {
  const bool ok = rc::check([](uint64_t seed) {
    SeededRandom random(seed);
    const auto below = [&random](uint64_t bound) {
      return static_cast<int64_t>(UniformBelow(random, bound));
    };
    std::vector<plan::TensorSpec> specs;
    const auto count = static_cast<size_t>(1 + below(300));
    for (size_t i = 0; i < count; ++i) {
      const Role role = std::vector{
          Role::kShared, Role::kBufferFloat, Role::kPersonal, Role::kFrozen,
          Role::kFrozen}[static_cast<size_t>(below(5))];
      specs.push_back({.name = "t" + std::to_string(i),
                       .shape = {1 + below(uint64_t{1} << (1 + below(22)))},
                       .role = role});
    }
    const plan::TensorTable table = *plan::TensorTable::Create(specs);
    for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
      const auto parts = LayOutParts(codec, table);
      RC_ASSERT(parts.size() >= 1 && parts.size() <= kPartCountMax);
      std::vector<int> seen(count);
      uint64_t size = 0;
      for (const PartLayout& part : parts) {
        RC_ASSERT(!part.entries.empty());
        for (const size_t entry : part.entries) ++seen.at(entry);
        size += part.size;
      }
      RC_ASSERT(std::count(seen.begin(), seen.end(), 1) ==
                static_cast<std::ptrdiff_t>(count));
      RC_ASSERT(size == EncodedCheckpointSize(codec, table));
      // What the bytes behind a digest are shows in their size.
      if (parts.size() > 1) RC_ASSERT(size > kPartListSizeMax);
    }
  });
  EXPECT_TRUE(ok);
}

TEST(EncodePart, AllParts_RoundTripThroughEachCodec) {
  const plan::TensorTable table = Backbone();
  plan::Checkpoint values = plan::InitializeCheckpoint(table, 3);
  for (size_t i = 0; i < values.floats.size(); ++i) {
    values.floats[i] = static_cast<float>(i % 1000) / 8;
  }
  values.ints = {-5, 7};
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    plan::Checkpoint decoded;
    decoded.floats.resize(table.float_count());
    decoded.ints.resize(table.int_count());
    for (const PartLayout& part : LayOutParts(codec, table)) {
      const Result<Bytes> bytes = EncodePart(codec, table, part, values);
      ASSERT_THAT(bytes, IsOk());
      EXPECT_EQ(bytes->size(), part.size);
      ASSERT_THAT(DecodePart(codec, table, part, *bytes, decoded), IsOk());
    }
    EXPECT_EQ(decoded, values);
    // In parts or whole: one and the same model.
    EXPECT_EQ(decoded,
              *DecodeCheckpoint(codec, table,
                                *EncodeCheckpoint(codec, table, values)));
  }
}

TEST(EncodePart, OnePart_IsTheWholeCheckpoint) {
  const plan::TensorTable table = TableOf({{.name = "w", .shape = {3}},
                                           {.name = "n",
                                            .shape = {},
                                            .dtype = plan::DType::kInt64,
                                            .role = Role::kBufferInt},
                                           {.name = "v", .shape = {2}}});
  const plan::Checkpoint values = {.floats = {1, 2, 3, 4, 5}, .ints = {9}};
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    const auto parts = LayOutParts(codec, table);
    ASSERT_EQ(parts.size(), 1u);
    EXPECT_EQ(*EncodePart(codec, table, parts[0], values),
              *EncodeCheckpoint(codec, table, values));
  }
}

TEST(DecodePart, WrongSizeOrEncoding_ChangesNothing) {
  const plan::TensorTable table = Backbone();
  const auto parts = LayOutParts(CodecName::kFloat16, table);
  const PartLayout& rest = parts.back();
  plan::Checkpoint values = plan::InitializeCheckpoint(table, 3);
  const plan::Checkpoint before = values;
  Bytes bytes = *EncodePart(CodecName::kFloat16, table, rest, values);
  bytes.push_back(0);
  EXPECT_THAT(DecodePart(CodecName::kFloat16, table, rest, bytes, values),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("part has")));
  bytes.pop_back();
  bytes[0] = 0x7f;  // an exponent nobody chooses
  EXPECT_THAT(DecodePart(CodecName::kFloat16, table, rest, bytes, values),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(values, before);
}

class PartListTest : public ::testing::Test {
 protected:
  const std::vector<PartLayout> layout_ =
      LayOutParts(CodecName::kFloat32, Backbone());
  const std::vector<PartName> names_ = {
      {crypto::Sha256(AsBytes("a")), layout_[0].size},
      {crypto::Sha256(AsBytes("b")), layout_[1].size}};
};

TEST_F(PartListTest, RoundTrips) {
  const Bytes bytes = SerializePartList(names_);
  EXPECT_LE(bytes.size(), kPartListSizeMax);
  const auto parsed = ParsePartList(layout_, bytes);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(*parsed, names_);
}

TEST_F(PartListTest, EveryTruncation_IsRefused) {
  Bytes bytes = SerializePartList(names_);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(ParsePartList(layout_, ByteSpan(bytes).first(size)),
                StatusIs(StatusCode::kInvalidArgument));
  }
  bytes.push_back(0);
  EXPECT_THAT(ParsePartList(layout_, bytes),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(PartListTest, OtherCountSizeOrBeginning_IsRefused) {
  std::vector<PartName> names = names_;
  names[0].size += 1;
  EXPECT_THAT(ParsePartList(layout_, SerializePartList(names)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("80001 bytes")));
  names = names_;
  names.push_back(names_[0]);
  EXPECT_THAT(ParsePartList(layout_, SerializePartList(names)),
              StatusIs(StatusCode::kInvalidArgument));
  Bytes bytes = SerializePartList(names_);
  bytes[0] ^= 1;
  EXPECT_THAT(ParsePartList(layout_, bytes),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("begin")));
  bytes = SerializePartList(names_);
  bytes[28] = 1;  // the count
  EXPECT_THAT(ParsePartList(layout_, bytes),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("names 1")));
}

}  // namespace
}  // namespace selvage::aggregation
