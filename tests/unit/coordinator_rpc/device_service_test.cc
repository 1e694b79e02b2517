#include "coordinator/rpc/device_service.h"

#include <set>

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "coordinator/rpc/convert.h"
#include "tests/unit/coordinator_rpc/harness.h"

namespace selvage::coordinator::test {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Every call ends by itself; this keeps a broken test from hanging.
void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(20));
}

v1::CheckInRequest CheckInAs(const std::string& population) {
  v1::CheckInRequest request;
  request.set_population(population);
  return request;
}

grpc::Status CheckIn(v1::DeviceService::Stub& stub) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::CheckInResponse response;
  return stub.CheckIn(&context, CheckInAs("demo"), &response);
}

v1::UploadRequest Header(uint64_t size) {
  v1::UploadRequest request;
  v1::UploadHeader& header = *request.mutable_header();
  header.set_assignment_id("as-1");
  header.set_token("token");
  header.set_digest(std::string(32, 'd'));
  header.set_size(size);
  header.set_codec(v1::FLOAT32);
  header.set_weight(1);
  return request;
}

v1::UploadRequest Chunk(const std::string& bytes) {
  v1::UploadRequest request;
  request.set_chunk(bytes);
  return request;
}

class DeviceServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    harness.Start();
    credential = harness.Device("phone-1");
    stub = harness.DeviceStub(credential);
  }

  // A stream that has said `first` already.
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<
        grpc::ClientReaderWriter<v1::UploadRequest, v1::UploadResponse>>
        rpc;
    v1::UploadResponse response;
  };
  std::unique_ptr<Stream> Open(const v1::UploadRequest& first) {
    auto stream = std::make_unique<Stream>();
    SetDeadline(stream->context);
    stream->rpc = stub->Upload(&stream->context);
    stream->rpc->Write(first);
    return stream;
  }

  Harness harness;
  Credential credential;
  std::unique_ptr<v1::DeviceService::Stub> stub;
};

// What a method answers to an empty message, whatever its kind.
grpc::Status CallWithEmptyMessage(const std::shared_ptr<grpc::Channel>& channel,
                                  const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  SetDeadline(context);
  auto call = stub.PrepareCall(&context, method, &queue);
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    return ok;
  };
  call->StartCall(nullptr);
  if (wait()) {
    call->WriteLast(EmptyMessage(), grpc::WriteOptions(), nullptr);
    wait();
  }
  grpc::ByteBuffer buffer;
  bool more = true;
  while (more) {
    call->Read(&buffer, nullptr);
    more = wait();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  return status;
}

TEST_F(DeviceServiceTest, EveryMethodButEnroll_RefusesWithoutCertificate) {
  const auto channel =
      harness.Channel(harness.server->device_port(), std::nullopt);
  const google::protobuf::ServiceDescriptor* service =
      v1::CheckInRequest::descriptor()->file()->FindServiceByName(
          "DeviceService");
  ASSERT_NE(service, nullptr);
  ASSERT_GE(service->method_count(), 6);
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* method = service->method(i);
    const grpc::Status status = CallWithEmptyMessage(
        channel, "/" + service->full_name() + "/" + method->name());
    if (method->name() == "Enroll") {
      // It looks at its arguments.
      EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    } else {
      EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED)
          << method->name() << ": " << status.error_message();
    }
  }
}

TEST_F(DeviceServiceTest, EveryMethod_IsThereWithCertificate) {
  const auto channel =
      harness.Channel(harness.server->device_port(), credential);
  const google::protobuf::ServiceDescriptor* service =
      v1::CheckInRequest::descriptor()->file()->FindServiceByName(
          "DeviceService");
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* method = service->method(i);
    const grpc::Status status = CallWithEmptyMessage(
        channel, "/" + service->full_name() + "/" + method->name());
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT)
        << method->name() << ": " << status.error_message();
  }
}

