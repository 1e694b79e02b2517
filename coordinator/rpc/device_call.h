// One call of a device, from its arrival to its answer: a name to find it by in
// the logs of both sides, and what a refusal says besides its reason.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <grpcpp/server_context.h>

#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"

namespace selvage::coordinator {

// Trailing metadata. Milliseconds, with RESOURCE_EXHAUSTED and UNAVAILABLE:
// even a refusal says when to come back.
inline constexpr char kRetryMinKey[] = "selvage-retry-min-ms";
inline constexpr char kRetryMaxKey[] = "selvage-retry-max-ms";
// The same for gRPC's own retries (proposal A6): one moment of that window,
// another for every call.
inline constexpr char kPushbackKey[] = "grpc-retry-pushback-ms";
// Always: 32 hexadecimal digits, as W3C's trace ids. The coordinator draws it;
// what a device says of itself (traceparent) is not believed and not kept.
inline constexpr char kTraceIdKey[] = "selvage-trace-id";

// Thread-compatible: whoever ends the call is alone.
class DeviceCall {
 public:
  // All outlive this; `context` until End(). `method`: "CheckIn". `running` is
  // kept as long as the call is there: who else has it can tell.
  DeviceCall(grpc::CallbackServerContext* context, std::string_view method,
             EventSink& log, Clock& clock, const RetryWindow& busy_retry,
             std::shared_ptr<const void> running);

  const std::string& trace_id() const { return trace_id_; }
  // For the log.
  void SetDevice(const DeviceIdentity& device) { device_ = device; }

  // Once: adds the metadata, writes the event `device_call` (kDebug; kWarning,
  // without the device, where the fault is the coordinator's) and gives what
  // to finish the call with.
  grpc::Status End(const Status& status);

 private:
  grpc::CallbackServerContext* const context_;
  const std::string_view method_;
  EventSink& log_;
  Clock& clock_;
  const RetryWindow busy_retry_;
  const Time begun_;
  const uint64_t number_;
  const std::string trace_id_;
  const std::shared_ptr<const void> running_;
  DeviceIdentity device_;
};

}  // namespace selvage::coordinator
