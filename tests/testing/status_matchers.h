// EXPECT_THAT(x, IsOk()), EXPECT_THAT(x, StatusIs(StatusCode::kNotFound,
// HasSubstr("round 3"))): x is a Status or a Result.
#pragma once

#include <ostream>

#include <gmock/gmock.h>

#include "base/status.h"

namespace selvage {

// Found by argument: instead of a dump of the bytes.
template <typename T>
void PrintTo(const Result<T>& result, std::ostream* out) {
  if (!result.ok()) {
    *out << result.status().ToString();
    return;
  }
  *out << "OK: " << ::testing::PrintToString(*result);
}

}  // namespace selvage

namespace selvage::test {

inline const Status& StatusOf(const Status& status) { return status; }
template <typename T>
const Status& StatusOf(const Result<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  const Status& status = StatusOf(arg);
  *result_listener << status.ToString();
  return status.ok();
}

MATCHER_P(StatusIs, code, "has the status code") {
  const Status& status = StatusOf(arg);
  *result_listener << status.ToString();
  return status.code() == code;
}

MATCHER_P2(StatusIs, code, message, "has the status code and message") {
  const Status& status = StatusOf(arg);
  *result_listener << status.ToString();
  return status.code() == code &&
         ::testing::Value(std::string(status.message()), message);
}

}  // namespace selvage::test
