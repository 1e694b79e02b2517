// selvage.v1.DeviceService over gRPC's callback API: translation, identity and
// sizes. What is true or allowed is DeviceApi's to say.
#pragma once

#include <selvage/v1/device.grpc.pb.h>

#include <memory>
#include <string>

#include <grpcpp/support/byte_buffer.h>

#include "base/log.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/rpc/device_call.h"
#include "coordinator/rpc/identity.h"
#include "coordinator/rpc/shared_chunks.h"

namespace selvage::coordinator {

struct DeviceServiceOptions {
  // A stream on which nothing moves for this long is ended (an upload with
  // DEADLINE_EXCEEDED, a fetch by cancelling it), ...
  Duration chunk_timeout = std::chrono::seconds(30);
  // ... and any stream after this many of them, ...
  int chunk_timeouts_max = 20;
  // ... and an upload that brought fewer bytes a second during one of them: a
  // trickle would hold the room it was let in to (slowloris).
  uint64_t upload_rate_min = 1 << 10;
  // What a check-in may wait for the coordinator's decision, whatever deadline
  // the device has, or has not, set. Then DEADLINE_EXCEEDED.
  Duration call_timeout = std::chrono::seconds(30);
  Telemetry* telemetry = nullptr;               // null: nobody watches
  size_t fetch_chunk_size = size_t{256} << 10;  // at most kChunkSizeMax
  // Of chunks that streams of one artefact share (shared_chunks.h).
  uint64_t shared_chunks_max = uint64_t{16} << 20;
  // Goes with RESOURCE_EXHAUSTED and UNAVAILABLE (device_call.h).
  RetryWindow busy_retry = {std::chrono::seconds(2), std::chrono::seconds(10)};
};

// Fetch and Upload move models: their messages stay as they are on the wire, so
// that the bytes are copied no more than needed.
template <typename Service>
using DeviceServiceMethods = v1::DeviceService::WithCallbackMethod_Enroll<
    v1::DeviceService::WithCallbackMethod_CheckIn<
        v1::DeviceService::WithRawCallbackMethod_Fetch<
            v1::DeviceService::WithRawCallbackMethod_Upload<
                v1::DeviceService::WithCallbackMethod_Report<
                    v1::DeviceService::WithCallbackMethod_Abandon<Service>>>>>>;

// Every method but Enroll answers UNAUTHENTICATED unless IdentityReader finds a
// device. Thread-safe; no thread waits for a device.
class DeviceService final
    : public DeviceServiceMethods<v1::DeviceService::Service> {
 public:
  // All must outlive the service, and the service every call.
  DeviceService(DeviceApi& api, IdentityReader& identities, EventSink& log,
                Clock& clock, const DeviceServiceOptions& options)
      : api_(api),
        identities_(identities),
        log_(log),
        clock_(clock),
        options_(options),
        shared_chunks_(options.shared_chunks_max) {}

  // Whether a call is there that has not ended: soon after the last one did,
  // and no other begins, it is false.
  bool CallsRunning() const { return calls_.use_count() > 1; }

  grpc::ServerUnaryReactor* Enroll(grpc::CallbackServerContext* context,
                                   const v1::EnrollRequest* request,
                                   v1::EnrollResponse* response) override;
  grpc::ServerUnaryReactor* CheckIn(grpc::CallbackServerContext* context,
                                    const v1::CheckInRequest* request,
                                    v1::CheckInResponse* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Fetch(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Upload(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Report(grpc::CallbackServerContext* context,
                                   const v1::ReportRequest* request,
                                   v1::ReportResponse* response) override;
  grpc::ServerUnaryReactor* Abandon(grpc::CallbackServerContext* context,
                                    const v1::AbandonRequest* request,
                                    v1::AbandonResponse* response) override;

 private:
  DeviceCall Call(grpc::CallbackServerContext* context,
                  std::string_view method) const {
    return DeviceCall(context, method, log_, clock_, options_.busy_retry,
                      calls_);
  }

  DeviceApi& api_;
  IdentityReader& identities_;
  EventSink& log_;
  Clock& clock_;
  const DeviceServiceOptions options_;
  SharedChunks shared_chunks_;
  // Every call that runs has it, too.
  const std::shared_ptr<const void> calls_ = std::make_shared<int>();
};

}  // namespace selvage::coordinator
