#include "client/training/torch/pickle_scan.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client::torch_engine {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

// One storage, "0", of 16 bytes.
std::optional<uint64_t> Sizes(std::string_view key) {
  return key == "0" ? std::optional<uint64_t>(16) : std::nullopt;
}

Status Scan(const std::string& pickle) {
  return ScanPickle("data.pkl", AsBytes(pickle), Sizes);
}

std::string Text(const std::string& text) {
  return std::string("X") + static_cast<char>(text.size()) +
         std::string(3, '\0') + text;
}
std::string Int(int value) {
  return std::string("K") + static_cast<char>(value);
}

struct Parts {
  std::string storage = "FloatStorage";
  std::string key = "0";
  std::string device = "cpu";
  std::string count = Int(4);
  std::string offset = Int(0);
  std::string size = Int(2) + Int(2) + "\x86";
  std::string stride = Int(2) + Int(1) + "\x86";
  std::string callee = "ctorch._utils\n_rebuild_tensor_v2\n";
};

// A pickle of one tensor, as PyTorch writes it.
std::string Tensor(const Parts& p = {}) {
  return "\x80\x02" + p.callee + "((" + Text("storage") + "ctorch\n" +
         p.storage + "\n" + Text(p.key) + Text(p.device) + p.count + "tQ" +
         p.offset + p.size + p.stride + "\x89" + "ccollections\nOrderedDict\n" +
         ")RtR.";
}

TEST(PickleScanTest, ScanPickle_Tensor_IsOk) {
  EXPECT_THAT(Scan(Tensor()), IsOk());
}

TEST(PickleScanTest, ScanPickle_StorageLargerThanItsRecord_IsRefused) {
  EXPECT_THAT(Scan(Tensor({.count = Int(5)})),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("16 bytes")));
  EXPECT_THAT(Scan(Tensor({.storage = "DoubleStorage"})),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("16 bytes")));
  EXPECT_THAT(Scan(Tensor({.count = "J\xff\xff\xff\xff"})),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("-1")));
}

TEST(PickleScanTest, ScanPickle_TensorOutsideItsStorage_IsRefused) {
  const auto outside =
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("outside its storage"));
  EXPECT_THAT(Scan(Tensor({.offset = Int(1)})), outside);
  EXPECT_THAT(Scan(Tensor({.stride = Int(3) + Int(1) + "\x86"})), outside);
  EXPECT_THAT(Scan(Tensor({.size = Int(3) + Int(2) + "\x86"})), outside);
  // 2^31 x 2^31 wraps in 64 bits if multiplied blindly.
  const std::string huge = "J\xff\xff\xff\x7f";
  EXPECT_THAT(Scan(Tensor({.size = huge + huge + "\x86",
                           .stride = huge + huge + "\x86"})),
              outside);
  EXPECT_THAT(Scan(Tensor({.offset = "J\xff\xff\xff\xff"})),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(PickleScanTest, ScanPickle_OtherStorages_AreRefused) {
  EXPECT_THAT(Scan(Tensor({.key = "1"})),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("named 1")));
  EXPECT_THAT(Scan(Tensor({.key = "../code/x"})),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Scan(Tensor({.device = "cuda:0"})),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("cuda:0")));
  EXPECT_THAT(Scan(Tensor({.storage = "QInt8Storage"})),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(PickleScanTest, ScanPickle_OtherGlobals_AreRefused) {
  for (const std::string callee :
       {"cos\nsystem\n", "cbuiltins\neval\n",
        "ctorch._utils\n_rebuild_qtensor\n",
        "c__torch__.torch.classes.quantized\nLinearPackedParamsBase\n"}) {
    EXPECT_THAT(Scan("\x80\x02" + callee + "."),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("global")));
  }
}

TEST(PickleScanTest, ScanPickle_OperandsThatAreNotThere_AreRefused) {
  for (const std::string body :
       {"R",        "Q",       "b",
        "a",        "s",       "t",
        "u",        "e",       "\x81",
        "\x85",     "\x86",    "q\x01",
        "h\x01",    "K",       "X\xff\xff\xff\xff",
        "\x8a\x09", "K\x01)R", "))R",
        "K\x01Q",   "]b",      "ctorch._utils\n_rebuild_tensor_v2\n)R",
        "i",        ""}) {
    EXPECT_THAT(Scan("\x80\x02" + body), StatusIs(StatusCode::kInvalidArgument))
        << body;
  }
}

TEST(PickleScanTest, ScanPickle_Nesting_IsBounded) {
  std::string deep = "\x80\x02)";
  for (int i = 0; i < 99; ++i) deep += "\x85";
  EXPECT_THAT(Scan(deep + "."), IsOk());
  EXPECT_THAT(Scan(deep + "\x85\x85."),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("deep")));
}

TEST(PickleScanTest, ScanPickle_AnyBytes_ReturnsAStatus) {
  SeededRandom random(1);
  const std::string good = Tensor();
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    const uint64_t changes = 1 + UniformBelow(random, 4);
    for (uint64_t k = 0; k < changes; ++k) {
      bytes[UniformBelow(random, bytes.size())] =
          static_cast<char>(random.Next());
    }
    bytes.resize(UniformBelow(random, bytes.size() + 1));
    const Status status = Scan(bytes);
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace selvage::client::torch_engine
