#include "aggregation/codec/checkpoint_codec.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

plan::TensorTable Table() {
  const Result<plan::TensorTable> table = plan::TensorTable::Create(
      {{.name = "body.weight", .shape = {2, 2}},
       {.name = "norm.seen",
        .shape = {},
        .dtype = plan::DType::kInt64,
        .role = plan::Role::kBufferInt},
       {.name = "head.weight", .shape = {3}, .role = plan::Role::kPersonal},
       {.name = "norm.mean", .shape = {2}, .role = plan::Role::kBufferFloat}});
  EXPECT_THAT(table, IsOk());
  return *table;
}

const plan::Checkpoint kValues = {.floats = {1, 2, 3, 4, 5, 6, 7, 8, 9},
                                  .ints = {-12345678901}};

TEST(CheckpointCodec, EachCodec_RoundTrips) {
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    const Result<Bytes> bytes = EncodeCheckpoint(codec, Table(), kValues);
    ASSERT_THAT(bytes, IsOk());
    EXPECT_EQ(bytes->size(), EncodedCheckpointSize(codec, Table()));
    const Result<plan::Checkpoint> decoded =
        DecodeCheckpoint(codec, Table(), *bytes);
    ASSERT_THAT(decoded, IsOk());
    EXPECT_EQ(*decoded, kValues);
    EXPECT_EQ(*EncodeCheckpoint(codec, Table(), *decoded), *bytes);
  }
}

TEST(CheckpointCodec, SizeByHand_IsBlocksThenIntegers) {
  EXPECT_EQ(EncodedCheckpointSize(CodecName::kFloat32, Table()), 9u * 4 + 8);
  EXPECT_EQ(EncodedCheckpointSize(CodecName::kFloat16, Table()),
            3u * 4 + 9 * 2 + 8);
}

TEST(CheckpointCodec, EveryTruncation_IsRefused) {
  for (const CodecName codec : {CodecName::kFloat32, CodecName::kFloat16}) {
    Bytes bytes = *EncodeCheckpoint(codec, Table(), kValues);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_THAT(
          DecodeCheckpoint(codec, Table(), ByteSpan(bytes).first(size)),
          StatusIs(StatusCode::kInvalidArgument,
                   HasSubstr("checkpoint has " + std::to_string(size))));
    }
    bytes.push_back(0);
    EXPECT_THAT(DecodeCheckpoint(codec, Table(), bytes),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST(CheckpointCodec, ValuesOfAnotherTable_AreRefused) {
  plan::Checkpoint values = kValues;
  values.floats.pop_back();
  EXPECT_THAT(EncodeCheckpoint(CodecName::kFloat32, Table(), values),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(UpdateCounts, Table_HasTheAggregatedTensorsOnly) {
  EXPECT_THAT(UpdateCounts(Table()), ElementsAre(4, 2));
}

}  // namespace
}  // namespace selvage::aggregation
