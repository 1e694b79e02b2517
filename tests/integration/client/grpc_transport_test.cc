// GrpcTransport against a real gRPC server with mTLS on loopback: resume of
// broken streams, silence, cancellation, and every wrong certificate.
#include "client/rpc/grpc_transport.h"

#include <selvage/v1/device.grpc.pb.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "client/rpc/chunk_sizer.h"
#include "crypto/x509.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Transport::KeepGoing Always() {
  return [] { return true; };
}

// What the service does is set by each test.
class FakeDeviceService final : public v1::DeviceService::Service {
 public:
  std::function<grpc::Status(const v1::CheckInRequest&, v1::CheckInResponse*)>
      on_check_in;
  std::vector<std::pair<std::string, std::string>> check_in_trailers;
  std::function<grpc::Status(const v1::FetchRequest&,
                             grpc::ServerWriter<v1::FetchChunk>*,
                             grpc::ServerContext*)>
      on_fetch;
  using UploadStream =
      grpc::ServerReaderWriter<v1::UploadResponse, v1::UploadRequest>;
  std::function<grpc::Status(UploadStream*, grpc::ServerContext*)> on_upload;

  std::mutex mu;
  std::set<std::string> peers;
  std::string device_uri;  // of the certificate, or the insecure metadata
  std::vector<v1::AbandonRequest> abandoned;
  int check_ins = 0;

  grpc::Status Enroll(grpc::ServerContext* context, const v1::EnrollRequest*,
                      v1::EnrollResponse* response) override {
    Remember(context);
    response->set_certificate_pem("pem");
    response->set_device_id("dev-1");
    response->set_population("demo");
    response->add_plan_public_keys(std::string(32, 'k'));
    return grpc::Status::OK;
  }
  grpc::Status CheckIn(grpc::ServerContext* context,
                       const v1::CheckInRequest* request,
                       v1::CheckInResponse* response) override {
    Remember(context);
    {
      const std::lock_guard lock(mu);
      ++check_ins;
    }
    for (const auto& [key, value] : check_in_trailers) {
      context->AddTrailingMetadata(key, value);
    }
    return on_check_in ? on_check_in(*request, response) : grpc::Status::OK;
  }
  grpc::Status Fetch(grpc::ServerContext* context,
                     const v1::FetchRequest* request,
                     grpc::ServerWriter<v1::FetchChunk>* writer) override {
    Remember(context);
    return on_fetch(*request, writer, context);
  }
  grpc::Status Upload(grpc::ServerContext* context,
                      UploadStream* stream) override {
    Remember(context);
    return on_upload(stream, context);
  }
  grpc::Status Report(grpc::ServerContext*, const v1::ReportRequest*,
                      v1::ReportResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status Abandon(grpc::ServerContext*, const v1::AbandonRequest* request,
                       v1::AbandonResponse* response) override {
    const std::lock_guard lock(mu);
    abandoned.push_back(*request);
    response->mutable_retry()->set_min_ms(5);
    response->mutable_retry()->set_max_ms(7);
    return grpc::Status::OK;
  }

 private:
  void Remember(grpc::ServerContext* context) {
    const std::lock_guard lock(mu);
    peers.insert(context->peer());
    const auto uris = context->auth_context()->FindPropertyValues("peer_uri");
    if (!uris.empty()) device_uri.assign(uris[0].data(), uris[0].size());
    const auto it = context->client_metadata().find("selvage-insecure-device");
    if (it != context->client_metadata().end()) {
      device_uri.assign(it->second.data(), it->second.size());
    }
  }
};

crypto::CertificateAuthority MakeAuthority(const std::string& name, Time now) {
  OsRandom random;
  return *crypto::CertificateAuthority::Create(name, now, hours(24 * 365 * 5),
                                               random);
}

class GrpcTransportTest : public ::testing::Test {
 protected:
  ~GrpcTransportTest() override {
    if (server_ != nullptr) {
      // Handlers wait for cancellation; nothing else holds them up.
      server_->Shutdown(std::chrono::system_clock::now());
    }
  }

