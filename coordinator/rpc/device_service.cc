#include "coordinator/rpc/device_service.h"

#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include <grpcpp/alarm.h>

#include "base/mutex.h"
#include "coordinator/rpc/artefact_stream.h"
#include "coordinator/rpc/convert.h"
#include "coordinator/rpc/raw_message.h"
#include "coordinator/rpc/status_convert.h"
#include "coordinator/rpc/watchdog.h"

namespace selvage::coordinator {
namespace {

grpc::ServerUnaryReactor* FinishedReactor(grpc::CallbackServerContext* context,
                                          const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

// One upload: header, Resume or Receipt, chunks, Receipt. Reads come one after
// another, so what they touch needs no lock; the receipt comes from a thread of
// the coordinator's and may meet the Resume still being written. So may the
// ticket, but nothing is being read then.
class UploadReactor final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  UploadReactor(grpc::CallbackServerContext* context, DeviceApi& api,
                DeviceCall call, Result<DeviceIdentity> device,
                const DeviceServiceOptions& options)
      : api_(api), call_(std::move(call)), telemetry_(options.telemetry) {
    if (!device.ok()) {
      End(device.status());
      return;
    }
    device_ = *std::move(device);
    call_.SetDevice(*device_);
    const double seconds =
        std::chrono::duration<double>(options.chunk_timeout).count();
    watchdog_.emplace(
        context, options.chunk_timeout, options.chunk_timeouts_max,
        static_cast<uint64_t>(static_cast<double>(options.upload_rate_min) *
                              seconds),
        [this](const Status& reason) { OnExpired(reason); });
    ReadNext();
  }

  void OnReadDone(bool ok) override {
    bool ended = false;
    {
      const MutexLock lock(mu_);
      reading_ = false;
      ended = expired_ended_;
    }
    if (ended) {
      if (ticket_.has_value()) api_.DropUpload(ticket_->upload_id);
      return;
    }
    if (!ok) {
      OnStreamEnded();
      return;
    }
    Status status;
    if (!ticket_.has_value()) {
      status = OnHeader();
    } else {
      status = OnChunk();
    }
    if (!status.ok()) {
      if (ticket_.has_value()) api_.DropUpload(ticket_->upload_id);
      End(status);
    }
  }

  void OnWriteDone(bool ok) override {
    std::optional<Ending> ending;
    {
      const MutexLock lock(mu_);
      writing_ = false;
      ending = std::move(ending_);
      ending_.reset();
    }
    // A failed write means a broken stream: the read sees that too.
    static_cast<void>(ok);
    if (ending.has_value()) EndNow(*std::move(ending));
  }

  void OnDone() override { delete this; }

 private:
  using Ending = std::variant<grpc::Status, v1::UploadResponse>;

  // Both go on reading, or arrange for the end, if they return OK.
  Status OnHeader() {
    SELVAGE_ASSIGN_OR_RETURN(const v1::UploadRequest request,
                             ParseMessage<v1::UploadRequest>(request_));
    if (!request.has_header()) {
      return InvalidArgument("the first message of an upload is its header");
    }
    SELVAGE_ASSIGN_OR_RETURN(const UploadHeader header,
                             FromProto(request.header()));
    size_ = header.size_bytes;
    // Nothing is read before there is room: the device's chunks wait in its
    // own memory, held back by flow control.
    api_.BeginUpload(*device_, header,
                     [this](const Result<BegunUpload>& b) { OnBegun(b); });
    return OkStatus();
  }

  void OnBegun(const Result<BegunUpload>& begun) {
    if (!begun.ok()) {
      End(begun.status());
      return;
    }
    if (const auto* receipt = std::get_if<Receipt>(&*begun)) {
      End(*receipt);
      return;
    }
    // The header is enough for the time that it waited in line.
    watchdog_->Excuse();
    ticket_ = std::get<UploadTicket>(*begun);
    received_ = ticket_->offset;
    v1::UploadResponse resume;
    resume.mutable_resume()->set_offset(received_);
    resume_ = SerializeMessage(resume);
    {
      const MutexLock lock(mu_);
      writing_ = true;
    }
    StartWrite(&resume_);
    ReadOrFinish();
  }

  Status OnChunk() {
    SELVAGE_ASSIGN_OR_RETURN(const RawBytes chunk, ParseChunk(request_));
    if (chunk.size() == 0 || chunk.size() > kChunkSizeMax) {
      return InvalidArgument("chunk has " + std::to_string(chunk.size()) +
                             " bytes, allowed are 1.." +
                             std::to_string(kChunkSizeMax));
    }
    if (chunk.size() > size_ - received_) {
      return OutOfRange("the upload is longer than the announced " +
                        std::to_string(size_) + " bytes");
    }
    SELVAGE_RETURN_IF_ERROR(
        api_.AppendUpload(ticket_->upload_id, chunk.pieces()));
    received_ += chunk.size();
    watchdog_->Progress(chunk.size());
    request_.Clear();  // gRPC may have its memory back
    ReadOrFinish();
    return OkStatus();
  }

  // The device was too slow. A read in flight is ended by the end of the call;
  // between two of them the next one is not begun.
  void OnExpired(const Status& reason) {
    {
      const MutexLock lock(mu_);
      expired_ = reason;
      if (!reading_) return;
      expired_ended_ = true;
    }
    EndExpired(reason);
  }
  void EndExpired(const Status& reason) {
    if (telemetry_ != nullptr) telemetry_->RateLimited(RateLimit::kSlowUpload);
    End(reason);
  }

  void ReadNext() {
    std::optional<Status> expired;
    {
      const MutexLock lock(mu_);
      expired = expired_;
      reading_ = !expired.has_value();
    }
    if (expired.has_value()) {
      if (ticket_.has_value()) api_.DropUpload(ticket_->upload_id);
      EndExpired(*expired);
      return;
    }
    StartRead(&request_);
  }

  void ReadOrFinish() {
    if (received_ < size_) {
      ReadNext();
      return;
    }
    // From here on the coordinator owns the upload; a broken stream changes
    // nothing. Waiting for the commit is not the device's silence.
    watchdog_.reset();
    api_.FinishUpload(ticket_->upload_id, [this](Result<Receipt> receipt) {
      if (receipt.ok()) {
        End(*receipt);
      } else {
        End(receipt.status());
      }
    });
  }

  // The device closed its side, or the connection broke.
  void OnStreamEnded() {
    if (!ticket_.has_value()) {
      End(InvalidArgument("the stream ended before the upload's header"));
      return;
    }
    api_.DropUpload(ticket_->upload_id);
    End(Aborted("the stream ended after " + std::to_string(received_) + " of " +
                std::to_string(size_) + " bytes"));
  }

  void End(const Status& status) { EndWhenWritten(call_.End(status)); }
  void End(const Receipt& receipt) {
    static_cast<void>(call_.End(OkStatus()));
    v1::UploadResponse response;
    *response.mutable_receipt() = ToProto(receipt);
    EndWhenWritten(std::move(response));
  }

  // gRPC allows one write at a time; never with the lock held.
  void EndWhenWritten(Ending ending) {
    {
      const MutexLock lock(mu_);
      if (writing_) {
        ending_ = std::move(ending);
        return;
      }
    }
    EndNow(std::move(ending));
  }

  void EndNow(Ending ending) {
    if (const auto* status = std::get_if<grpc::Status>(&ending)) {
      Finish(*status);
      return;
    }
    receipt_ = SerializeMessage(std::get<v1::UploadResponse>(ending));
    StartWriteAndFinish(&receipt_, grpc::WriteOptions(), grpc::Status::OK);
  }

  DeviceApi& api_;
  DeviceCall call_;
  Telemetry* const telemetry_;  // null: nobody watches
  std::optional<DeviceIdentity> device_;
  std::optional<Watchdog> watchdog_;

  grpc::ByteBuffer request_;
  std::optional<UploadTicket> ticket_;
  uint64_t size_ = 0;
  uint64_t received_ = 0;

  grpc::ByteBuffer resume_;
  grpc::ByteBuffer receipt_;
  Mutex mu_;
  bool writing_ SELVAGE_GUARDED_BY(mu_) = false;
  bool reading_ SELVAGE_GUARDED_BY(mu_) = false;
  std::optional<Status> expired_ SELVAGE_GUARDED_BY(mu_);
  bool expired_ended_ SELVAGE_GUARDED_BY(mu_) = false;  // and so did the call
  std::optional<Ending> ending_ SELVAGE_GUARDED_BY(mu_);
};

// A check-in that waits for the worker: answered by it, or ended by its time.
class WaitingCheckIn {
 public:
  WaitingCheckIn(DeviceCall call, grpc::ServerUnaryReactor* reactor,
                 v1::CheckInResponse* response)
      : call_(std::move(call)), reactor_(reactor), response_(response) {}

