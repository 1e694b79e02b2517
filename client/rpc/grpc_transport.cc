#include "client/rpc/grpc_transport.h"

#include <selvage/v1/device.grpc.pb.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "client/rpc/chunk_sizer.h"
#include "client/rpc/convert.h"

namespace selvage::client {
namespace {

using std::chrono::steady_clock;

// Fetch and Upload move models: their messages are read and written as they are
// on the wire, so that the bytes are copied no more than needed.
constexpr char kFetchMethod[] = "/selvage.v1.DeviceService/Fetch";
constexpr char kUploadMethod[] = "/selvage.v1.DeviceService/Upload";

constexpr int kReceiveSizeMax = 2 << 20;
constexpr Duration kPollInterval = std::chrono::milliseconds(20);
constexpr Duration kBackoffFirst = std::chrono::milliseconds(200);
constexpr Duration kBackoffMax = std::chrono::seconds(30);
constexpr Duration kPushbackMax = std::chrono::minutes(1);

// With the id that the coordinator's log has of the call, if it gave one.
Status FromGrpc(const grpc::Status& status,
                const grpc::ClientContext& context) {
  if (status.ok()) return OkStatus();
  std::string message = status.error_message();
  const auto& trailing = context.GetServerTrailingMetadata();
  if (const auto it = trailing.find("selvage-trace-id"); it != trailing.end()) {
    const std::string_view id(it->second.data(), it->second.size());
    const bool is_one =
        id.size() == 32 &&
        id.find_first_not_of("0123456789abcdef") == std::string_view::npos;
    if (is_one) message.append(" (trace ").append(id).append(")");
  }
  return {static_cast<StatusCode>(status.error_code()), std::move(message)};
}

// A number of milliseconds in the trailing metadata, at most a week.
std::optional<Duration> Milliseconds(const grpc::ClientContext& context,
                                     const char* key) {
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto it = trailing.find(key);
  if (it == trailing.end()) return std::nullopt;
  const char* const end = it->second.data() + it->second.size();
  int64_t ms = 0;
  const auto [rest, error] = std::from_chars(it->second.data(), end, ms);
  if (error != std::errc() || rest != end || ms < 0) return std::nullopt;
  return std::chrono::milliseconds(std::min(ms, int64_t{7} * 24 * 3600 * 1000));
}

// How long a coordinator with too many bytes in flight wants to be left alone
// (gRPC's proposal A6); zero where it does not say, or says nonsense.
Duration PushbackOf(const Status& status, const grpc::ClientContext& context) {
  if (status.code() != StatusCode::kResourceExhausted) return {};
  return std::min(
      Milliseconds(context, "grpc-retry-pushback-ms").value_or(Duration{}),
      kPushbackMax);
}

// The window in which a coordinator that refused wants to be asked again; zero
// where it does not say, or says nonsense.
RetryWindow WindowOf(const Status& status, const grpc::ClientContext& context) {
  if (status.code() != StatusCode::kResourceExhausted &&
      status.code() != StatusCode::kUnavailable) {
    return {};
  }
  const auto min = Milliseconds(context, "selvage-retry-min-ms");
  const auto max = Milliseconds(context, "selvage-retry-max-ms");
  if (!min.has_value() || !max.has_value() || *max < *min) return {};
  return {*min, *max};
}

// RESOURCE_EXHAUSTED: the coordinator has too many bytes in flight.
bool WorthRetrying(const Status& status) {
  return status.code() == StatusCode::kUnavailable ||
         status.code() == StatusCode::kDeadlineExceeded ||
         status.code() == StatusCode::kAborted ||
         status.code() == StatusCode::kResourceExhausted;
}

template <typename Message>
grpc::ByteBuffer SerializeMessage(const Message& message) {
  grpc::ByteBuffer raw;
  bool own_buffer = false;
  (void)grpc::SerializationTraits<Message>::Serialize(message, &raw,
                                                      &own_buffer);
  return raw;
}

// False if the bytes are no such message.
template <typename Message>
bool ParseMessage(grpc::ByteBuffer& raw, Message& message) {
  return grpc::SerializationTraits<Message>::Deserialize(&raw, &message).ok();
}

// An UploadRequest of `size` bytes of the update, copied once.
Result<grpc::ByteBuffer> ChunkMessage(const UpdateBytes& update,
                                      uint64_t offset, size_t size) {
  uint8_t head[6] = {v1::UploadRequest::kChunkFieldNumber << 3 | 2};
  const uint8_t* const end =
      google::protobuf::io::CodedOutputStream::WriteVarint32ToArray(
          static_cast<uint32_t>(size), head + 1);
  const auto head_size = static_cast<size_t>(end - head);
  const grpc::Slice slice(head_size + size);
  // Nobody else has it yet.
  auto* const out = const_cast<uint8_t*>(slice.begin());
  std::copy_n(head, head_size, out);
  SELVAGE_RETURN_IF_ERROR(
      update.Read(offset, std::span(out + head_size, size)));
  return grpc::ByteBuffer(&slice, 1);
}

// Hands the bytes of a FetchChunk on in the pieces in which they lie there, or
// an empty piece if it has none. INTERNAL if it is no such message.
template <typename Take>
Status ReadChunk(grpc::ByteBuffer& message, const Take& take) {
  using google::protobuf::internal::WireFormatLite;
  const Status malformed = Internal("a chunk of an artefact is malformed");
  grpc::ProtoBufferReader reader(&message);
  google::protobuf::io::CodedInputStream in(&reader);
  uint64_t total = 0;
  bool any = false;
  while (const uint32_t tag = in.ReadTag()) {
    if (tag == (v1::FetchChunk::kTotalSizeFieldNumber << 3)) {
      if (any || !in.ReadVarint64(&total)) return malformed;
    } else if (tag == (v1::FetchChunk::kDataFieldNumber << 3 | 2)) {
      uint32_t left = 0;
      if (any || !in.ReadVarint32(&left)) return malformed;
      any = true;
      while (left > 0) {
        const void* piece = nullptr;
        int size = 0;
        if (!in.GetDirectBufferPointer(&piece, &size)) return malformed;
        const uint32_t taken = std::min(left, static_cast<uint32_t>(size));
        SELVAGE_RETURN_IF_ERROR(
            take(ByteSpan(static_cast<const uint8_t*>(piece), taken), total));
        in.Skip(static_cast<int>(taken));
        left -= taken;
      }
    } else if (!WireFormatLite::SkipField(&in, tag)) {
      return malformed;
    }
  }
  if (!in.ConsumedEntireMessage()) return malformed;
  return any ? OkStatus() : take(ByteSpan(), total);
}

// gRPC's threads do not come along when a process is forked: a child that
// inherits connections would wait for them for ever. (Once the last transport
// is gone gRPC shuts itself down, and may begin anew in a child.) gRPC is one
// for the whole process, and so is this.
class ForkGuard {
 public:
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;
  static Result<std::unique_ptr<ForkGuard>> Enter() {
    const auto process = static_cast<uint32_t>(::getpid());
    uint64_t seen = state_.load();
    do {
      if (CountOf(seen) > 0 && seen >> 32 != process) {
        return FailedPrecondition(
            "this process was forked while its parent had a client with a "
            "connection: close clients before fork, or exec after it");
      }
    } while (!state_.compare_exchange_weak(
        seen, (uint64_t{process} << 32) + CountOf(seen) + 1));
    return std::unique_ptr<ForkGuard>(new ForkGuard());
  }
  ~ForkGuard() { state_.fetch_sub(1); }

