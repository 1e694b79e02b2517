#include "coordinator/api.h"

namespace selvage::coordinator {

std::string_view RejectReasonName(RejectReason reason) {
  switch (reason) {
    case RejectReason::kNone:
      return "NONE";
    case RejectReason::kConflict:
      return "CONFLICT";
    case RejectReason::kBadToken:
      return "BAD_TOKEN";
    case RejectReason::kBadDigest:
      return "BAD_DIGEST";
    case RejectReason::kBadSize:
      return "BAD_SIZE";
    case RejectReason::kBadEncoding:
      return "BAD_ENCODING";
    case RejectReason::kOutOfRange:
      return "OUT_OF_RANGE";
    case RejectReason::kNotFinite:
      return "NOT_FINITE";
    case RejectReason::kBadWeight:
      return "BAD_WEIGHT";
    case RejectReason::kBadMetrics:
      return "BAD_METRICS";
    case RejectReason::kBadScalars:
      return "BAD_SCALARS";
    case RejectReason::kUnknownAssignment:
      return "UNKNOWN_ASSIGNMENT";
    case RejectReason::kWithdrawn:
      return "WITHDRAWN";
  }
  return "INVALID";
}

std::string_view AbandonReasonName(AbandonReason reason) {
  switch (reason) {
    case AbandonReason::kUnspecified:
      return "UNSPECIFIED";
    case AbandonReason::kInterrupted:
      return "INTERRUPTED";
    case AbandonReason::kPlanRefused:
      return "PLAN_REFUSED";
    case AbandonReason::kProgramRefused:
      return "PROGRAM_REFUSED";
    case AbandonReason::kTooFewExamples:
      return "TOO_FEW_EXAMPLES";
    case AbandonReason::kTrainingFailed:
      return "TRAINING_FAILED";
    case AbandonReason::kUpdateOutOfRange:
      return "UPDATE_OUT_OF_RANGE";
    case AbandonReason::kPlanBelowFloor:
      return "PLAN_BELOW_FLOOR";
    case AbandonReason::kOverBudget:
      return "OVER_BUDGET";
  }
  return "INVALID";
}

std::string_view RoundModeName(RoundMode mode) {
  return mode == RoundMode::kEvaluate ? "EVALUATE" : "TRAIN";
}

std::string_view RoundStateName(RoundState state) {
  switch (state) {
    case RoundState::kSelecting:
      return "SELECTING";
    case RoundState::kCollecting:
      return "COLLECTING";
    case RoundState::kClosing:
      return "CLOSING";
    case RoundState::kUnmasking:
      return "UNMASKING";
    case RoundState::kApplying:
      return "APPLYING";
    case RoundState::kCommitted:
      return "COMMITTED";
    case RoundState::kAbandoned:
      return "ABANDONED";
  }
  return "INVALID";
}

}  // namespace selvage::coordinator