TEST_F(DeviceServiceTest, HealthAndReflection_AreNotOnTheDevicePort) {
  const auto channel =
      harness.Channel(harness.server->device_port(), credential);
  for (const char* method :
       {"/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
    EXPECT_EQ(CallWithEmptyMessage(channel, method).error_code(),
              StatusCode::UNIMPLEMENTED);
  }
}

TEST_F(DeviceServiceTest, CheckIn_IdentityComesFromTheCertificate) {
  harness.devices.check_in_answer->retry = {std::chrono::seconds(3),
                                            std::chrono::seconds(4)};
  grpc::ClientContext context;
  SetDeadline(context);
  v1::CheckInResponse response;
  const grpc::Status status =
      stub->CheckIn(&context, CheckInAs("demo"), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.retry().min_ms(), 3000U);
  EXPECT_EQ(harness.devices.last_device, (DeviceIdentity{"demo", "phone-1"}));
  EXPECT_EQ(harness.server->verified_connections(), 1U);
}

TEST_F(DeviceServiceTest, CheckIn_ServiceRefuses_CodeTextAndRetryWindow) {
  harness.devices.check_in_answer = Unavailable("draining");
  grpc::ClientContext context;
  SetDeadline(context);
  v1::CheckInResponse response;
  const grpc::Status status =
      stub->CheckIn(&context, CheckInAs("demo"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "draining");
  const auto& trailers = context.GetServerTrailingMetadata();
  ASSERT_EQ(trailers.count(kRetryMinKey), 1U);
  EXPECT_EQ(trailers.find(kRetryMinKey)->second, "2000");
  EXPECT_EQ(trailers.find(kRetryMaxKey)->second, "10000");
}

TEST_F(DeviceServiceTest, CertificateExpiresOnAnOpenConnection_IsRefused) {
  ASSERT_TRUE(CheckIn(*stub).ok());
  harness.clock.Advance(std::chrono::hours(2));
  const grpc::Status status = CheckIn(*stub);
  EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(status.error_message(), HasSubstr("not valid now"));
}

TEST_F(DeviceServiceTest, Enroll_WithoutCertificate_IsAnswered) {
  auto stranger = harness.DeviceStub(std::nullopt);
  v1::EnrollRequest request;
  request.set_token_id("tok");
  request.set_token_secret(std::string(32, 's'));
  request.set_csr_pem("PEM");
  {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::EnrollResponse response;
    const grpc::Status status = stranger->Enroll(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.device_id(), "phone-1");
    EXPECT_EQ(response.plan_public_keys(0).size(), 32U);
    EXPECT_FALSE(harness.devices.last_current.has_value());
  }
  {
    // No token is a renewal, and a renewal needs the old certificate.
    request.clear_token_id();
    request.clear_token_secret();
    grpc::ClientContext context;
    SetDeadline(context);
    v1::EnrollResponse response;
    EXPECT_EQ(stranger->Enroll(&context, request, &response).error_code(),
              StatusCode::UNAUTHENTICATED);
  }
  {
    // Unless it is signed with an identity key.
    v1::EnrollRequest question;
    question.set_population("demo");
    question.set_identity_public_key(std::string(91, 'k'));
    grpc::ClientContext context;
    SetDeadline(context);
    v1::EnrollResponse response;
    EXPECT_TRUE(stranger->Enroll(&context, question, &response).ok());
    EXPECT_FALSE(harness.devices.last_current.has_value());
  }
  {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::EnrollResponse response;
    EXPECT_TRUE(stub->Enroll(&context, request, &response).ok());
    ASSERT_TRUE(harness.devices.last_current.has_value());
    EXPECT_EQ(harness.devices.last_current->device_id, "phone-1");
  }
}

TEST_F(DeviceServiceTest, OversizedMessage_IsRefused) {
  v1::CheckInRequest request = CheckInAs("demo");
  request.add_unsettled_assignments(std::string(3 << 20, 'x'));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::CheckInResponse response;
  EXPECT_EQ(stub->CheckIn(&context, request, &response).error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(CheckIn(*stub).ok());
}

// ------------------------------------------------------------------- Fetch

class FetchTest : public DeviceServiceTest {
 protected:
  void SetUp() override {
    harness.options.device.fetch_chunk_size = 1000;
    DeviceServiceTest::SetUp();
    for (int i = 0; i < 2500; ++i) {
      artefact.push_back(static_cast<uint8_t>(i * 7));
    }
    harness.devices.SetArtefact(artefact);
  }

  grpc::Status Fetch(const crypto::Digest& digest, uint64_t offset) {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::FetchRequest request;
    request.set_digest(ToString(digest.span()));
    request.set_offset(offset);
    auto reader = stub->Fetch(&context, request);
    got.clear();
    sizes.clear();
    for (v1::FetchChunk chunk; reader->Read(&chunk);) {
      EXPECT_EQ(chunk.total_size(), artefact.size());
      sizes.push_back(chunk.data().size());
      AppendBytes(got, AsBytes(chunk.data()));
    }
    return reader->Finish();
  }

  Bytes artefact;
  Bytes got;
  std::vector<size_t> sizes;
};

TEST_F(FetchTest, Whole_ArrivesInChunks) {
  ASSERT_TRUE(Fetch(crypto::Sha256(artefact), 0).ok());
  EXPECT_EQ(got, artefact);
  EXPECT_THAT(sizes, ElementsAre(1000, 1000, 500));
}

TEST_F(FetchTest, FromAnOffset_ArrivesFromThere) {
  ASSERT_TRUE(Fetch(crypto::Sha256(artefact), 2400).ok());
  EXPECT_EQ(got, Bytes(artefact.begin() + 2400, artefact.end()));
}

TEST_F(FetchTest, AtTheEnd_TellsTheSizeAndNothingElse) {
  ASSERT_TRUE(Fetch(crypto::Sha256(artefact), 2500).ok());
  EXPECT_THAT(got, IsEmpty());
  EXPECT_THAT(sizes, ElementsAre(0));
}

TEST_F(FetchTest, BeyondTheEnd_IsOutOfRange) {
  const grpc::Status status = Fetch(crypto::Sha256(artefact), 2501);
  EXPECT_EQ(status.error_code(), StatusCode::OUT_OF_RANGE);
  EXPECT_THAT(status.error_message(), HasSubstr("2501"));
}

TEST_F(FetchTest, WithABase_ADeltaArrives) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::FetchRequest request;
  request.set_digest(ToString(crypto::Sha256(artefact).span()));
  request.set_base(std::string(32, 'b'));
  request.set_codec(v1::FLOAT32);
  request.set_offset(3);
  auto reader = stub->Fetch(&context, request);
  for (v1::FetchChunk chunk; reader->Read(&chunk);) {
    EXPECT_EQ(chunk.total_size(), 7 + 32 + artefact.size());
    AppendBytes(got, AsBytes(chunk.data()));
  }
  EXPECT_TRUE(reader->Finish().ok());
  Bytes wanted = ToBytes("at32" + std::string(32, 'b'));
  AppendBytes(wanted, artefact);
  EXPECT_EQ(got, wanted);
}

TEST_F(FetchTest, BaseThatIsNoDigestOrNoCodec_IsInvalid) {
  for (const bool bad_base : {true, false}) {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::FetchRequest request;
    request.set_digest(ToString(crypto::Sha256(artefact).span()));
    request.set_base(std::string(bad_base ? 31 : 32, 'b'));
    if (bad_base) request.set_codec(v1::FLOAT16);
    auto reader = stub->Fetch(&context, request);
    v1::FetchChunk chunk;
    EXPECT_FALSE(reader->Read(&chunk));
    const grpc::Status status = reader->Finish();
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(bad_base ? "base" : "codec"));
  }
}

TEST_F(FetchTest, UnknownDigest_IsNotFound) {
  EXPECT_EQ(Fetch(crypto::Sha256(AsBytes("x")), 0).error_code(),
            StatusCode::NOT_FOUND);
}

// ------------------------------------------------------------------ Upload

TEST_F(DeviceServiceTest, Upload_Whole_GetsTheReceipt) {
  auto stream = Open(Header(6));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.resume().offset(), 0U);
  stream->rpc->Write(Chunk("abc"));
  stream->rpc->Write(Chunk("def"));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.receipt().status(), v1::Receipt::ACCEPTED);
  EXPECT_EQ(stream->response.receipt().retry().max_ms(), 2000U);
  EXPECT_TRUE(stream->rpc->Finish().ok());
  EXPECT_EQ(harness.devices.Staged(), ToBytes("abcdef"));
  EXPECT_THAT(harness.devices.Dropped(), IsEmpty());
}