 private:
  ForkGuard() = default;
  static uint64_t CountOf(uint64_t state) { return state & 0xFFFFFFFF; }

  // Whose transports these are, and how many: one word, because a lock could
  // be forked while it is held.
  static inline std::atomic<uint64_t> state_{0};
};

// What became of one try at a transfer, and the shortest wait until the next.
struct Attempt {
  Status status;
  Duration pushback{};
};

// Runs one streaming call on a completion queue of its own, so that every
// operation has a deadline and the host is asked while it waits.
class StreamCall {
 public:
  StreamCall(Duration operation_deadline, const Transport::KeepGoing& going)
      : operation_deadline_(operation_deadline), keep_going_(going) {}
  ~StreamCall() {
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }
  StreamCall(const StreamCall&) = delete;
  StreamCall& operator=(const StreamCall&) = delete;

  grpc::ClientContext& context() { return context_; }
  grpc::CompletionQueue& queue() { return queue_; }
  void* tag() { return this; }

  // Waits for the one operation under way. False: the stream has ended (Finish
  // tells why), perhaps because we ended it.
  bool Wait() {
    const auto deadline = steady_clock::now() + operation_deadline_;
    for (;;) {
      void* tag = nullptr;
      bool ok = false;
      const auto slice =
          std::chrono::system_clock::now() +
          std::chrono::duration_cast<std::chrono::system_clock::duration>(
              kPollInterval);
      switch (queue_.AsyncNext(&tag, &ok, slice)) {
        case grpc::CompletionQueue::GOT_EVENT:
          return ok;
        case grpc::CompletionQueue::SHUTDOWN:
          return false;
        case grpc::CompletionQueue::TIMEOUT:
          break;
      }
      if (!own_reason_.ok()) continue;  // cancelled: the event is on its way
      if (keep_going_ && !keep_going_()) {
        own_reason_ = Cancelled("the host stopped the transfer");
        context_.TryCancel();
      } else if (steady_clock::now() >= deadline) {
        own_reason_ = DeadlineExceeded(
            "the coordinator was silent for " +
            std::to_string(operation_deadline_ / std::chrono::seconds(1)) +
            " s");
        context_.TryCancel();
      }
    }
  }

