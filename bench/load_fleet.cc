#include "bench/load_fleet.h"

#include <selvage/v1/device.grpc.pb.h>

#include <algorithm>
#include <chrono>

#include <grpcpp/create_channel.h>

#include "aggregation/codec/codec.h"
#include "base/check.h"
#include "bench/report.h"

namespace selvage::bench {
namespace {

constexpr char kFetchMethod[] = "/selvage.v1.DeviceService/Fetch";
constexpr size_t kChunkBytes = size_t{1} << 20;
// As the client library's first one, so that nobody waits for the load.
constexpr double kBackoffMinSeconds = 0.02;
constexpr double kBackoffMaxSeconds = 0.2;
constexpr auto kCallDeadline = std::chrono::seconds(60);

template <typename Message>
grpc::ByteBuffer Serialize(const Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}
template <typename Message>
bool Parse(grpc::ByteBuffer& raw, Message& message) {
  return grpc::SerializationTraits<Message>::Deserialize(&raw, &message).ok();
}

std::string NameOf(const grpc::Status& status) {
  return std::string(
      StatusCodeName(static_cast<StatusCode>(status.error_code())));
}

bool IsTransient(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::UNKNOWN:
      return true;
    default:
      return false;
  }
}

std::string BaseRequest(const std::string& population) {
  v1::CheckInRequest request;
  request.set_population(population);
  auto* const can = request.mutable_capabilities();
  can->add_engines("native:load");
  can->add_codecs("float32");
  can->add_codecs("float16");
  can->set_plan_format(1);
  return request.SerializeAsString();
}

std::string NameOf(const v1::Receipt& receipt) {
  return receipt.status() == v1::Receipt::REJECTED
             ? v1::Receipt::Reason_Name(receipt.reason())
             : v1::Receipt::Status_Name(receipt.status());
}

void Record(Figures& figures, double begun, double ended) {
  ++figures.answered;
  figures.latencies.push_back((ended - begun) * 1e3);
}

}  // namespace

struct LoadFleet::Device {
  std::shared_ptr<grpc::Channel> channel;
  std::optional<v1::Assignment> work;  // that it has no receipt for
  std::vector<std::string> unsettled;  // assignments with a receipt
  std::set<std::string> cached;        // digests
  std::string wanted;                  // the digest being fetched
};

// Something on the completion queue, whose tag it is.
class LoadFleet::Call {
 public:
  Call(size_t device, const Device& what)
      : stub_(what.channel), device_(device), begun_(WallSeconds()) {
    context_.set_deadline(std::chrono::system_clock::now() + kCallDeadline);
  }
  virtual ~Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // The next step; false: there is none, status() is known.
  virtual bool Proceed(bool ok) = 0;
  // Tells the fleet what came of it.
  virtual void End(LoadFleet& fleet) = 0;

  size_t device() const { return device_; }
  double begun() const { return begun_; }
  const grpc::Status& status() const { return status_; }

 protected:
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::Status status_;

 private:
  const size_t device_;
  const double begun_;
};

class LoadFleet::UnaryCall final : public Call {
 public:
  UnaryCall(size_t device, const Device& what, const std::string& method,
            const grpc::ByteBuffer& request, grpc::CompletionQueue& queue)
      : Call(device, what),
        reader_(stub_.PrepareUnaryCall(&context_, method, request, &queue)) {
    reader_->StartCall();
    reader_->Finish(&answer, &status_, static_cast<Call*>(this));
  }
  bool Proceed(bool) override { return false; }
  void End(LoadFleet& fleet) override { fleet.CheckedIn(device(), *this); }

  grpc::ByteBuffer answer;

 private:
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
};

class LoadFleet::FetchCall final : public Call {
 public:
  FetchCall(size_t device, const Device& what, grpc::CompletionQueue& queue)
      : Call(device, what),
        stream_(stub_.PrepareCall(&context_, kFetchMethod, &queue)) {
    v1::FetchRequest request;
    request.set_digest(what.wanted);
    request_ = Serialize(request);
    stream_->StartCall(static_cast<Call*>(this));
  }
  bool Proceed(bool ok) override {
    Call* const tag = this;
    switch (step_) {
      case Step::kStart:
        if (!ok) return Finish();
        step_ = Step::kAsk;
        stream_->Write(request_, grpc::WriteOptions().set_last_message(), tag);
        return true;
      case Step::kAsk:
        if (!ok) return Finish();
        step_ = Step::kRead;
        stream_->Read(&message_, tag);
        return true;
      case Step::kRead: {
        v1::FetchChunk chunk;
        if (!ok || !Parse(message_, chunk)) return Finish();
        bytes.insert(bytes.end(), chunk.data().begin(), chunk.data().end());
        stream_->Read(&message_, tag);
        return true;
      }
      case Step::kFinish:
        return false;
    }
    return false;
  }
  void End(LoadFleet& fleet) override { fleet.Fetched(device(), *this); }

