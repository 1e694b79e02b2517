// Our Status and gRPC's are the same numbers; this is the cast, and the proof.
#pragma once

#include <string>

#include <grpcpp/support/status.h>

#include "base/status.h"

namespace selvage::coordinator {

#define SELVAGE_SAME_CODE(ours, theirs)               \
  static_assert(static_cast<int>(StatusCode::ours) == \
                static_cast<int>(grpc::StatusCode::theirs))
SELVAGE_SAME_CODE(kOk, OK);
SELVAGE_SAME_CODE(kCancelled, CANCELLED);
SELVAGE_SAME_CODE(kUnknown, UNKNOWN);
SELVAGE_SAME_CODE(kInvalidArgument, INVALID_ARGUMENT);
SELVAGE_SAME_CODE(kDeadlineExceeded, DEADLINE_EXCEEDED);
SELVAGE_SAME_CODE(kNotFound, NOT_FOUND);
SELVAGE_SAME_CODE(kAlreadyExists, ALREADY_EXISTS);
SELVAGE_SAME_CODE(kPermissionDenied, PERMISSION_DENIED);
SELVAGE_SAME_CODE(kResourceExhausted, RESOURCE_EXHAUSTED);
SELVAGE_SAME_CODE(kFailedPrecondition, FAILED_PRECONDITION);
SELVAGE_SAME_CODE(kAborted, ABORTED);
SELVAGE_SAME_CODE(kOutOfRange, OUT_OF_RANGE);
SELVAGE_SAME_CODE(kUnimplemented, UNIMPLEMENTED);
SELVAGE_SAME_CODE(kInternal, INTERNAL);
SELVAGE_SAME_CODE(kUnavailable, UNAVAILABLE);
SELVAGE_SAME_CODE(kDataLoss, DATA_LOSS);
SELVAGE_SAME_CODE(kUnauthenticated, UNAUTHENTICATED);
#undef SELVAGE_SAME_CODE

inline grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()),
          std::string(status.message())};
}

}  // namespace selvage::coordinator