  // The call's outcome; our own reason where we ended it.
  template <typename Stream>
  Attempt Finish(Stream& stream) {
    grpc::Status answer;
    stream.Finish(&answer, tag());
    (void)Wait();
    if (!own_reason_.ok()) return {own_reason_};
    Status status = FromGrpc(answer, context_);
    const Duration pushback = PushbackOf(status, context_);
    return {std::move(status), pushback};
  }

  void Cancel(Status reason) {
    own_reason_ = std::move(reason);
    context_.TryCancel();
  }

 private:
  const Duration operation_deadline_;
  const Transport::KeepGoing& keep_going_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  Status own_reason_;
};

class GrpcTransport final : public Transport {
 public:
  GrpcTransport(std::unique_ptr<ForkGuard> guard,
                std::shared_ptr<grpc::Channel> channel,
                std::string insecure_device_uri, RandomSource& random,
                GrpcTransportOptions options)
      : guard_(std::move(guard)),
        stub_(v1::DeviceService::NewStub(channel)),
        streams_(std::move(channel)),
        insecure_device_uri_(std::move(insecure_device_uri)),
        random_(random),
        options_(std::move(options)) {}

  Result<EnrollAnswer> Enroll(const EnrollRequest& request) override {
    v1::EnrollResponse response;
    SELVAGE_RETURN_IF_ERROR(
        Unary(&v1::DeviceService::Stub::Enroll, ToProto(request), response));
    return FromProto(response);
  }

  Result<CheckInAnswer> CheckIn(const CheckInRequest& request) override {
    v1::CheckInResponse response;
    SELVAGE_RETURN_IF_ERROR(
        Unary(&v1::DeviceService::Stub::CheckIn, ToProto(request), response));
    return FromProto(response);
  }

  RetryWindow asked_to_wait() const override { return asked_to_wait_; }

  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    v1::FetchRequest request;
    request.set_digest(ToString(digest.span()));
    request.set_offset(offset);
    return FetchAll(request, sink, keep_going);
  }

  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    v1::FetchRequest request;
    request.set_digest(ToString(digest.span()));
    request.set_base(ToString(base.span()));
    request.set_codec(ToProto(codec));
    return FetchAll(request, sink, keep_going);
  }

