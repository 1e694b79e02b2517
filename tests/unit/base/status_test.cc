#include "base/status.h"

#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

TEST(StatusTest, Default_IsOkWithoutMessage) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kOk);
  EXPECT_EQ(status.message(), "");
  EXPECT_EQ(status.ToString(), "OK");
  EXPECT_THAT(OkStatus(), IsOk());
}

TEST(StatusTest, Factories_EachCode_KeepsGrpcsNumberAndName) {
  const struct {
    Status status;
    int number;
    std::string name;
  } cases[] = {
      {Cancelled("m"), 1, "CANCELLED"},
      {Status(StatusCode::kUnknown, "m"), 2, "UNKNOWN"},
      {InvalidArgument("m"), 3, "INVALID_ARGUMENT"},
      {DeadlineExceeded("m"), 4, "DEADLINE_EXCEEDED"},
      {NotFound("m"), 5, "NOT_FOUND"},
      {AlreadyExists("m"), 6, "ALREADY_EXISTS"},
      {PermissionDenied("m"), 7, "PERMISSION_DENIED"},
      {ResourceExhausted("m"), 8, "RESOURCE_EXHAUSTED"},
      {FailedPrecondition("m"), 9, "FAILED_PRECONDITION"},
      {Aborted("m"), 10, "ABORTED"},
      {OutOfRange("m"), 11, "OUT_OF_RANGE"},
      {Unimplemented("m"), 12, "UNIMPLEMENTED"},
      {Internal("m"), 13, "INTERNAL"},
      {Unavailable("m"), 14, "UNAVAILABLE"},
      {DataLoss("m"), 15, "DATA_LOSS"},
      {Unauthenticated("m"), 16, "UNAUTHENTICATED"},
  };
  for (const auto& c : cases) {
    EXPECT_FALSE(c.status.ok());
    EXPECT_EQ(static_cast<int>(c.status.code()), c.number);
    EXPECT_EQ(StatusCodeName(c.status.code()), c.name);
    EXPECT_EQ(c.status.ToString(), c.name + ": m");
  }
}

TEST(StatusTest, WithContext_Error_PutsTheContextInFront) {
  const Status status = NotFound("round 3").WithContext("store");
  EXPECT_THAT(status, StatusIs(StatusCode::kNotFound, "store: round 3"));
  EXPECT_THAT(OkStatus().WithContext("store"), IsOk());
}

TEST(StatusTest, Stream_AStatus_PrintsItsText) {
  std::ostringstream out;
  out << NotFound("x") << ", " << OkStatus();
  EXPECT_EQ(out.str(), "NOT_FOUND: x, OK");
}

Result<std::unique_ptr<int>> Make(int value) {
  if (value < 0) return InvalidArgument("negative");
  return std::make_unique<int>(value);
}

Result<int> Twice(int value) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<int> made, Make(value));
  return 2 * *made;
}

Status CheckBoth(int a, int b) {
  SELVAGE_RETURN_IF_ERROR(Make(a).status());
  SELVAGE_RETURN_IF_ERROR(Make(b).status().WithContext("second"));
  return OkStatus();
}

TEST(ResultTest, AssignOrReturn_ValueOrError_IsPassedOn) {
  const Result<int> good = Twice(21);
  ASSERT_THAT(good, IsOk());
  EXPECT_EQ(*good, 42);
  EXPECT_THAT(Twice(-1),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("negative")));
}

TEST(ResultTest, ReturnIfError_FirstError_Wins) {
  EXPECT_THAT(CheckBoth(1, 2), IsOk());
  EXPECT_THAT(CheckBoth(-1, -2),
              StatusIs(StatusCode::kInvalidArgument, "negative"));
  EXPECT_THAT(CheckBoth(1, -2),
              StatusIs(StatusCode::kInvalidArgument, "second: negative"));
}

TEST(ResultTest, Star_MoveOnlyValue_CanBeMovedOut) {
  Result<std::unique_ptr<int>> result = Make(7);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(*result->get(), 7);
  const std::unique_ptr<int> taken = *std::move(result);
  EXPECT_EQ(*taken, 7);
}

}  // namespace
}  // namespace selvage