  void Answer(const Result<CheckInAnswer>& answer) {
    if (!Claim()) return;
    if (answer.ok()) *response_ = ToProto(*answer);
    reactor_->Finish(call_.End(answer.status()));
  }

  // Does nothing if the answer is there, as it mostly is.
  static void EndAfter(const std::shared_ptr<WaitingCheckIn>& waiting,
                       Duration timeout) {
    const MutexLock lock(waiting->mu_);
    if (waiting->ended_) return;
    waiting->alarm_ = std::make_unique<grpc::Alarm>();
    waiting->alarm_->Set(std::chrono::system_clock::now() + timeout,
                         [waiting, timeout](bool expired) {
                           if (expired) waiting->Expire(timeout);
                         });
  }

 private:
  // For whoever is first; the other one touches nothing of the call.
  bool Claim() {
    std::unique_ptr<grpc::Alarm> alarm;  // cancelled without the lock
    const MutexLock lock(mu_);
    alarm = std::move(alarm_);
    return !std::exchange(ended_, true);
  }
  void Expire(Duration timeout) {
    {
      const MutexLock lock(mu_);
      if (std::exchange(ended_, true)) return;
    }
    reactor_->Finish(call_.End(DeadlineExceeded(
        "the check-in waited " +
        std::to_string(std::chrono::duration<double>(timeout).count()) +
        " s")));
  }