  Result<Receipt> Upload(const UploadHeader& header, const UpdateBytes& update,
                         const KeepGoing& keep_going) override {
    if (update.size() != header.size_bytes) {
      return InvalidArgument("the update has " + std::to_string(update.size()) +
                             " bytes, its header says " +
                             std::to_string(header.size_bytes));
    }
    Receipt receipt;
    uint64_t reached = 0;
    ChunkSizer sizer(options_.chunk_size_bytes);
    SELVAGE_RETURN_IF_ERROR(WithRetries(keep_going, [&](bool& progress) {
      uint64_t offset = 0;
      Attempt attempt =
          UploadOnce(header, update, keep_going, sizer, offset, receipt);
      if (!attempt.status.ok()) sizer.Broke();
      progress = offset > reached;
      reached = std::max(reached, offset);
      return attempt;
    }));
    return receipt;
  }

  Result<RetryWindow> Abandon(const std::string& assignment_id, ByteSpan token,
                              AbandonReason reason,
                              const std::string& message) override {
    v1::AbandonRequest request;
    request.set_assignment_id(assignment_id);
    request.set_token(ToString(token));
    request.set_reason(static_cast<v1::AbandonRequest::Reason>(reason));
    request.set_message(message.substr(0, 512));
    v1::AbandonResponse response;
    SELVAGE_RETURN_IF_ERROR(
        Unary(&v1::DeviceService::Stub::Abandon, request, response));
    return FromProto(response.retry());
  }