TEST_F(DeviceServiceTest, Upload_KnownBeforeAByte_GetsTheReceiptAtOnce) {
  harness.devices.early_receipt =
      Receipt{ReceiptStatus::kRejected, RejectReason::kConflict, "other", {}};
  auto stream = Open(Header(6));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.receipt().reason(), v1::Receipt::CONFLICT);
  EXPECT_EQ(stream->response.receipt().message(), "other");
  EXPECT_TRUE(stream->rpc->Finish().ok());
}

TEST_F(DeviceServiceTest, Upload_BrokenStream_ResumesWhereItBroke) {
  {
    auto stream = Open(Header(6));
    ASSERT_TRUE(stream->rpc->Read(&stream->response));
    stream->rpc->Write(Chunk("abcd"));
    stream->rpc->WritesDone();
    const grpc::Status status = stream->rpc->Finish();
    EXPECT_EQ(status.error_code(), StatusCode::ABORTED);
    EXPECT_THAT(status.error_message(), HasSubstr("4 of 6"));
  }
  EXPECT_THAT(harness.devices.Dropped(), ElementsAre(1));
  auto stream = Open(Header(6));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.resume().offset(), 4U);
  stream->rpc->Write(Chunk("ef"));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.receipt().status(), v1::Receipt::ACCEPTED);
  EXPECT_EQ(harness.devices.Staged(), ToBytes("abcdef"));
}