  Bytes bytes;

 private:
  enum class Step { kStart, kAsk, kRead, kFinish };
  bool Finish() {
    step_ = Step::kFinish;
    stream_->Finish(&status_, static_cast<Call*>(this));
    return true;
  }

  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer message_;
  Step step_ = Step::kStart;
};

class LoadFleet::UploadCall final : public Call {
 public:
  UploadCall(size_t device, const Device& what, const std::string& method,
             const Update& update, grpc::CompletionQueue& queue)
      : Call(device, what),
        chunks_(update.chunks),
        stream_(stub_.PrepareCall(&context_, method, &queue)) {
    v1::UploadRequest request;
    v1::UploadHeader& header = *request.mutable_header();
    header.set_assignment_id(what.work->id());
    header.set_token(what.work->token());
    header.set_digest(ToString(update.digest.span()));
    header.set_size(update.size);
    header.set_codec(v1::FLOAT16);
    header.set_weight(1);
    header_ = Serialize(request);
    stream_->StartCall(static_cast<Call*>(this));
  }
  bool Proceed(bool ok) override {
    Call* const tag = this;
    if (!ok && step_ != Step::kFinish) return Finish();
    switch (step_) {
      case Step::kStart:
        step_ = Step::kHeader;
        stream_->Write(header_, tag);
        return true;
      case Step::kHeader:
        step_ = Step::kResume;
        stream_->Read(&message_, tag);
        return true;
      case Step::kResume:
        if (!Parse(message_, response_)) return Finish();
        if (response_.has_receipt()) return Finish();
        // Chunks are whole ones of a retry, too.
        chunk_ = response_.resume().offset() / kChunkBytes;
        step_ = Step::kChunk;
        return Send();
      case Step::kChunk:
        ++chunk_;
        return Send();
      case Step::kHalfClose:
        step_ = Step::kReceipt;
        stream_->Read(&message_, tag);
        return true;
      case Step::kReceipt:
        (void)Parse(message_, response_);
        return Finish();
      case Step::kFinish:
        return false;
    }
    return false;
  }
  void End(LoadFleet& fleet) override { fleet.Uploaded(device(), *this); }

  const v1::Receipt* receipt() const {
    return response_.has_receipt() ? &response_.receipt() : nullptr;
  }
  double sent() const { return sent_; }  // the last byte
  double answered() const { return answered_; }

 private:
  enum class Step {
    kStart,
    kHeader,
    kResume,
    kChunk,
    kHalfClose,
    kReceipt,
    kFinish
  };
  bool Send() {
    Call* const tag = this;
    if (chunk_ < chunks_.size()) {
      stream_->Write(chunks_[chunk_], tag);
      return true;
    }
    sent_ = WallSeconds();
    step_ = Step::kHalfClose;
    stream_->WritesDone(tag);
    return true;
  }
  // The receipt is the answer, whatever becomes of the stream after it.
  bool Finish() {
    answered_ = WallSeconds();
    step_ = Step::kFinish;
    if (response_.has_receipt()) context_.TryCancel();
    stream_->Finish(&status_, static_cast<Call*>(this));
    return true;
  }

  const std::vector<grpc::ByteBuffer> chunks_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer header_;
  grpc::ByteBuffer message_;
  v1::UploadResponse response_;
  Step step_ = Step::kStart;
  size_t chunk_ = 0;
  double sent_ = 0;
  double answered_ = 0;
};

LoadFleet::LoadFleet(const std::vector<FleetIdentity>& identities,
                     const FleetOptions& options)
    : options_(options), request_base_(BaseRequest(options.population)) {
  const double now = WallSeconds();
  for (const FleetIdentity& identity : identities) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    // A coordinator that restarts is what is measured, not a device's patience.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    devices_.push_back(
        {grpc::CreateCustomChannel(
             identity.address,
             grpc::SslCredentials({.pem_root_certs = identity.ca,
                                   .pem_private_key = identity.key,
                                   .pem_cert_chain = identity.certificate}),
             arguments),
         std::nullopt,
         {},
         {},
         {}});
    due_.push({now, devices_.size() - 1});
  }
  if (!options_.one_hot) update_ = MakeUpdate(0);
}

LoadFleet::~LoadFleet() {
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

LoadFleet::Update LoadFleet::MakeUpdate(size_t device) const {
  std::vector<float> values(options_.values);
  if (options_.one_hot) {
    values[device % values.size()] = 1;
  } else {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i % 1000) * 1e-6F;
    }
  }
  const size_t counts[] = {values.size()};
  const Result<Bytes> encoded =
      aggregation::Encode(plan::CodecName::kFloat16, counts, values);
  SELVAGE_CHECK(encoded.ok());
  Update update;
  update.digest = crypto::Sha256(*encoded);
  update.size = encoded->size();
  v1::UploadRequest request;
  for (size_t begin = 0; begin < encoded->size(); begin += kChunkBytes) {
    const size_t size = std::min(kChunkBytes, encoded->size() - begin);
    request.set_chunk(encoded->data() + begin, size);
    update.chunks.push_back(Serialize(request));
  }
  return update;
}

