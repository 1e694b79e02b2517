#include <cstring>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/checkpoint.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/plan/test_programs.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

const TensorTable& Table() {
  static const TensorTable kTable = *TensorTable::Create(test::EveryRole());
  return kTable;
}

Checkpoint Values() {
  Checkpoint values = InitializeCheckpoint(Table(), 11);
  values.ints = {1, -2, INT64_MAX};
  return values;
}

std::string HeaderOf(const Bytes& file) {
  uint64_t size = 0;
  std::memcpy(&size, file.data(), sizeof size);
  return ToString(ByteSpan(file).subspan(8, size));
}

Bytes File(std::string_view header, size_t data_size) {
  Bytes file;
  AppendLe(file, static_cast<uint64_t>(header.size()));
  AppendBytes(file, AsBytes(header));
  file.resize(file.size() + data_size);
  return file;
}

TEST(Safetensors, WriteAndRead_RoundTrips) {
  const Bytes file = WriteSafetensors(Table(), Values(), {{"format", "pt"}});
  const auto read = ReadSafetensors(Table(), file);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(*read, Values());
}

TEST(Safetensors, Write_SmallModel_GoldenBytes) {
  const TensorTable table = *TensorTable::Create(
      {{"w", {2}, DType::kFloat32, Role::kShared, Init::kZeros},
       {"n", {}, DType::kInt64, Role::kBufferInt, Init::kZeros}});
  const Bytes file = WriteSafetensors(table, {{1.0F, -2.0F}, {3}},
                                      {{"format", "pt"}, {"a", "\"b\""}});
  EXPECT_EQ(HeaderOf(file),
            R"({"__metadata__":{"format":"pt","a":"\"b\""},)"
            R"("w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
            R"("n":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})"
            "  ");
  EXPECT_EQ(ToHex(ByteSpan(file).last(16)), "03000000000000000000803f000000c0");
  // Data, integers first, is aligned for both dtypes.
  EXPECT_EQ((file.size() - 16) % 8, 0U);
}

TEST(Safetensors, Read_EveryTruncation_Refused) {
  const Bytes file = WriteSafetensors(Table(), Values(), {});
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THAT(ReadSafetensors(Table(), ByteSpan(file).first(size)),
                StatusIs(StatusCode::kInvalidArgument))
        << size;
  }
}

TEST(Safetensors, Read_TrailingBytes_Refused) {
  Bytes file = WriteSafetensors(Table(), Values(), {});
  file.push_back(0);
  EXPECT_THAT(ReadSafetensors(Table(), file),
              StatusIs(StatusCode::kInvalidArgument,
                       "the tensors take 412 bytes; the file has 413 bytes "
                       "of data"));
}

// Any one bit of the header: refused, or read as the same values.
TEST(Safetensors, Read_EveryFlippedHeaderBit_NeverOtherValues) {
  const Bytes file = WriteSafetensors(Table(), Values(), {});
  const size_t header_end = 8 + HeaderOf(file).size();
  for (size_t i = 0; i < header_end; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes mutated = file;
      mutated[i] = static_cast<uint8_t>(mutated[i] ^ (1 << bit));
      const auto read = ReadSafetensors(Table(), mutated);
      if (read.ok()) {
        EXPECT_EQ(*read, Values()) << i << " " << bit;
      } else {
        EXPECT_EQ(read.status().code(), StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST(Safetensors, Read_NotFinite_NamesTheTensor) {
  Checkpoint values = Values();
  values.floats[94] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(ReadSafetensors(Table(), WriteSafetensors(Table(), values, {})),
              StatusIs(StatusCode::kInvalidArgument,
                       "tensor head.bias: element 0 is inf; must be finite"));
}

TEST(Safetensors, Read_HeaderSize_IsBounded) {
  Bytes file;
  AppendLe(file, uint64_t{(16 << 20) + 1});
  file.resize((16 << 20) + 100);
  EXPECT_THAT(ReadSafetensors(Table(), file),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("a header of 16777217 bytes")));
  file.assign(8, 0xFF);
  EXPECT_THAT(ReadSafetensors(Table(), file),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("truncated")));
}

TEST(Safetensors, Read_MalformedHeader_SaysWhat) {
  const TensorTable table = *TensorTable::Create(
      {{"a", {1}, DType::kFloat32, Role::kShared, Init::kZeros},
       {"b", {2}, DType::kFloat32, Role::kShared, Init::kZeros}});
  const std::string a =
      R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const std::string b =
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]})";
  ASSERT_THAT(ReadSafetensors(table, File("{" + a + "," + b + "}", 12)),
              IsOk());
  ASSERT_THAT(ReadSafetensors(table, File("{" + b + "," + a + "}  ", 12)),
              IsOk());

  const struct {
    std::string header;
    std::string message;
  } cases[] = {
      {"", "safetensors header: malformed JSON"},
      {"[]", "must be a JSON object"},
      {" {" + a + "," + b + "}", "must be a JSON object"},
      {"{" + a + "," + b + "} x", "malformed JSON"},
      {"{" + a + "," + a + "," + b + "}", "the key 'a' is there twice"},
      {"{" + a + "}", "tensor b is missing"},
      {"{" + a + "," + b +
           R"(,"c":{"dtype":"F32","shape":[],"data_offsets":[12,16]}})",
       "tensor 'c' is not in the model's table"},
      {"{" + a + R"(,"b":7})", "tensor 'b' is not described by a mapping"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2]}})",
       "tensor 'b' lacks dtype, shape or data_offsets"},
      {"{" + a +
           R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12],"x":1}})",
       "tensor 'b': unknown key 'x'"},
      {"{" + a + R"(,"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}})",
       "tensor 'b' has dtype 'F16'; the table says F32"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}})",
       "tensor 'b' has shape [1, 2]; the table says [2]"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[-2],"data_offsets":[4,12]}})",
       "tensor 'b': shape is not a whole number"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2.0],"data_offsets":[4,12]}})",
       "tensor 'b': shape is not a whole number"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":2,"data_offsets":[4,12]}})",
       "tensor 'b': shape is not a list"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[12,4]}})",
       "data_offsets [12, 4], which is not its size"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,16]}})",
       "data_offsets [4, 16], which is not its size"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4]}})",
       "data_offsets [4], which is not its size"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "tensor b begins at byte 0 of the data; it overlaps another"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
       "tensor b begins at byte 8 of the data; there is a hole from 4"},
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":)" +
           "[18446744073709551608,18446744073709551616]}}",
       "data_offsets is not a whole number"},
      {R"({"__metadata__":{"a":1},)" + a + "," + b + "}",
       "__metadata__: 'a' is not text"},
      {R"({"__metadata__":"x",)" + a + "," + b + "}",
       "__metadata__ is not a mapping"},
      {"{\"__metadata__\":" + std::string(100, '[') + std::string(100, ']') +
           "," + a + "," + b + "}",
       "nested more than 16 levels deep"},
  };
  for (const auto& c : cases) {
    const auto read = ReadSafetensors(table, File(c.header, 12));
    EXPECT_EQ(read.status().code(), StatusCode::kInvalidArgument) << c.header;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(c.message))
        << c.header;
  }
}

}  // namespace
}  // namespace selvage::plan