  DeviceCall call_;
  grpc::ServerUnaryReactor* const reactor_;
  v1::CheckInResponse* const response_;
  Mutex mu_;
  bool ended_ SELVAGE_GUARDED_BY(mu_) = false;
  std::unique_ptr<grpc::Alarm> alarm_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace

grpc::ServerUnaryReactor* DeviceService::Enroll(
    grpc::CallbackServerContext* context, const v1::EnrollRequest* request,
    v1::EnrollResponse* response) {
  DeviceCall call = Call(context, "Enroll");
  const auto finished = [&](const Status& status) {
    return FinishedReactor(context, call.End(status));
  };
  Result<EnrollRequest> parsed = FromProto(*request);
  if (!parsed.ok()) return finished(parsed.status());
  // The one method that may do without.
  const Result<DeviceIdentity> current = identities_.ReadOptional(*context);
  if (current.ok()) call.SetDevice(*current);
  if (parsed->token_id.empty() && parsed->identity_public_key.empty() &&
      !current.ok()) {
    return finished(
        Unauthenticated("neither an enrolment token nor a "
                        "valid certificate was presented"));
  }
  const Result<EnrollAnswer> answer = api_.Enroll(
      current.ok() ? std::optional<DeviceIdentity>(*current) : std::nullopt,
      *parsed);
  if (!answer.ok()) {
    log_.Write(LogLevel::kInfo, "enrolment_refused",
               {{"code", StatusCodeName(answer.status().code())},
                {"trace_id", call.trace_id()}});
    return finished(answer.status());
  }
  *response = ToProto(*answer);
  return finished(OkStatus());
}

grpc::ServerUnaryReactor* DeviceService::CheckIn(
    grpc::CallbackServerContext* context, const v1::CheckInRequest* request,
    v1::CheckInResponse* response) {
  DeviceCall call = Call(context, "CheckIn");
  const auto finished = [&](const Status& status) {
    return FinishedReactor(context, call.End(status));
  };
  const Result<DeviceIdentity> device = identities_.Read(*context);
  if (!device.ok()) return finished(device.status());
  call.SetDevice(*device);
  Result<CheckInRequest> parsed = FromProto(*request);
  if (!parsed.ok()) return finished(parsed.status());
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto waiting =
      std::make_shared<WaitingCheckIn>(std::move(call), reactor, response);
  api_.CheckIn(
      *device, *std::move(parsed),
      [waiting](Result<CheckInAnswer> answer) { waiting->Answer(answer); });
  WaitingCheckIn::EndAfter(waiting, options_.call_timeout);
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* DeviceService::Fetch(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  DeviceCall call = Call(context, "Fetch");
  const auto failed = [&](const Status& status) {
    return new FailedStream<grpc::ByteBuffer>(call.End(status));
  };
  const Result<DeviceIdentity> device = identities_.Read(*context);
  if (!device.ok()) return failed(device.status());
  call.SetDevice(*device);
  const Result<v1::FetchRequest> message =
      ParseMessage<v1::FetchRequest>(*request);
  if (!message.ok()) return failed(message.status());
  const Result<FetchRequest> parsed = FromProto(*message);
  if (!parsed.ok()) return failed(parsed.status());
  Result<std::unique_ptr<ArtefactReader>> reader =
      parsed->base.has_value() ? api_.OpenDelta(*device, parsed->digest,
                                                *parsed->base, parsed->codec)
                               : api_.OpenArtefact(*device, parsed->digest);
  if (!reader.ok()) return failed(reader.status());
  // Not of deltas: few devices fetch the same one.
  std::shared_ptr<SharedChunks::Stream> shared;
  if (!parsed->base.has_value()) shared = shared_chunks_.Open(parsed->digest);
  return new ArtefactStream<grpc::ByteBuffer>(
      context, *std::move(reader), parsed->offset, options_.fetch_chunk_size,
      options_.chunk_timeout, options_.chunk_timeouts_max,
      [call = std::move(call)](const Status& status) mutable {
        return call.End(status);
      },
      [shared = std::move(shared)](ArtefactReader& from, uint64_t begin,
                                   size_t size,
                                   grpc::ByteBuffer& chunk) -> Status {
        const auto read = [&] { return ReadChunk(from, begin, size); };
        SELVAGE_ASSIGN_OR_RETURN(
            const grpc::Slice slice,
            shared == nullptr ? read() : shared->Get(begin, size, read));
        chunk = grpc::ByteBuffer(&slice, 1);
        return OkStatus();
      });
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>*
DeviceService::Upload(grpc::CallbackServerContext* context) {
  return new UploadReactor(context, api_, Call(context, "Upload"),
                           identities_.Read(*context), options_);
}

grpc::ServerUnaryReactor* DeviceService::Report(
    grpc::CallbackServerContext* context, const v1::ReportRequest* request,
    v1::ReportResponse* response) {
  DeviceCall call = Call(context, "Report");
  const auto finished = [&](const Status& status) {
    return FinishedReactor(context, call.End(status));
  };
  const Result<DeviceIdentity> device = identities_.Read(*context);
  if (!device.ok()) return finished(device.status());
  call.SetDevice(*device);
  const Result<ReportRequest> parsed = FromProto(*request);
  if (!parsed.ok()) return finished(parsed.status());
  const Result<RetryWindow> retry =
      api_.Report(*device, parsed->report_id, parsed->counters);
  if (!retry.ok()) return finished(retry.status());
  *response->mutable_retry() = ToProto(*retry);
  return finished(OkStatus());
}

grpc::ServerUnaryReactor* DeviceService::Abandon(
    grpc::CallbackServerContext* context, const v1::AbandonRequest* request,
    v1::AbandonResponse* response) {
  DeviceCall call = Call(context, "Abandon");
  const auto finished = [&](const Status& status) {
    return FinishedReactor(context, call.End(status));
  };
  const Result<DeviceIdentity> device = identities_.Read(*context);
  if (!device.ok()) return finished(device.status());
  call.SetDevice(*device);
  const Result<AbandonRequest> parsed = FromProto(*request);
  if (!parsed.ok()) return finished(parsed.status());
  const Result<RetryWindow> retry =
      api_.Abandon(*device, parsed->assignment_id, parsed->token,
                   parsed->reason, parsed->message);
  if (!retry.ok()) return finished(retry.status());
  *response->mutable_retry() = ToProto(*retry);
  return finished(OkStatus());
}

}  // namespace selvage::coordinator