TEST_F(DeviceServiceTest, Upload_EverythingStagedBefore_IsFinishedAtOnce) {
  harness.devices.staged = ToBytes("abcdef");
  auto stream = Open(Header(6));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.resume().offset(), 6U);
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.receipt().status(), v1::Receipt::ACCEPTED);
  EXPECT_TRUE(stream->rpc->Finish().ok());
}

TEST_F(DeviceServiceTest, Upload_Evaluation_IsItsHeader) {
  v1::UploadRequest request = Header(0);
  v1::MetricValue& metric = *request.mutable_header()->add_metrics();
  metric.set_numerator(1 << 20);
  metric.set_count(2);
  auto stream = Open(request);
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.resume().offset(), 0U);
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->response.receipt().status(), v1::Receipt::ACCEPTED);
  EXPECT_TRUE(stream->rpc->Finish().ok());
  EXPECT_THAT(harness.devices.Staged(), IsEmpty());
}

TEST_F(DeviceServiceTest, Upload_CancelledByTheDevice_IsDropped) {
  auto stream = Open(Header(6));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  stream->context.TryCancel();
  EXPECT_EQ(stream->rpc->Finish().error_code(), StatusCode::CANCELLED);
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_THAT(harness.devices.Dropped(), ElementsAre(1));
}

TEST_F(DeviceServiceTest, Upload_LongerThanAnnounced_IsOutOfRange) {
  auto stream = Open(Header(6));
  stream->rpc->Write(Chunk("abcdefg"));
  while (stream->rpc->Read(&stream->response)) {
  }
  const grpc::Status status = stream->rpc->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::OUT_OF_RANGE);
  EXPECT_THAT(status.error_message(), HasSubstr("announced 6"));
  EXPECT_THAT(harness.devices.Dropped(), ElementsAre(1));
  EXPECT_THAT(harness.devices.Staged(), IsEmpty());
}

TEST_F(DeviceServiceTest, Upload_MalformedOrder_IsRefused) {
  const auto ends_with = [this](const std::vector<v1::UploadRequest>& messages,
                                StatusCode code, const std::string& text) {
    auto stream = Open(messages.front());
    for (size_t i = 1; i < messages.size(); ++i) {
      stream->rpc->Write(messages[i]);
    }
    stream->rpc->WritesDone();
    while (stream->rpc->Read(&stream->response)) {
    }
    const grpc::Status status = stream->rpc->Finish();
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  };
  ends_with({Chunk("abc")}, StatusCode::INVALID_ARGUMENT, "header");
  ends_with({v1::UploadRequest()}, StatusCode::INVALID_ARGUMENT, "header");
  ends_with({Header(6), Header(6)}, StatusCode::INVALID_ARGUMENT, "one header");
  ends_with({Header(6), v1::UploadRequest()}, StatusCode::INVALID_ARGUMENT,
            "chunk has 0");
  ends_with({Header(4 << 20), Chunk(std::string(kChunkSizeMax + 1, 'x'))},
            StatusCode::INVALID_ARGUMENT, "chunk has");
  v1::UploadRequest unspecified = Header(6);
  unspecified.mutable_header()->set_codec(v1::CODEC_UNSPECIFIED);
  ends_with({unspecified}, StatusCode::INVALID_ARGUMENT, "codec 0");
}

