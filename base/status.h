// Status and Result<T>: how every fallible function in this codebase reports
// failure.
//
// The codes are gRPC's canonical codes, number for number, so the RPC layer
// converts with a cast and nobody has to learn a second table. Copying a Status
// is cheap (one shared pointer) and safe from any thread.
#pragma once

#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace selvage {

enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  // The OK status; carries no allocation.
  Status() = default;

  // REQUIRES: code != kOk.
  Status(StatusCode code, std::string message)
      : rep_(std::make_shared<const Rep>(Rep{code, std::move(message)})) {}

  bool ok() const { return rep_ == nullptr; }
  StatusCode code() const { return ok() ? StatusCode::kOk : rep_->code; }
  std::string_view message() const {
    return ok() ? std::string_view() : rep_->message;
  }

  // "OK" or "INVALID_ARGUMENT: cohort_min (12) exceeds cohort_max (10)".
  std::string ToString() const;

  // Returns this status with "<where>: " put in front of the message. OK stays
  // OK. Use it where the caller knows something the callee could not.
  Status WithContext(std::string_view where) const;

 private:
  struct Rep {
    StatusCode code;
    std::string message;
  };
  std::shared_ptr<const Rep> rep_;
};

inline Status OkStatus() { return Status(); }
Status Cancelled(std::string message);
Status InvalidArgument(std::string message);
Status DeadlineExceeded(std::string message);
Status NotFound(std::string message);
Status AlreadyExists(std::string message);
Status PermissionDenied(std::string message);
Status ResourceExhausted(std::string message);
Status FailedPrecondition(std::string message);
Status Aborted(std::string message);
Status OutOfRange(std::string message);
Status Unimplemented(std::string message);
Status Internal(std::string message);
Status Unavailable(std::string message);
Status DataLoss(std::string message);
Status Unauthenticated(std::string message);

std::ostream& operator<<(std::ostream& os, const Status& status);

// Holds a T or the reason there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  // Implicit on purpose: `return value;` and `return InvalidArgument(...);`
  // both read naturally in a function returning Result<T>.
  Result(T value) : value_(std::move(value)) {}          // NOLINT
  Result(Status status) : status_(std::move(status)) {}  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  // REQUIRES: ok().
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace selvage

// SELVAGE_RETURN_IF_ERROR(expr): returns from the enclosing function if `expr`,
// a Status, is not OK.
#define SELVAGE_RETURN_IF_ERROR(expr)                                      \
  do {                                                                     \
    if (::selvage::Status selvage_status = (expr); !selvage_status.ok()) { \
      return selvage_status;                                               \
    }                                                                      \
  } while (false)

// SELVAGE_ASSIGN_OR_RETURN(lhs, expr): `lhs = *expr`, or returns expr.status().
#define SELVAGE_ASSIGN_OR_RETURN(lhs, expr)                                \
  SELVAGE_ASSIGN_OR_RETURN_IMPL(SELVAGE_CONCAT(selvage_result_, __LINE__), \
                                lhs, expr)
#define SELVAGE_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) return tmp.status();                 \
  lhs = *std::move(tmp)
#define SELVAGE_CONCAT(a, b) SELVAGE_CONCAT_INNER(a, b)
#define SELVAGE_CONCAT_INNER(a, b) a##b