  void Serve(bool insecure = false) {
    std::shared_ptr<grpc::ServerCredentials> credentials =
        grpc::InsecureServerCredentials();
    if (!insecure) {
      const crypto::PrivateKeyPem key = *crypto::NewP256Key();
      grpc::SslServerCredentialsOptions options(
          GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
      options.pem_root_certs = authority_.certificate_pem();
      options.pem_key_cert_pairs.push_back(
          {.private_key = std::string(key.ExposeSecret()),
           .cert_chain = *authority_.IssueServer(
               key, {"localhost", "127.0.0.1"}, now_, hours(24), random_)});
      credentials = grpc::SslServerCredentials(options);
    }
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }

  Endpoint Device(const crypto::CertificateAuthority& issuer, Time issued,
                  Duration lifetime) {
    const crypto::PrivateKeyPem key = *crypto::NewP256Key();
    Endpoint endpoint = Anonymous();
    endpoint.private_key_pem = key.ExposeSecret();
    endpoint.certificate_pem =
        *issuer.IssueDevice(*crypto::NewCertificateRequest(key, ""), "demo",
                            "dev-1", issued, lifetime, random_);
    return endpoint;
  }
  Endpoint Device() { return Device(authority_, now_, hours(24)); }
  Endpoint Anonymous() const {
    Endpoint endpoint;
    endpoint.address = "127.0.0.1:" + std::to_string(port_);
    endpoint.ca_certificate = authority_.certificate_pem();
    return endpoint;
  }

  std::unique_ptr<Transport> Connect(const Endpoint& endpoint,
                                     GrpcTransportOptions options = {}) {
    options.sleep = [this](Duration d) { slept_ += d; };
    Result<std::unique_ptr<Transport>> transport =
        GrpcTransportFactory(random_, options)(endpoint);
    EXPECT_THAT(transport, IsOk());
    return *std::move(transport);
  }

  UploadHeader HeaderOf(ByteSpan update) {
    UploadHeader header;
    header.assignment_id = "a1";
    header.token = Bytes(32, 1);
    header.digest = crypto::Sha256(update);
    header.size_bytes = update.size();
    header.weight = 48;
    header.metrics = {{.numerator = 1 << 20, .count = 12}};
    return header;
  }

  OsRandom random_;
  SystemClock clock_;
  const Time now_ = clock_.Now();
  const crypto::CertificateAuthority authority_ =
      MakeAuthority("ours", now_ - hours(24 * 30));
  FakeDeviceService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  Duration slept_{};
};

Bytes Pattern(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7);
  return bytes;
}

TEST(ChunkSizerTest, Size_FollowsTheTimeOfMessages) {
  ChunkSizer sizer(size_t{256} << 10);
  EXPECT_EQ(sizer.size(), size_t{256} << 10);
  sizer.Sent(ChunkSizer::kFast);
  EXPECT_EQ(sizer.size(), size_t{256} << 10);
  sizer.Sent(ChunkSizer::kSlow + milliseconds(1));
  EXPECT_EQ(sizer.size(), size_t{128} << 10);
  sizer.Sent(ChunkSizer::kSlow);
  EXPECT_EQ(sizer.size(), size_t{128} << 10);
  sizer.Broke();
  EXPECT_EQ(sizer.size(), size_t{32} << 10);
  for (int i = 0; i < 5; ++i) sizer.Broke();
  EXPECT_EQ(sizer.size(), ChunkSizer::kLeast);
  sizer.Sent(std::chrono::minutes(1));
  EXPECT_EQ(sizer.size(), ChunkSizer::kLeast);
  for (int i = 0; i < 10; ++i) sizer.Sent(milliseconds(1));
  EXPECT_EQ(sizer.size(), size_t{256} << 10);
}

TEST(ChunkSizerTest, SlowestLinkThatIsPutUpWith_GetsAMessageThrough) {
  // 1 KiB/s (limits.upload_rate_min) within the deadline of one operation.
  EXPECT_LT(std::chrono::seconds(ChunkSizer::kLeast / 1024),
            GrpcTransportOptions{}.chunk_deadline);
  // Small limits are kept to.
  ChunkSizer sizer(100);
  EXPECT_EQ(sizer.size(), 100u);
  sizer.Broke();
  EXPECT_EQ(sizer.size(), 100u);
  EXPECT_EQ(ChunkSizer(0).size(), 1u);
}

TEST_F(GrpcTransportTest, CheckIn_Assignment_ArrivesWhole) {
  Serve();
  service_.on_check_in = [](const v1::CheckInRequest& request,
                            v1::CheckInResponse* response) {
    EXPECT_EQ(request.population(), "demo");
    EXPECT_THAT(request.capabilities().engines(), ElementsAre("fake/1"));
    EXPECT_EQ(request.installed(0).version(), 4U);
    v1::Assignment& a = *response->mutable_assignment();
    a.set_id("a1");
    a.set_task("digits");
    a.set_round(9);
    a.set_mode(v1::Assignment::TRAIN);
    a.set_plan_digest(std::string(32, 'p'));
    a.set_plan_signature(std::string(64, 's'));
    a.set_checkpoint_digest(std::string(32, 'c'));
    a.set_checkpoint_codec(v1::FLOAT16);
    a.set_token(std::string(32, 't'));
    a.set_compute_deadline_ms(150'000);
    a.set_upload_deadline_ms(300'000);
    a.set_seed(77);
    response->mutable_retry()->set_min_ms(1000);
    response->mutable_retry()->set_max_ms(2000);
    v1::AssignmentOutcome& outcome = *response->add_outcomes();
    outcome.set_assignment_id("a0");
    outcome.set_state(v1::AssignmentOutcome::COMMITTED);
    return grpc::Status::OK;
  };
  CheckInRequest request;
  request.population = "demo";
  request.engines = {"fake/1"};
  request.installed = {{.task = "digits", .version = 4}};

  const Result<CheckInAnswer> answer = Connect(Device())->CheckIn(request);

  ASSERT_THAT(answer, IsOk());
  const auto& assignment = std::get<Assignment>(answer->work);
  EXPECT_EQ(assignment.id, "a1");
  EXPECT_EQ(assignment.round, 9U);
  EXPECT_EQ(assignment.seed, 77U);
  EXPECT_EQ(assignment.compute_deadline, seconds(150));
  EXPECT_EQ(answer->retry.max, seconds(2));
  EXPECT_EQ(answer->outcomes.at(0).state, OutcomeState::kCommitted);
  EXPECT_EQ(service_.device_uri, "selvage://demo/device/dev-1");
}

// Enum zero means refuse, and so does whatever this device does not know.
TEST_F(GrpcTransportTest, CheckIn_NotUnderstood_IsRefused) {
  Serve();
  const auto transport = Connect(Device());
  for (int kind = 0; kind < 5; ++kind) {
    SCOPED_TRACE(kind);
    service_.on_check_in = [kind](const v1::CheckInRequest&,
                                  v1::CheckInResponse* response) {
      v1::Assignment& a = *response->mutable_assignment();
      a.set_id("a1");
      a.set_task("digits");
      a.set_mode(kind == 0 ? v1::Assignment::MODE_UNSPECIFIED
                           : v1::Assignment::TRAIN);
      a.set_plan_digest(std::string(kind == 1 ? 31 : 32, 'p'));
      a.set_checkpoint_digest(std::string(32, 'c'));
      a.set_checkpoint_codec(kind == 2 ? v1::CODEC_UNSPECIFIED : v1::FLOAT16);
      a.set_token(std::string(kind == 3 ? 1000 : 32, 't'));
      if (kind == 4) response->mutable_retry()->set_min_ms(1);
      return grpc::Status::OK;
    };
    EXPECT_THAT(transport->CheckIn({}), StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST_F(GrpcTransportTest, CheckIn_CoordinatorError_KeepsCodeAndWords) {
  Serve();
  service_.on_check_in = [](const v1::CheckInRequest&, v1::CheckInResponse*) {
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "not enrolled");
  };
  EXPECT_THAT(Connect(Device())->CheckIn({}),
              StatusIs(StatusCode::kPermissionDenied, "not enrolled"));
  EXPECT_EQ(service_.check_ins, 1);
}

TEST_F(GrpcTransportTest, CheckIn_CoordinatorStarting_IsAskedAgain) {
  Serve();
  std::atomic<int> calls{0};
  service_.on_check_in = [&](const v1::CheckInRequest&, v1::CheckInResponse*) {
    return ++calls < 3 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "not yet")
                       : grpc::Status::OK;
  };
  EXPECT_THAT(
      Connect(Device(), {.check_in_deadline = seconds(60)})->CheckIn({}),
      IsOk());
  EXPECT_EQ(calls.load(), 3);
}

TEST_F(GrpcTransportTest, Transports_InOneProcess_ShareNoConnection) {
  Serve();
  const auto first = Connect(Device());
  const auto second = Connect(Device());
  EXPECT_THAT(first->CheckIn({}), IsOk());
  EXPECT_THAT(second->CheckIn({}), IsOk());
  EXPECT_THAT(first->CheckIn({}), IsOk());
  EXPECT_EQ(service_.peers.size(), 2U);
}

TEST_F(GrpcTransportTest, Fetch_BrokenTwice_GoesOnWhereItStopped) {
  Serve();
  const Bytes artefact = Pattern(100'000);
  std::vector<uint64_t> offsets;
  service_.on_fetch = [&](const v1::FetchRequest& request,
                          grpc::ServerWriter<v1::FetchChunk>* writer,
                          grpc::ServerContext*) {
    offsets.push_back(request.offset());
    size_t at = static_cast<size_t>(request.offset());
    for (int chunks = 0; at < artefact.size(); ++chunks) {
      if (chunks == 3 && offsets.size() < 3) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
      }
      const size_t size = std::min<size_t>(10'000, artefact.size() - at);
      v1::FetchChunk chunk;
      chunk.set_total_size(artefact.size());
      chunk.set_data(artefact.data() + at, size);
      writer->Write(chunk);
      at += size;
    }
    return grpc::Status::OK;
  };
  Bytes got;
  const Status status = Connect(Device())->Fetch(
      crypto::Sha256(artefact), 0,
      [&](ByteSpan bytes, uint64_t total) {
        EXPECT_EQ(total, artefact.size());
        AppendBytes(got, bytes);
        return OkStatus();
      },
      Always());
  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(got, artefact);
  EXPECT_THAT(offsets, ElementsAre(0, 30'000, 60'000));
}

TEST_F(GrpcTransportTest, FetchDelta_Broken_GoesOnWhereItStopped) {
  Serve();
  const Bytes delta = Pattern(30'000);
  const crypto::Digest base = crypto::Sha256(AsBytes("base"));
  std::vector<uint64_t> offsets;
  service_.on_fetch = [&](const v1::FetchRequest& request,
                          grpc::ServerWriter<v1::FetchChunk>* writer,
                          grpc::ServerContext*) {
    EXPECT_EQ(request.base(), ToString(base.span()));
    EXPECT_EQ(request.codec(), v1::FLOAT32);
    offsets.push_back(request.offset());
    const auto at = static_cast<size_t>(request.offset());
    v1::FetchChunk chunk;
    chunk.set_total_size(delta.size());
    chunk.set_data(delta.data() + at, 10'000);
    writer->Write(chunk);
    return at == 20'000 ? grpc::Status::OK
                        : grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
  };
  Bytes got;
  const Status status = Connect(Device())->FetchDelta(
      crypto::Sha256(AsBytes("target")), base, plan::CodecName::kFloat32,
      [&](ByteSpan bytes, uint64_t total) {
        EXPECT_EQ(total, delta.size());
        AppendBytes(got, bytes);
        return OkStatus();
      },
      Always());
  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(got, delta);
  EXPECT_THAT(offsets, ::testing::ElementsAre(0, 10'000, 20'000));
}

TEST_F(GrpcTransportTest, Fetch_SinkRefuses_IsNotTriedAgain) {
  Serve();
  int streams = 0;
  service_.on_fetch = [&](const v1::FetchRequest&,
                          grpc::ServerWriter<v1::FetchChunk>* writer,
                          grpc::ServerContext*) {
    ++streams;
    v1::FetchChunk chunk;
    chunk.set_data("x");
    while (writer->Write(chunk)) {
    }
    return grpc::Status::CANCELLED;
  };
  EXPECT_THAT(
      Connect(Device())->Fetch(
          {}, 0,
          [](ByteSpan, uint64_t) { return ResourceExhausted("too large"); },
          Always()),
      StatusIs(StatusCode::kResourceExhausted, "too large"));
  EXPECT_EQ(streams, 1);
}

TEST_F(GrpcTransportTest, Fetch_UnknownDigest_IsNotTriedAgain) {
  Serve();
  int streams = 0;
  service_.on_fetch = [&](const v1::FetchRequest&,
                          grpc::ServerWriter<v1::FetchChunk>*,
                          grpc::ServerContext*) {
    ++streams;
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such artefact");
  };
  EXPECT_THAT(
      Connect(Device())->Fetch(
          {}, 0, [](ByteSpan, uint64_t) { return OkStatus(); }, Always()),
      StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(streams, 1);
}

// Says nothing until the caller gives up.
grpc::Status WaitForCancel(grpc::ServerContext* context) {
  while (!context->IsCancelled()) std::this_thread::yield();
  return grpc::Status::CANCELLED;
}

TEST_F(GrpcTransportTest, Fetch_HostCancelsWhileWaiting_EndsAtOnce) {
  Serve();
  std::atomic<bool> reached{false};
  service_.on_fetch = [&](const v1::FetchRequest&,
                          grpc::ServerWriter<v1::FetchChunk>*,
                          grpc::ServerContext* context) {
    reached = true;
    return WaitForCancel(context);
  };
  EXPECT_THAT(Connect(Device())->Fetch(
                  {}, 0, [](ByteSpan, uint64_t) { return OkStatus(); },
                  [&] { return !reached.load(); }),
              StatusIs(StatusCode::kCancelled));
}

TEST_F(GrpcTransportTest, Fetch_SilentCoordinator_GivesUp) {
  Serve();
  service_.on_fetch =
      [&](const v1::FetchRequest&, grpc::ServerWriter<v1::FetchChunk>*,
          grpc::ServerContext* context) { return WaitForCancel(context); };
  EXPECT_THAT(
      Connect(Device(), {.chunk_deadline = milliseconds(50),
                         .stalled_max = milliseconds(200)})
          ->Fetch(
              {}, 0, [](ByteSpan, uint64_t) { return OkStatus(); }, Always()),
      StatusIs(StatusCode::kDeadlineExceeded));
}

TEST_F(GrpcTransportTest, Upload_BrokenInTheMiddle_ResumesWhereTold) {
  Serve();
  const Bytes update = Pattern(300'000);
  std::string staged;
  std::vector<uint64_t> resumed;
  std::vector<std::vector<size_t>> sizes;  // of chunks, by attempt
  std::vector<std::string> headers;
  service_.on_upload = [&](FakeDeviceService::UploadStream* stream,
                           grpc::ServerContext*) {
    v1::UploadRequest request;
    EXPECT_TRUE(stream->Read(&request));
    headers.push_back(request.header().SerializeAsString());
    v1::UploadResponse response;
    response.mutable_resume()->set_offset(staged.size());
    resumed.push_back(staged.size());
    sizes.emplace_back();
    stream->Write(response);
    for (int chunks = 0; stream->Read(&request); ++chunks) {
      EXPECT_LE(request.chunk().size(), size_t{1} << 20);
      staged += request.chunk();
      sizes.back().push_back(request.chunk().size());
      if (resumed.size() == 1 && chunks == 1) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
      }
    }
    response.mutable_receipt()->set_status(v1::Receipt::ACCEPTED);
    response.mutable_receipt()->mutable_retry()->set_min_ms(100);
    response.mutable_receipt()->mutable_retry()->set_max_ms(100);
    stream->Write(response);
    return grpc::Status::OK;
  };

  const Result<Receipt> receipt =
      Connect(Device(), {.chunk_size_bytes = 50'000})
          ->Upload(HeaderOf(update), update, Always());

  ASSERT_THAT(receipt, IsOk());
  EXPECT_EQ(receipt->status, ReceiptStatus::kAccepted);
  EXPECT_EQ(receipt->retry.min, milliseconds(100));
  EXPECT_EQ(staged, ToString(update));
  EXPECT_THAT(resumed, ElementsAre(0, 100'000));
  EXPECT_THAT(sizes.at(0), ElementsAre(50'000, 50'000));
  // Smaller ones after a break, larger ones again where they go fast.
  EXPECT_EQ(sizes.at(1).at(0), ChunkSizer::kLeast);
  EXPECT_EQ(sizes.at(1).at(1), 2 * ChunkSizer::kLeast);
  // One assignment, one update: the same header both times.
  EXPECT_EQ(headers.at(0), headers.at(1));
}

TEST_F(GrpcTransportTest, Upload_RepeatedUpdate_GetsItsReceiptUnsent) {
  Serve();
  const Bytes update = Pattern(1000);
  service_.on_upload = [&](FakeDeviceService::UploadStream* stream,
                           grpc::ServerContext*) {
    v1::UploadRequest request;
    EXPECT_TRUE(stream->Read(&request));
    v1::UploadResponse response;
    response.mutable_receipt()->set_status(v1::Receipt::REJECTED);
    response.mutable_receipt()->set_reason(v1::Receipt::CONFLICT);
    response.mutable_receipt()->set_message("another digest");
    stream->Write(response);
    return grpc::Status::OK;
  };
  const Result<Receipt> receipt =
      Connect(Device())->Upload(HeaderOf(update), update, Always());
  ASSERT_THAT(receipt, IsOk());
  EXPECT_EQ(receipt->status, ReceiptStatus::kRejected);
  EXPECT_EQ(receipt->reason, "CONFLICT");
  EXPECT_EQ(receipt->message, "another digest");
}

TEST_F(GrpcTransportTest, Upload_TooManyBytesInFlight_ComesBack) {
  Serve();
  const Bytes update = Pattern(1000);
  int streams = 0;
  service_.on_upload = [&](FakeDeviceService::UploadStream* stream,
                           grpc::ServerContext*) {
    if (++streams == 1) {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "later");
    }
    v1::UploadRequest request;
    stream->Read(&request);
    v1::UploadResponse response;
    response.mutable_receipt()->set_status(v1::Receipt::ACCEPTED);
    stream->Write(response);
    return grpc::Status::OK;
  };
  EXPECT_THAT(Connect(Device())->Upload(HeaderOf(update), update, Always()),
              IsOk());
  EXPECT_EQ(streams, 2);
}

// A coordinator that refuses says when it wants to be asked again: not at once.
TEST_F(GrpcTransportTest, CheckIn_Refused_IsLeftAloneAsLongAsItAsks) {
  Serve();
  service_.on_check_in = [](const v1::CheckInRequest&, v1::CheckInResponse*) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the database is away");
  };
  service_.check_in_trailers = {{"selvage-retry-min-ms", "60000"},
                                {"selvage-retry-max-ms", "120000"}};
  const auto transport = Connect(Device());
  EXPECT_THAT(transport->CheckIn({}), StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(service_.check_ins, 1);
  EXPECT_EQ(slept_, Duration::zero());
  EXPECT_EQ(transport->asked_to_wait().min, seconds(60));
  EXPECT_EQ(transport->asked_to_wait().max, seconds(120));

  // What makes no sense is not asked for.
  for (const auto& [min, max] :
       {std::pair("-1", "5"), {"6", "5"}, {"x", "5"}, {"5", ""}}) {
    service_.check_in_trailers = {{"selvage-retry-min-ms", min},
                                  {"selvage-retry-max-ms", max}};
    service_.on_check_in = [](const v1::CheckInRequest&, v1::CheckInResponse*) {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "later");
    };
    EXPECT_THAT(transport->CheckIn({}),
                StatusIs(StatusCode::kResourceExhausted));
    EXPECT_EQ(transport->asked_to_wait().max, Duration::zero()) << min;
  }

  // An answer ends it.
  service_.on_check_in = nullptr;
  EXPECT_THAT(transport->CheckIn({}), IsOk());
  EXPECT_EQ(transport->asked_to_wait().max, Duration::zero());
}

// A wait the coordinator asks for is kept; one that makes no sense, or would
// never end, is not.
TEST_F(GrpcTransportTest, Upload_Pushback_IsWaitedFor) {
  Serve();
  const Bytes update = Pattern(1000);
  const std::vector<std::pair<std::string, Duration>> asked = {
      {"7000", seconds(7)},
      {"9223372036854775807", seconds(60)},
      {"-1", {}},
      {"7000 ms", {}},
      {"99999999999999999999", {}}};
  for (const auto& [pushback, shortest] : asked) {
    SCOPED_TRACE(pushback);
    int streams = 0;
    service_.on_upload = [&](FakeDeviceService::UploadStream* stream,
                             grpc::ServerContext* context) {
      if (++streams == 1) {
        context->AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
        return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "later");
      }
      v1::UploadRequest request;
      stream->Read(&request);
      v1::UploadResponse response;
      response.mutable_receipt()->set_status(v1::Receipt::ACCEPTED);
      stream->Write(response);
      return grpc::Status::OK;
    };
    slept_ = {};
    EXPECT_THAT(Connect(Device())->Upload(HeaderOf(update), update, Always()),
                IsOk());
    EXPECT_EQ(streams, 2);
    EXPECT_GE(slept_, shortest);
    EXPECT_LE(slept_, std::max<Duration>(shortest, milliseconds(200)));
  }
}

TEST_F(GrpcTransportTest, Upload_ResumeBeyondTheEnd_IsRefused) {
  Serve();
  const Bytes update = Pattern(1000);
  service_.on_upload = [&](FakeDeviceService::UploadStream* stream,
                           grpc::ServerContext* context) {
    v1::UploadRequest request;
    stream->Read(&request);
    v1::UploadResponse response;
    response.mutable_resume()->set_offset(1001);
    stream->Write(response);
    return WaitForCancel(context);
  };
  EXPECT_THAT(Connect(Device())->Upload(HeaderOf(update), update, Always()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("1001")));
}

TEST_F(GrpcTransportTest, Abandon_Reason_GoesOverTheWire) {
  Serve();
  const Result<RetryWindow> retry = Connect(Device())->Abandon(
      "a1", Bytes(32, 1), AbandonReason::kProgramRefused, "aten::save");
  ASSERT_THAT(retry, IsOk());
  EXPECT_EQ(retry->max, milliseconds(7));
  ASSERT_EQ(service_.abandoned.size(), 1U);
  EXPECT_EQ(service_.abandoned[0].reason(),
            v1::AbandonRequest::PROGRAM_REFUSED);
}

TEST_F(GrpcTransportTest, Enroll_WithoutCertificate_Works) {
  Serve();
  const Result<EnrollAnswer> answer = Connect(Anonymous())->Enroll({});
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->plan_public_keys.size(), 1U);
}

// ---- whom not to talk to

GrpcTransportOptions Impatient() {
  return {.check_in_deadline = milliseconds(700)};
}

TEST_F(GrpcTransportTest, CheckIn_ServerOfAnotherCa_IsRefused) {
  Serve();
  Endpoint endpoint = Device();
  endpoint.ca_certificate = MakeAuthority("theirs", now_).certificate_pem();
  EXPECT_FALSE(Connect(endpoint, Impatient())->CheckIn({}).ok());
  EXPECT_EQ(service_.check_ins, 0);
}

TEST_F(GrpcTransportTest, CheckIn_CertificateOfAnotherCa_IsRefused) {
  Serve();
  const crypto::CertificateAuthority other = MakeAuthority("theirs", now_);
  const Endpoint endpoint = Device(other, now_, hours(24));
  EXPECT_FALSE(Connect(endpoint, Impatient())->CheckIn({}).ok());
  EXPECT_EQ(service_.check_ins, 0);
}

TEST_F(GrpcTransportTest, CheckIn_ExpiredCertificate_IsRefused) {
  Serve();
  const Endpoint endpoint =
      Device(authority_, now_ - hours(24 * 20), hours(24));
  EXPECT_FALSE(Connect(endpoint, Impatient())->CheckIn({}).ok());
  EXPECT_EQ(service_.check_ins, 0);
}

TEST_F(GrpcTransportTest, CheckIn_PlaintextServer_IsRefused) {
  Serve(/*insecure=*/true);
  EXPECT_FALSE(Connect(Device(), Impatient())->CheckIn({}).ok());
  EXPECT_EQ(service_.check_ins, 0);
}

TEST_F(GrpcTransportTest, CheckIn_Nobody_IsUnavailable) {
  Endpoint endpoint = Device();
  endpoint.address = "127.0.0.1:1";
  EXPECT_THAT(Connect(endpoint, Impatient())->CheckIn({}),
              StatusIs(StatusCode::kUnavailable));
}

TEST_F(GrpcTransportTest, CheckIn_InsecureLoopback_SaysWhoItIs) {
  Serve(/*insecure=*/true);
  Endpoint endpoint = Anonymous();
  endpoint.ca_certificate.clear();
  endpoint.insecure = true;
  endpoint.device_uri = "selvage://demo/device/dev-9";
  EXPECT_THAT(Connect(endpoint)->CheckIn({}), IsOk());
  EXPECT_EQ(service_.device_uri, "selvage://demo/device/dev-9");
}

TEST_F(GrpcTransportTest, CheckIn_OverTls_DoesNotSayTheNameInTheClear) {
  Serve();
  Endpoint endpoint = Device();
  endpoint.device_uri = "selvage://demo/device/other";
  EXPECT_THAT(Connect(endpoint)->CheckIn({}), IsOk());
  EXPECT_EQ(service_.device_uri, "selvage://demo/device/dev-1");
}

TEST(GrpcTransportFactoryTest, Factory_BadEndpoints_AreRefused) {
  OsRandom random;
  const TransportFactory factory = GrpcTransportFactory(random);
  Endpoint endpoint;
  EXPECT_THAT(factory(endpoint), StatusIs(StatusCode::kInvalidArgument));
  endpoint.address = "localhost:1";
  EXPECT_THAT(factory(endpoint), StatusIs(StatusCode::kInvalidArgument));
  endpoint.insecure = true;
  EXPECT_THAT(factory(endpoint), IsOk());
  for (const char* address : {"example.org:1", "10.0.0.1:1",
                              "127.evil.example:1", "localhost.example:1"}) {
    endpoint.address = address;
    EXPECT_THAT(factory(endpoint), StatusIs(StatusCode::kPermissionDenied))
        << address;
  }
}

}  // namespace
}  // namespace selvage::client