TEST_F(DeviceServiceTest, Upload_ServiceRefuses_CodeArrives) {
  harness.devices.begin_status = ResourceExhausted("too many bytes in flight");
  auto stream = Open(Header(6));
  EXPECT_FALSE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->rpc->Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(stream->context.GetServerTrailingMetadata().count(kRetryMinKey),
            1U);

  harness.devices.begin_status = OkStatus();
  harness.devices.finish_receipt = Unavailable("not durable");
  stream = Open(Header(3));
  ASSERT_TRUE(stream->rpc->Read(&stream->response));
  stream->rpc->Write(Chunk("abc"));
  EXPECT_FALSE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->rpc->Finish().error_code(), StatusCode::UNAVAILABLE);
}

class SlowUploads final : public Telemetry {
 public:
  void RateLimited(RateLimit scope) override {
    if (scope == RateLimit::kSlowUpload) ++count;
  }
  std::atomic<int> count{0};
};

TEST(DeviceServiceTimeoutTest, SilentUpload_IsEndedInWordsAndDropped) {
  Harness harness;
  SlowUploads slow;
  harness.options.telemetry = &slow;
  harness.options.device.chunk_timeout = std::chrono::milliseconds(50);
  harness.Start();
  auto stub = harness.DeviceStub(harness.Device("phone-1"));
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = stub->Upload(&context);
  stream->Write(Header(6));
  v1::UploadResponse response;
  ASSERT_TRUE(stream->Read(&response));
  // Says nothing more; the server ends it.
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("0 bytes came in 0.05"));
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_THAT(harness.devices.Dropped(), ElementsAre(1));
  EXPECT_EQ(slow.count, 1);
}

// Before there is anything to drop.
TEST(DeviceServiceTimeoutTest, StreamWithoutAHeader_IsEnded) {
  Harness harness;
  harness.options.device.chunk_timeout = std::chrono::milliseconds(50);
  harness.Start();
  auto stub = harness.DeviceStub(harness.Device("phone-1"));
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = stub->Upload(&context);
  v1::UploadResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_THAT(harness.devices.Dropped(), ::testing::IsEmpty());
}

TEST(DeviceServiceTimeoutTest, UploadThatTrickles_IsEndedInWordsAndDropped) {
  Harness harness;
  SlowUploads slow;
  harness.options.telemetry = &slow;
  harness.options.device.chunk_timeout = std::chrono::milliseconds(200);
  harness.options.device.upload_rate_min = 1 << 20;
  harness.Start();
  auto stub = harness.DeviceStub(harness.Device("phone-1"));
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = stub->Upload(&context);
  stream->Write(Header(1 << 20));
  v1::UploadResponse response;
  ASSERT_TRUE(stream->Read(&response));
  // Never silent for a whole period, and never fast enough.
  while (stream->Write(Chunk("x"))) {
  }
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(),
              HasSubstr("expected are at least 209715"));
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_THAT(harness.devices.Dropped(), ElementsAre(1));
  EXPECT_EQ(slow.count, 1);
}

// Whatever it brings, it does not stay for ever.
TEST(DeviceServiceTimeoutTest, UploadThatNeverEnds_IsEndedAfterItsPeriods) {
  Harness harness;
  harness.options.device.chunk_timeout = std::chrono::milliseconds(100);
  harness.options.device.chunk_timeouts_max = 2;
  harness.options.device.upload_rate_min = 1;
  harness.Start();
  auto stub = harness.DeviceStub(harness.Device("phone-1"));
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = stub->Upload(&context);
  stream->Write(Header(uint64_t{1} << 30));
  v1::UploadResponse response;
  ASSERT_TRUE(stream->Read(&response));
  while (stream->Write(Chunk("x"))) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("still open after 0.2"));
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_THAT(harness.devices.Dropped(), ElementsAre(1));
}

TEST(DeviceServiceTimeoutTest, CheckInNobodyAnswers_EndsWithItsTime) {
  Harness harness;
  harness.options.device.call_timeout = std::chrono::milliseconds(50);
  harness.devices.hold_check_ins = true;
  harness.Start();
  auto stub = harness.DeviceStub(harness.Device("phone-1"));
  const grpc::Status status = CheckIn(*stub);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("the check-in waited"));
  // The answer that comes after all touches nothing.
  harness.devices.AnswerHeld();
}

// ------------------------------------------------------- what calls leave
// behind

std::string Trailing(const grpc::ClientContext& context, const char* key) {
  const auto& all = context.GetServerTrailingMetadata();
  const auto it = all.find(key);
  return it == all.end() ? ""
                         : std::string(it->second.data(), it->second.size());
}