  Result<RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    v1::ReportRequest request;
    request.set_report_id(report_id);
    for (const auto& counter : counters) {
      v1::ReportRequest::Counter& entry = *request.add_counters();
      entry.set_name(counter.first);
      entry.set_value(counter.second);
    }
    v1::ReportResponse response;
    SELVAGE_RETURN_IF_ERROR(
        Unary(&v1::DeviceService::Stub::Report, request, response));
    return FromProto(response.retry());
  }

 private:
  // Over plaintext there is no certificate to say who is calling.
  void Introduce(grpc::ClientContext& context) const {
    if (!insecure_device_uri_.empty()) {
      context.AddMetadata("selvage-insecure-device", insecure_device_uri_);
    }
  }

  // One answer to one question. All of them may be asked twice, so a
  // coordinator that is just starting is asked again until the deadline, but no
  // sooner than it asks for itself.
  template <typename Request, typename Response>
  Status Unary(grpc::Status (v1::DeviceService::Stub::*method)(
                   grpc::ClientContext*, const Request&, Response*),
               const Request& request, Response& response) {
    const auto deadline = steady_clock::now() + options_.check_in_deadline;
    Duration backoff = kBackoffFirst;
    for (;;) {
      const auto left = deadline - steady_clock::now();
      grpc::ClientContext context;
      Introduce(context);
      context.set_deadline(
          std::chrono::system_clock::now() +
          std::chrono::duration_cast<std::chrono::system_clock::duration>(
              left));
      const grpc::Status answer =
          (stub_.get()->*method)(&context, request, &response);
      const Status status = FromGrpc(answer, context);
      asked_to_wait_ = WindowOf(status, context);
      const Duration wait = std::max(Jitter(backoff), asked_to_wait_.min);
      if (status.code() != StatusCode::kUnavailable ||
          steady_clock::now() + wait >= deadline) {
        return status;
      }
      options_.sleep(wait);
      backoff = std::min(backoff * 2, kBackoffMax);
    }
  }

  Duration Jitter(Duration backoff) {
    return Duration(static_cast<int64_t>(UniformUnit(random_) *
                                         static_cast<double>(backoff.count())));
  }

  // Runs `once` (its Attempt) until it succeeds, fails for good, is cancelled,
  // or gets nowhere for options_.stalled_max: 0.2 s x 2^n up to 30 s, full
  // jitter, and no sooner than the coordinator asks for (docs/protocol.md, rule
  // 4). Progress starts the backoff anew.
  template <typename Once>
  Status WithRetries(const KeepGoing& keep_going, const Once& once) {
    Duration backoff = kBackoffFirst;
    Duration stalled{};
    for (;;) {
      bool progress = false;
      const auto start = steady_clock::now();
      auto [status, pushback] = once(progress);
      if (status.ok() || !WorthRetrying(status)) return status;
      if (progress) {
        backoff = kBackoffFirst;
        stalled = Duration::zero();
      }
      const Duration wait = std::max(Jitter(backoff), pushback);
      stalled += wait + std::chrono::duration_cast<Duration>(
                            steady_clock::now() - start);
      if (stalled >= options_.stalled_max) return status;
      for (Duration rest = wait; rest > Duration::zero();
           rest -= kPollInterval) {
        if (keep_going && !keep_going()) return status;
        options_.sleep(std::min(rest, kPollInterval));
      }
      backoff = std::min(backoff * 2, kBackoffMax);
    }
  }

  // From the request's offset on, which moves.
  Status FetchAll(v1::FetchRequest& request, const Sink& sink,
                  const KeepGoing& keep_going) {
    Status refused;  // by the sink: nothing to try again
    SELVAGE_RETURN_IF_ERROR(WithRetries(keep_going, [&](bool& progress) {
      const uint64_t before = request.offset();
      Attempt attempt = FetchOnce(request, sink, keep_going, refused);
      progress = request.offset() > before;
      return refused.ok() ? attempt : Attempt{};
    }));
    return refused;
  }

  Attempt FetchOnce(v1::FetchRequest& request, const Sink& sink,
                    const KeepGoing& keep_going, Status& refused) {
    StreamCall call(options_.chunk_deadline, keep_going);
    Introduce(call.context());
    const auto stream =
        streams_.PrepareCall(&call.context(), kFetchMethod, &call.queue());
    stream->StartCall(call.tag());
    if (call.Wait()) {
      stream->Write(SerializeMessage(request),
                    grpc::WriteOptions().set_last_message(), call.tag());
      bool alive = call.Wait();
      while (alive) {
        grpc::ByteBuffer chunk;
        stream->Read(&chunk, call.tag());
        alive = call.Wait();
        if (!alive) break;
        refused = ReadChunk(chunk, [&](ByteSpan piece, uint64_t total) {
          SELVAGE_RETURN_IF_ERROR(sink(piece, total));
          request.set_offset(request.offset() + piece.size());
          return OkStatus();
        });
        if (!refused.ok()) {
          call.Cancel(refused);
          break;
        }
      }
    }
    return call.Finish(*stream);
  }

  Attempt UploadOnce(const UploadHeader& header, const UpdateBytes& update,
                     const KeepGoing& keep_going, ChunkSizer& sizer,
                     uint64_t& offset, Receipt& receipt) {
    StreamCall call(options_.chunk_deadline, keep_going);
    Introduce(call.context());
    const auto stream =
        streams_.PrepareCall(&call.context(), kUploadMethod, &call.queue());
    v1::UploadRequest request;
    *request.mutable_header() = ToProto(header);
    v1::UploadResponse response;
    const auto read = [&] {
      grpc::ByteBuffer message;
      stream->Read(&message, call.tag());
      if (!call.Wait()) return false;
      if (ParseMessage(message, response)) return true;
      call.Cancel(Internal("the coordinator's answer is malformed"));
      return false;
    };
    stream->StartCall(call.tag());
    bool alive = call.Wait();
    if (alive) {
      stream->Write(SerializeMessage(request), call.tag());
      alive = call.Wait() && read();
    }
    if (alive && response.has_resume()) {
      offset = response.resume().offset();
      if (offset > update.size()) {
        call.Cancel(InvalidArgument("the coordinator wants to resume at " +
                                    std::to_string(offset) + " of " +
                                    std::to_string(update.size()) + " bytes"));
        return call.Finish(*stream);
      }
      bool writing = true;
      while (writing && offset < update.size()) {
        const auto size = static_cast<size_t>(
            std::min<uint64_t>(sizer.size(), update.size() - offset));
        const Result<grpc::ByteBuffer> chunk =
            ChunkMessage(update, offset, size);
        if (!chunk.ok()) {
          call.Cancel(chunk.status());
          return call.Finish(*stream);
        }
        const auto start = steady_clock::now();
        stream->Write(*chunk, call.tag());
        writing = call.Wait();
        if (!writing) break;
        offset += size;
        sizer.Sent(
            std::chrono::duration_cast<Duration>(steady_clock::now() - start));
      }
      if (writing) {
        stream->WritesDone(call.tag());
        (void)call.Wait();
      }
      alive = read();
    }
    if (!alive || !response.has_receipt()) {
      if (alive) call.Cancel(Internal("the coordinator sent no receipt"));
      Attempt attempt = call.Finish(*stream);
      if (attempt.status.ok()) {
        attempt.status = Unavailable("the upload ended without a receipt");
      }
      return attempt;
    }
    // The receipt is the answer, whatever becomes of the stream after it.
    Result<Receipt> parsed = FromProto(response.receipt());
    if (!parsed.ok()) return {parsed.status()};
    receipt = *std::move(parsed);
    call.context().TryCancel();
    (void)call.Finish(*stream);
    return {};
  }

  const std::unique_ptr<ForkGuard> guard_;  // outlives the connection
  const std::unique_ptr<v1::DeviceService::Stub> stub_;
  grpc::GenericStub streams_;
  const std::string insecure_device_uri_;
  RandomSource& random_;
  const GrpcTransportOptions options_;
  RetryWindow asked_to_wait_;
};

