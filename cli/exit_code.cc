#include "cli/exit_code.h"

namespace selvage::cli {

ExitCode ExitCodeOf(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return ExitCode::kOk;
    case StatusCode::kInvalidArgument:
    case StatusCode::kOutOfRange:
      return ExitCode::kUsage;
    case StatusCode::kUnauthenticated:
    case StatusCode::kPermissionDenied:
      return ExitCode::kAuth;
    case StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case StatusCode::kAlreadyExists:
    case StatusCode::kAborted:
      return ExitCode::kConflict;
    case StatusCode::kFailedPrecondition:
      return ExitCode::kPrecondition;
    case StatusCode::kDeadlineExceeded:
      return ExitCode::kTimeout;
    case StatusCode::kUnavailable:
    case StatusCode::kResourceExhausted:
      return ExitCode::kUnavailable;
    case StatusCode::kCancelled:
      return ExitCode::kInterrupted;
    case StatusCode::kUnknown:
    case StatusCode::kUnimplemented:
    case StatusCode::kInternal:
    case StatusCode::kDataLoss:
      break;
  }
  return ExitCode::kGeneric;
}

}  // namespace selvage::cli
