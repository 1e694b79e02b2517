// What a coordinator tells whoever watches it. The base class listens to
// nothing; coordinator/telemetry turns it into metrics (docs/operations.md,
// "Metrics", which also says which sums add up).
//
// Nobody is named: no device, no round, no address.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"
#include "coordinator/api.h"

namespace selvage::coordinator {

// Whose event it is. "unknown" where nothing says so, or nobody vouches for it.
struct TaskLabel {
  std::string population = "unknown";
  std::string task = "unknown";
};

enum class CheckInOutcome {
  kAssigned,
  kOffered,  // a model
  kNothing,  // come back; also candidates of a draw
  kDenied,
  kFailed,
};

// How an upload ended, as its device was told.
enum class UploadResult {
  kAccepted,     // counts, for the first time
  kRejected,     // `reason`
  kLate,         // the round had ended
  kDuplicate,    // answered before: the same answer again
  kFailed,       // an error: the device tries again
  kInterrupted,  // the stream ended first
};
struct UploadEnd {
  UploadResult result = UploadResult::kFailed;
  RejectReason reason = RejectReason::kNone;    // of kRejected
  StatusCode error = StatusCode::kUnavailable;  // of kFailed
  uint64_t bytes = 0;                           // as announced
};

// What became of an assignment, when its round ended.
enum class AssignmentEnd {
  kAccepted,
  kRejected,
  kLate,
  kAbandoned,   // the device gave it up
  kExpired,     // not heard of before its deadline
  kUnfinished,  // still in time when the round ended
};
inline constexpr size_t kAssignmentEndCount = 6;

// A round that is driven here, as it stands; zeros: there is none.
struct RoundView {
  uint64_t phase = 0;        // a RoundState
  uint64_t assignments = 0;  // that the round has given out
  uint64_t updates = 0;      // that it has accepted
  friend bool operator==(const RoundView&, const RoundView&) = default;
};

struct RoundEnd {
  RoundState state = RoundState::kCommitted;  // or kAbandoned
  RoundMode mode = RoundMode::kTrain;
  Time ended{};  // by Store::Now()
  Duration duration{};
  std::array<uint64_t, kAssignmentEndCount> assignments{};  // by AssignmentEnd
  // L2 norm of the mean of its updates; of a committed training round.
  std::optional<double> update_norm = std::nullopt;
};

// How a population's devices are told to come back (coordinator/pace.h).
struct PaceView {
  double target_per_second = 0;
  double observed_per_second = 0;
  Duration window{};  // the middle of what is told now
};

enum class AuthFailure {
  kCertificate,      // none, or not a good one
  kEnrolmentToken,   // or the identity key in its place
  kNotEnrolled,      // a good certificate of no enrolled device
  kAssignmentToken,  // of an upload, or of giving up
  kAdminToken,
};
enum class RateLimit {
  kCheckIns,    // more than the pace allows ask for more than memory
  kUploads,     // no room for another one
  kSlowUpload,  // ended in the middle: too few bytes a second, or too long
  kEnrolment,
  kConnections,
};

// Thread-safe; called from RPC threads and from the worker, so nothing here
// blocks or fails.
class Telemetry {
 public:
  Telemetry() = default;
  virtual ~Telemetry() = default;
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  virtual void CheckedIn(const std::string& /*population*/, CheckInOutcome) {}
  // Every upload that began ends once.
  virtual void UploadBegan(const TaskLabel&) {}
  virtual void UploadEnded(const TaskLabel&, const UploadEnd&) {}

  // Durable assignments that were not told of before.
  virtual void AssignmentsIssued(const TaskLabel&, uint64_t /*count*/) {}
  virtual void RoundIs(const TaskLabel&, const RoundView&) {}
  // Of one that was driven here until its end.
  virtual void RoundEnded(const TaskLabel&, const RoundEnd&) {}
  // From CLOSING to COMMITTED.
  virtual void Aggregated(Duration) {}

  // The claims of tasks among replicas.
  virtual void LeaseAcquired() {}
  virtual void LeaseLost() {}
  // The store refused a write: another replica has the round, or changed it.
  virtual void WriteFenced() {}

  // As of a check-in that got no work.
  virtual void PaceIs(const std::string& /*population*/, const PaceView&) {}

  virtual void AuthFailed(AuthFailure) {}
  virtual void RateLimited(RateLimit) {}

  // A call of the store or of the blob store, by the method's name.
  virtual void DatabaseCalled(std::string_view /*query*/, Duration) {}
  virtual void BlobsCalled(std::string_view /*op*/, Duration) {}
};

}  // namespace selvage::coordinator