// ---------------------------------------------------------------- check-ins

Figures LoadFleet::Connect() {
  return Ask(
      0, [this](uint64_t begun, double) { return begun < devices_.size(); });
}

Figures LoadFleet::CheckIns(double rate, double seconds) {
  return Ask(rate,
             [seconds](uint64_t, double elapsed) { return elapsed < seconds; });
}

Figures LoadFleet::Ask(double rate,
                       const std::function<bool(uint64_t, double)>& goes_on) {
  const grpc::Slice slice(request_base_);
  const grpc::ByteBuffer request(&slice, 1);
  const auto in_flight = static_cast<uint64_t>(options_.in_flight);
  Figures figures;
  const double began = WallSeconds();
  uint64_t begun = 0;
  uint64_t ended = 0;
  const auto due = [&](double elapsed) {
    if (!goes_on(begun, elapsed)) return false;
    if (rate == 0) return begun - ended < in_flight;
    return static_cast<double>(begun) < rate * elapsed;
  };
  for (;;) {
    double elapsed = WallSeconds() - began;
    while (due(elapsed)) {
      const size_t device = next_++ % devices_.size();
      new UnaryCall(device, devices_[device], options_.check_in_method, request,
                    queue_);
      ++begun;
      elapsed = WallSeconds() - began;
    }
    if (begun == ended && !goes_on(begun, elapsed)) break;
    void* tag = nullptr;
    bool ok = false;
    const auto wait = std::chrono::system_clock::now() +
                      (rate > 0 ? std::chrono::microseconds(200)
                                : std::chrono::milliseconds(100));
    if (queue_.AsyncNext(&tag, &ok, wait) != grpc::CompletionQueue::GOT_EVENT) {
      continue;
    }
    const std::unique_ptr<UnaryCall> call(
        static_cast<UnaryCall*>(static_cast<Call*>(tag)));
    ++ended;
    if (!call->status().ok()) {
      ++figures.errors[NameOf(call->status())];
      continue;
    }
    figures.answer_bytes = call->answer.Length();
    Record(figures, call->begun(), WallSeconds());
  }
  figures.seconds = WallSeconds() - began;
  figures.Sort();
  return figures;
}

// ------------------------------------------------------------------- rounds

double LoadFleet::Run(const std::function<bool()>& done, size_t devices) {
  if (devices == 0) devices = devices_.size();
  // Who is still to wait is parked again.
  for (const size_t device : parked_) due_.push({0, device});
  parked_.clear();
  const double began = WallSeconds();
  std::vector<Due> aside;  // of those who do not take part
  bool going = true;
  for (;;) {
    going = going && !done();
    double now = WallSeconds();
    while (going && !due_.empty() && due_.top().first <= now &&
           flying_ < static_cast<size_t>(options_.in_flight)) {
      const Due next = due_.top();
      due_.pop();
      if (next.second >= devices) {
        aside.push_back(next);
      } else {
        Begin(next.second);
      }
      now = WallSeconds();
    }
    if (!going && flying_ == 0) break;
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(
            &tag, &ok,
            std::chrono::system_clock::now() + std::chrono::milliseconds(1)) !=
        grpc::CompletionQueue::GOT_EVENT) {
      continue;
    }
    Call* const call = static_cast<Call*>(tag);
    if (call->Proceed(ok)) continue;
    const std::unique_ptr<Call> ended(call);
    --flying_;
    ended->End(*this);
  }
  for (const Due& device : aside) due_.push(device);
  return WallSeconds() - began;
}

void LoadFleet::Hurry() {
  std::vector<size_t> all;
  for (; !due_.empty(); due_.pop()) all.push_back(due_.top().second);
  for (const size_t device : all) due_.push({0, device});
}

LoadFleet::Totals LoadFleet::Take(double seconds) {
  Totals totals = std::move(totals_);
  totals_ = {};
  for (Figures* const figures :
       {&totals.assigned, &totals.idle, &totals.fetched, &totals.uploaded,
        &totals.acknowledged}) {
    figures->seconds = seconds;
    figures->Sort();
  }
  return totals;
}

void LoadFleet::Later(size_t device, double seconds) {
  due_.push({WallSeconds() + seconds, device});
}

double LoadFleet::Within(uint64_t min_ms, uint64_t max_ms) {
  const auto least = static_cast<double>(min_ms);
  const auto most = static_cast<double>(std::max(min_ms, max_ms));
  return (least + UniformUnit(random_) * (most - least)) / 1e3;
}