TEST_F(DeviceServiceTest, EveryCall_HasATraceIdThatTheLogKnows) {
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    SetDeadline(context);
    // What a device claims is not believed.
    context.AddMetadata(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    v1::CheckInResponse response;
    ASSERT_TRUE(stub->CheckIn(&context, CheckInAs("demo"), &response).ok());
    const std::string id = Trailing(context, kTraceIdKey);
    EXPECT_THAT(id, ::testing::MatchesRegex("[0-9a-f]{32}"));
    EXPECT_TRUE(ids.insert(id).second);
    EXPECT_THAT(harness.log.text(), HasSubstr("trace_id=" + id));
    EXPECT_EQ(Trailing(context, kPushbackKey), "");
  }
  EXPECT_THAT(harness.log.text(),
              HasSubstr("DEBUG device_call method=CheckIn population=demo "
                        "device=phone-1 trace_id="));
  EXPECT_THAT(harness.log.text(), HasSubstr("code=OK dur_ms="));
  EXPECT_EQ(harness.log.text().find("0af7651916cd43dd8448eb211c80319c"),
            std::string::npos);
}

TEST_F(DeviceServiceTest, Refusals_AreLogged_AndPushBackInsideTheWindow) {
  harness.devices.begin_status = Unavailable("no room");
  std::set<std::string> moments;
  for (int i = 0; i < 4; ++i) {
    auto stream = Open(Header(3));
    EXPECT_FALSE(stream->rpc->Read(&stream->response));
    EXPECT_EQ(stream->rpc->Finish().error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(Trailing(stream->context, kRetryMinKey), "2000");
    EXPECT_EQ(Trailing(stream->context, kRetryMaxKey), "10000");
    const std::string pushback = Trailing(stream->context, kPushbackKey);
    ASSERT_FALSE(pushback.empty());
    EXPECT_GE(std::stol(pushback), 2000);
    EXPECT_LE(std::stol(pushback), 10'000);
    moments.insert(pushback);
    EXPECT_THAT(harness.log.text(),
                HasSubstr(Trailing(stream->context, kTraceIdKey)));
  }
  EXPECT_EQ(moments.size(), 4u);
  EXPECT_THAT(harness.log.text(), HasSubstr("method=Upload population=demo"));
  EXPECT_THAT(harness.log.text(), HasSubstr("code=UNAVAILABLE dur_ms="));
}

TEST_F(DeviceServiceTest, FaultOfOurs_IsAWarning_WithoutTheDevice) {
  harness.devices.begin_status = Internal("the disk is gone");
  auto stream = Open(Header(3));
  EXPECT_FALSE(stream->rpc->Read(&stream->response));
  EXPECT_EQ(stream->rpc->Finish().error_code(), StatusCode::INTERNAL);
  EXPECT_THAT(harness.log.text(),
              HasSubstr("WARNING device_call method=Upload trace_id="));
  EXPECT_EQ(harness.log.text().find("phone-1"), std::string::npos);
}

// ------------------------------------------------------ Abandon and Report

TEST_F(DeviceServiceTest, Abandon_EveryFieldArrives) {
  v1::AbandonRequest request;
  request.set_assignment_id("as-1");
  request.set_token("tok");
  request.set_reason(v1::AbandonRequest::INTERRUPTED);
  request.set_message("no charger");
  grpc::ClientContext context;
  SetDeadline(context);
  v1::AbandonResponse response;
  ASSERT_TRUE(stub->Abandon(&context, request, &response).ok());
  EXPECT_EQ(response.retry().min_ms(), 60'000U);
  EXPECT_EQ(harness.devices.abandoned, "as-1|tok|INTERRUPTED|no charger");
}

TEST_F(DeviceServiceTest, Report_EveryCounterArrives) {
  v1::ReportRequest request;
  request.set_report_id("r-1");
  v1::ReportRequest::Counter& counter = *request.add_counters();
  counter.set_name("session.ok");
  counter.set_value(3);
  grpc::ClientContext context;
  SetDeadline(context);
  v1::ReportResponse response;
  ASSERT_TRUE(stub->Report(&context, request, &response).ok());
  EXPECT_EQ(harness.devices.reports["r-1"]["session.ok"], 3U);
}

}  // namespace
}  // namespace selvage::coordinator::test