bool IsLoopback(const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon);
  // 127.0.0.1, but not 127.example.org.
  const bool numeric =
      host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "[::1]" ||
         (numeric && host.starts_with("127."));
}

}  // namespace

TransportFactory GrpcTransportFactory(RandomSource& random,
                                      GrpcTransportOptions options) {
  if (!options.sleep) {
    options.sleep = [](Duration d) { std::this_thread::sleep_for(d); };
  }
  return [&random, options = std::move(options)](
             const Endpoint& endpoint) -> Result<std::unique_ptr<Transport>> {
    if (endpoint.address.empty() ||
        endpoint.address.find(':') == std::string::npos) {
      return InvalidArgument("coordinator address (" + endpoint.address +
                             ") is not HOST:PORT");
    }
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ForkGuard> guard,
                             ForkGuard::Enter());
    std::shared_ptr<grpc::ChannelCredentials> credentials;
    if (endpoint.insecure) {
      if (!IsLoopback(endpoint.address)) {
        return PermissionDenied("plaintext is for loopback only, not " +
                                endpoint.address);
      }
      credentials = grpc::InsecureChannelCredentials();
    } else {
      if (endpoint.ca_certificate.empty()) {
        return InvalidArgument("no CA certificate to trust");
      }
      credentials =
          grpc::SslCredentials({.pem_root_certs = endpoint.ca_certificate,
                                .pem_private_key = endpoint.private_key_pem,
                                .pem_cert_chain = endpoint.certificate_pem});
    }
    grpc::ChannelArguments arguments;
    // Devices hosted by one process must not share a connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // resume is ours
    // Connect again as soon as we ask again; the backoff is ours, too.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
    arguments.SetMaxReceiveMessageSize(kReceiveSizeMax);
    return std::unique_ptr<Transport>(new GrpcTransport(
        std::move(guard),
        grpc::CreateCustomChannel(endpoint.address, credentials, arguments),
        endpoint.insecure ? endpoint.device_uri : "", random, options));
  };
}

}  // namespace selvage::client
