#include "client/agent/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::agent {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;

Bytes Idx(uint8_t type, const std::vector<uint32_t>& dimensions,
          const Bytes& values) {
  Bytes out = {0, 0, type, static_cast<uint8_t>(dimensions.size())};
  for (const uint32_t size : dimensions) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      out.push_back(static_cast<uint8_t>(size >> shift));
    }
  }
  AppendBytes(out, values);
  return out;
}

TEST(IdxTest, ParseIdx_Images_StayBytes) {
  const Result<IdxRows> rows = ParseIdx(Idx(8, {2, 1, 3}, {1, 2, 3, 4, 5, 6}));
  ASSERT_THAT(rows, IsOk());
  EXPECT_EQ(rows->count, 2U);
  EXPECT_EQ(rows->row_bytes, 3U);
  EXPECT_THAT(Bytes(rows->Row(1).begin(), rows->Row(1).end()),
              ElementsAre(4, 5, 6));
}

TEST(IdxTest, ParseIdx_Labels_BecomeInt64) {
  const Result<IdxRows> rows = ParseIdx(Idx(8, {2}, {7, 255}));
  ASSERT_THAT(rows, IsOk());
  EXPECT_EQ(rows->row_bytes, 8U);
  Bytes wanted;
  AppendLe(wanted, int64_t{7});
  AppendLe(wanted, int64_t{255});
  EXPECT_EQ(rows->rows, wanted);
}

TEST(IdxTest, ParseIdx_Floats_BecomeLittleEndian) {
  const Result<IdxRows> rows =
      ParseIdx(Idx(0x0d, {1, 1}, {0x3f, 0xc0, 0, 0}));  // 1.5
  ASSERT_THAT(rows, IsOk());
  Bytes wanted;
  AppendLe(wanted, 1.5F);
  EXPECT_EQ(rows->rows, wanted);
}

TEST(IdxTest, ParseIdx_Malformed_IsRefused) {
  const Bytes good = Idx(8, {2, 2}, {1, 2, 3, 4});
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(ParseIdx(ByteSpan(good).first(size)), ::testing::Not(IsOk()))
        << size;
  }
  Bytes longer = good;
  longer.push_back(0);
  for (const Bytes& bad :
       {longer, Idx(9, {2, 2}, {1, 2, 3, 4}), Idx(8, {0, 2}, {}),
        Idx(8, {2, 0}, {}), Idx(8, {}, {1}),
        Idx(8, {0xffffffff, 0xffffffff, 0xffffffff}, {1})}) {
    EXPECT_THAT(ParseIdx(bad), StatusIs(StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace selvage::agent