grpc::ByteBuffer LoadFleet::CheckInRequestOf(const Device& device) const {
  v1::CheckInRequest history;
  const size_t count = std::min<size_t>(device.unsettled.size(), 16);
  for (size_t i = device.unsettled.size() - count; i < device.unsettled.size();
       ++i) {
    history.add_unsettled_assignments(device.unsettled[i]);
  }
  // Serialised messages one after another are one message of both.
  const grpc::Slice slice(request_base_ + history.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

void LoadFleet::Begin(size_t index) {
  Device& device = devices_[index];
  if (!device.work.has_value()) {
    if (hold_check_ins_) {
      parked_.push_back(index);
      return;
    }
    ++flying_;
    new UnaryCall(index, device, options_.check_in_method,
                  CheckInRequestOf(device), queue_);
    return;
  }
  if (hold_) {
    parked_.push_back(index);
    return;
  }
  if (options_.fetch) {
    for (const std::string& digest :
         {device.work->plan_digest(), device.work->checkpoint_digest()}) {
      if (device.cached.contains(digest)) continue;
      device.wanted = digest;
      ++flying_;
      new FetchCall(index, device, queue_);
      return;
    }
  }
  ++flying_;
  new UploadCall(index, device, options_.upload_method,
                 options_.one_hot ? MakeUpdate(index) : update_, queue_);
}

// True: it is dealt with.
bool LoadFleet::Failed(size_t index, const grpc::Status& status,
                       Figures& figures) {
  if (status.ok()) return false;
  ++figures.errors[NameOf(status)];
  Device& device = devices_[index];
  if (!IsTransient(status) && device.work.has_value()) {
    device.work.reset();
    --holding_;
  }
  Later(index, Within(static_cast<uint64_t>(kBackoffMinSeconds * 1e3),
                      static_cast<uint64_t>(kBackoffMaxSeconds * 1e3)));
  return true;
}

void LoadFleet::CheckedIn(size_t index, UnaryCall& call) {
  if (Failed(index, call.status(), totals_.idle)) return;
  const double now = WallSeconds();
  const size_t size = call.answer.Length();
  Device& device = devices_[index];
  v1::CheckInResponse response;
  if (!Parse(call.answer, response)) {
    ++totals_.idle.errors["not understood"];
    Later(index, 1);
    return;
  }
  for (const v1::AssignmentOutcome& outcome : response.outcomes()) {
    if (outcome.state() == v1::AssignmentOutcome::PENDING) continue;
    ++totals_.outcomes[v1::AssignmentOutcome::State_Name(outcome.state())];
    std::erase(device.unsettled, outcome.assignment_id());
  }
  Figures& figures =
      response.has_assignment() ? totals_.assigned : totals_.idle;
  figures.answer_bytes = size;
  Record(figures, call.begun(), now);
  if (response.has_assignment()) {
    device.work = std::move(*response.mutable_assignment());
    ++holding_;
    Later(index, 0);
  } else {
    const v1::RetryWindow& retry = response.retry();
    Later(index, Within(retry.min_ms(), retry.max_ms()));
  }
}

void LoadFleet::Fetched(size_t index, FetchCall& call) {
  if (Failed(index, call.status(), totals_.fetched)) return;
  Device& device = devices_[index];
  if (ToString(crypto::Sha256(call.bytes).span()) != device.wanted) {
    ++totals_.fetched.errors["digest"];
    Later(index, 1);
    return;
  }
  Record(totals_.fetched, call.begun(), WallSeconds());
  if (device.cached.size() > 16) device.cached.clear();
  device.cached.insert(device.wanted);
  if (device.wanted == device.work->checkpoint_digest() &&
      device.work->base_version() >= checkpoint_version_) {
    checkpoint_version_ = device.work->base_version();
    checkpoint_ = std::move(call.bytes);
  }
  Later(index, 0);
}

void LoadFleet::Uploaded(size_t index, UploadCall& call) {
  const v1::Receipt* const receipt = call.receipt();
  if (receipt == nullptr) {
    const grpc::Status none(grpc::StatusCode::UNAVAILABLE, "no receipt");
    (void)Failed(index, call.status().ok() ? none : call.status(),
                 totals_.uploaded);
    return;
  }
  Device& device = devices_[index];
  Record(totals_.uploaded, call.begun(), call.answered());
  if (call.sent() > 0) {
    Record(totals_.acknowledged, call.sent(), call.answered());
  }
  ++totals_.receipts[NameOf(*receipt)];
  if (receipt->status() == v1::Receipt::ACCEPTED) {
    last_accepted_ = call.answered();
    device.unsettled.push_back(device.work->id());
  }
  device.work.reset();
  --holding_;
  Later(index, Within(receipt->retry().min_ms(), receipt->retry().max_ms()));
}

}  // namespace selvage::bench
