// What a coordinator does with uploads, certificates and bytes that are wrong,
// over the real wire: it says why, and the round goes on as if nothing was.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <future>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "crypto/x509.h"
#include "tests/integration/faults/harness.h"

namespace selvage::test {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr size_t kDevices = 16;
constexpr uint64_t kCohort = 4;
constexpr char kTask[] = "one-hot";
// Two rounds, so that there is an earlier one to upload to. Every device is
// drawn, and four updates are the goal.
constexpr char kTaskFile[] = R"(
name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 2, cohort: 4, min_updates: 4, over_selection: 4, round_deadline: 10m}
update: {codec: float32, weight_cap: 10, max_abs: {default: 8}}
)";

class WireFaultsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server = std::make_unique<CoordinatorUnderTest>(FreshDirectory() / "data");
    ASSERT_TRUE(server->serving()) << server->process().output();
    ASSERT_TRUE(server->CreatePopulation().ok());
    const std::string bundle = Take(server->CreateBundle(kDevices));
    for (size_t i = 0; i < kDevices; ++i) {
      credentials.push_back(Take(
          EnrolDevice(*server, bundle, "device-" + std::to_string(10 + i))));
      devices.push_back(
          std::make_unique<RawDevice>(*server, credentials.back()));
    }
    Take(server->CreateTask(kTaskFile, OneHotProgram(kDevices)));
  }

  // Every device holds an assignment of the open round.
  void AssignEverybody() {
    assignments.assign(kDevices, {});
    for (int pass = 0; pass < 10'000; ++pass) {
      bool all = true;
      for (size_t i = 0; i < kDevices; ++i) {
        assignments[i] = Take(devices[i]->CheckIn()).assignment();
        all = all && !assignments[i].id().empty();
      }
      if (all) return;
    }
    FAIL() << server->process().output();
  }

  std::string UploadHonestly(size_t i) {
    const Bytes update = OneHotUpdate(kDevices, i);
    return devices[i]
        ->Upload(OneHotHeader(assignments[i], update), update)
        .Name();
  }
  // Of the model minus what it started from.
  std::vector<int> Counted(const plan::Checkpoint& before) {
    plan::Checkpoint model =
        Take(server->LatestModel(kTask, OneHotProgram(kDevices).table));
    for (size_t i = 0; i < kDevices; ++i) model.floats[i] -= before.floats[i];
    return Take(CountedUpdates(model, kCohort));
  }

  std::unique_ptr<CoordinatorUnderTest> server;
  std::vector<DeviceCredentials> credentials;
  std::vector<std::unique_ptr<RawDevice>> devices;
  std::vector<v1::Assignment> assignments;
};

TEST_F(WireFaultsTest, Upload_TableOfWrongOnes_EachNamedNoneCounted) {
  AssignEverybody();
  if (HasFatalFailure()) return;
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  const float kInfinity = std::numeric_limits<float>::infinity();
  const struct {
    const char* what;
    std::function<void(v1::UploadHeader&)> spoil;
    float value;
    const char* expected;
  } kTable[] = {
      {"a NaN", [](auto&) {}, kNan, "NOT_FINITE"},
      {"an infinity", [](auto&) {}, kInfinity, "NOT_FINITE"},
      {"minus infinity", [](auto&) {}, -kInfinity, "NOT_FINITE"},
      {"the bound itself", [](auto&) {}, 8.0F, "OUT_OF_RANGE"},
      {"the largest float", [](auto&) {}, std::numeric_limits<float>::max(),
       "OUT_OF_RANGE"},
      {"one byte more announced",
       [](auto& header) { header.set_size(header.size() + 1); }, 0.25F,
       "BAD_SIZE"},
      {"one element less announced",
       [](auto& header) { header.set_size(header.size() - 4); }, 0.25F,
       "BAD_SIZE"},
      {"weight 0", [](auto& header) { header.set_weight(0); }, 0.25F,
       "BAD_WEIGHT"},
      {"a weight over the cap", [](auto& header) { header.set_weight(11); },
       0.25F, "BAD_WEIGHT"},
      {"two metrics for one",
       [](auto& header) {
         header.add_metrics()->set_count(1);
         header.add_metrics()->set_count(1);
       },
       0.25F, "BAD_METRICS"},
      {"scalars", [](auto& header) { header.add_scalars(1); }, 0.25F,
       "BAD_SCALARS"},
      {"another codec", [](auto& header) { header.set_codec(v1::FLOAT16); },
       0.25F, "BAD_ENCODING"},
  };
  constexpr size_t kBad = std::size(kTable);
  static_assert(kBad == kDevices - kCohort);
  std::map<std::string, uint64_t> reasons;
  for (size_t i = 0; i < kBad; ++i) {
    SCOPED_TRACE(kTable[i].what);
    const Bytes update = OneHotUpdate(kDevices, i, kTable[i].value);
    v1::UploadHeader header = OneHotHeader(assignments[i], update);
    kTable[i].spoil(header);
    const RawDevice::UploadAnswer answer = devices[i]->Upload(header, update);
    EXPECT_EQ(answer.Name(), kTable[i].expected) << answer.status;
    ASSERT_TRUE(answer.receipt.has_value());
    EXPECT_FALSE(answer.receipt->message().empty());
    ++reasons[kTable[i].expected];
    // The first answer is the last, for the same bytes and for better ones.
    EXPECT_EQ(devices[i]->Upload(header, update).Name(), kTable[i].expected);
    EXPECT_EQ(UploadHonestly(i), update == OneHotUpdate(kDevices, i)
                                     ? kTable[i].expected
                                     : "CONFLICT");
  }
  v1::Round round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.state(), v1::Round::COLLECTING);
  EXPECT_EQ(round.funnel().assigned(), kDevices);
  EXPECT_EQ(round.funnel().rejected(), kBad);
  EXPECT_EQ(round.funnel().outstanding(), kCohort);
  EXPECT_EQ((std::map<std::string, uint64_t>(round.funnel().reasons().begin(),
                                             round.funnel().reasons().end())),
            reasons);

  for (size_t i = kBad; i < kDevices; ++i) {
    EXPECT_EQ(UploadHonestly(i), "ACCEPTED");
  }
  Take(server->Watch(kTask, [](const v1::TaskSnapshot& snapshot) {
    return snapshot.task().committed_rounds() == 1;
  }));
  round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.funnel().accepted(), kCohort);
  EXPECT_EQ(round.funnel().rejected(), kBad);
  EXPECT_EQ(round.funnel().outstanding(), 0U);
  std::vector<int> expected(kDevices, 0);
  for (size_t i = kBad; i < kDevices; ++i) expected[i] = 1;
  EXPECT_EQ(Counted({std::vector<float>(kDevices, 0.0F), {}}), expected);
}

// A damaged transfer is not the device's last word.
TEST_F(WireFaultsTest, Upload_DamagedOnItsWay_MayComeAgain) {
  AssignEverybody();
  if (HasFatalFailure()) return;
  const auto header = [&](size_t i) {
    return OneHotHeader(assignments[i], OneHotUpdate(kDevices, i));
  };
  const size_t size = OneHotUpdate(kDevices, 0).size();
  {
    SCOPED_TRACE("truncated: the rest is enough");
    const Bytes update = OneHotUpdate(kDevices, 0);
    RawDevice::UploadAnswer answer =
        devices[0]->Upload(header(0), ByteSpan(update).first(size - 1));
    EXPECT_EQ(answer.Name(), "ABORTED") << answer.status;
    answer = devices[0]->Upload(header(0), update);
    EXPECT_EQ(answer.Name(), "ACCEPTED");
    EXPECT_EQ(answer.resumed_at, size - 1);
  }
  {
    SCOPED_TRACE("one bit flipped");
    Bytes damaged = OneHotUpdate(kDevices, 1);
    damaged[0] ^= 1;
    EXPECT_EQ(devices[1]->Upload(header(1), damaged).Name(), "BAD_DIGEST");
    EXPECT_EQ(UploadHonestly(1), "ACCEPTED");
  }
  {
    SCOPED_TRACE("one byte more than announced");
    Bytes more = OneHotUpdate(kDevices, 2);
    more.push_back(0);
    const RawDevice::UploadAnswer answer = devices[2]->Upload(header(2), more);
    EXPECT_FALSE(answer.receipt.has_value());
    EXPECT_FALSE(answer.status.ok());
    EXPECT_EQ(UploadHonestly(2), "ACCEPTED");
  }
  const v1::Round round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.funnel().accepted(), 3U);
  EXPECT_EQ(round.funnel().rejected(), 0U);
  EXPECT_EQ(round.funnel().outstanding(), kDevices - 3);
  {
    SCOPED_TRACE("the stream broke after 16 bytes");
    RawDevice::UploadAnswer answer =
        devices[3]->Upload(header(3), OneHotUpdate(kDevices, 3),
                           {.cancel_after = 16, .chunk_size = 8});
    EXPECT_FALSE(answer.receipt.has_value());
    answer = devices[3]->Upload(header(3), OneHotUpdate(kDevices, 3));
    EXPECT_EQ(answer.Name(), "ACCEPTED");
    EXPECT_LE(answer.resumed_at.value_or(99), 16U);
  }
  Take(server->Watch(kTask, [](const v1::TaskSnapshot& snapshot) {
    return snapshot.task().committed_rounds() == 1;
  }));
  std::vector<int> expected(kDevices, 0);
  for (size_t i = 0; i < kCohort; ++i) expected[i] = 1;
  EXPECT_EQ(Counted({std::vector<float>(kDevices, 0.0F), {}}), expected);
}

TEST_F(WireFaultsTest, Upload_RepeatedOrChanged_FirstReceiptStands) {
  AssignEverybody();
  if (HasFatalFailure()) return;
  EXPECT_EQ(UploadHonestly(0), "ACCEPTED");
  EXPECT_EQ(UploadHonestly(0), "ACCEPTED");
  const Bytes other = OneHotUpdate(kDevices, 1);
  EXPECT_EQ(
      devices[0]->Upload(OneHotHeader(assignments[0], other), other).Name(),
      "CONFLICT");
  EXPECT_EQ(UploadHonestly(0), "ACCEPTED");
  for (size_t i = 1; i < kCohort; ++i) EXPECT_EQ(UploadHonestly(i), "ACCEPTED");
  Take(server->Watch(kTask, [](const v1::TaskSnapshot& snapshot) {
    return snapshot.task().committed_rounds() == 1;
  }));
  // And after the round ended.
  EXPECT_EQ(UploadHonestly(0), "ACCEPTED");
  EXPECT_EQ(
      devices[0]->Upload(OneHotHeader(assignments[0], other), other).Name(),
      "CONFLICT");
  std::vector<int> expected(kDevices, 0);
  for (size_t i = 0; i < kCohort; ++i) expected[i] = 1;
  EXPECT_EQ(Counted({std::vector<float>(kDevices, 0.0F), {}}), expected);
}

TEST_F(WireFaultsTest, Upload_ForAnotherDeviceOrRound_IsRefused) {
  AssignEverybody();
  if (HasFatalFailure()) return;
  const Bytes update = OneHotUpdate(kDevices, 0);
  v1::UploadHeader header = OneHotHeader(assignments[1], update);
  // Device 0 with the assignment and the token of device 1.
  EXPECT_EQ(devices[0]->Upload(header, update).Name(), "BAD_TOKEN");
  // Its own assignment with another's token; a flipped bit; none.
  header = OneHotHeader(assignments[0], update);
  header.set_token(assignments[1].token());
  EXPECT_EQ(devices[0]->Upload(header, update).Name(), "BAD_TOKEN");
  header.set_token(assignments[0].token());
  header.mutable_token()->front() ^= 1;
  EXPECT_EQ(devices[0]->Upload(header, update).Name(), "BAD_TOKEN");
  header.clear_token();
  EXPECT_EQ(devices[0]->Upload(header, update).Name(), "BAD_TOKEN");
  header.set_assignment_id("no-such-assignment");
  EXPECT_EQ(devices[0]->Upload(header, update).Name(), "BAD_TOKEN");
  v1::Round round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.funnel().accepted(), 0U);
  EXPECT_EQ(round.funnel().rejected(), 0U);
  EXPECT_EQ(round.funnel().outstanding(), kDevices);

  // None of that cost device 0 its slot.
  for (size_t i = 0; i < kCohort; ++i) EXPECT_EQ(UploadHonestly(i), "ACCEPTED");
  Take(server->Watch(kTask, [](const v1::TaskSnapshot& snapshot) {
    return snapshot.task().committed_rounds() == 1 &&
           snapshot.round().number() == 2;
  }));
  const plan::Checkpoint first =
      Take(server->LatestModel(kTask, OneHotProgram(kDevices).table));
  // Too late for round 1, also while round 2 is open.
  EXPECT_EQ(UploadHonestly(5), "LATE");
  const std::vector<v1::Assignment> old = assignments;
  AssignEverybody();
  if (HasFatalFailure()) return;
  EXPECT_EQ(assignments[6].round(), 2U);
  const Bytes six = OneHotUpdate(kDevices, 6);
  EXPECT_EQ(devices[6]->Upload(OneHotHeader(old[6], six), six).Name(), "LATE");
  // The old assignment with the new token.
  header = OneHotHeader(old[7], six);
  header.set_token(assignments[7].token());
  EXPECT_EQ(devices[7]->Upload(header, six).Name(), "BAD_TOKEN");

  for (size_t i = 6; i < 6 + kCohort; ++i) {
    EXPECT_EQ(UploadHonestly(i), "ACCEPTED");
  }
  Take(server->WatchUntilEnded(kTask));
  std::vector<int> expected(kDevices, 0);
  for (size_t i = 6; i < 6 + kCohort; ++i) expected[i] = 1;
  EXPECT_EQ(Counted(first), expected);
  round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.funnel().accepted(), kCohort);
  EXPECT_EQ(round.funnel().late(), 2U);
}

// Bytes that are no message, messages out of order and too large.
TEST_F(WireFaultsTest, Messages_Malformed_AreRefusedAndServiceGoesOn) {
  AssignEverybody();
  if (HasFatalFailure()) return;
  grpc::GenericStub generic(devices[0]->channel());
  SeededRandom random(7);
  for (const size_t size : {1, 2, 3, 7, 64, 1000, 100'000}) {
    Bytes noise(size);
    random.Fill(noise);
    noise[0] = 0x0A;  // a field of its own length, then nonsense
    for (const char* method : {"CheckIn", "Enroll", "Abandon", "Report"}) {
      const grpc::Slice slice(noise.data(), noise.size());
      const grpc::ByteBuffer request(&slice, 1);
      grpc::ByteBuffer response;
      grpc::ClientContext context;
      std::promise<grpc::Status> done;
      generic.UnaryCall(
          &context, std::string("/selvage.v1.DeviceService/") + method, {},
          &request, &response,
          [&done](grpc::Status status) { done.set_value(std::move(status)); });
      EXPECT_FALSE(done.get_future().get().ok()) << method << " " << size;
    }
  }
  const Bytes update = OneHotUpdate(kDevices, 0);
  const v1::UploadHeader header = OneHotHeader(assignments[0], update);
  const auto send = [&](const std::vector<v1::UploadRequest>& messages) {
    const auto context = ShortContext();
    const auto stream = devices[0]->stub().Upload(context.get());
    for (const v1::UploadRequest& message : messages) {
      if (!stream->Write(message)) break;
    }
    stream->WritesDone();
    v1::UploadResponse response;
    bool receipt = false;
    while (stream->Read(&response)) receipt = receipt || response.has_receipt();
    EXPECT_FALSE(receipt && stream->Finish().ok())
        << response.ShortDebugString();
  };
  v1::UploadRequest first;
  *first.mutable_header() = header;
  v1::UploadRequest chunk;
  chunk.set_chunk(ToString(update));
  v1::UploadRequest huge;
  huge.set_chunk(std::string((1 << 20) + 1, 'x'));
  send({});
  send({v1::UploadRequest()});
  send({chunk});
  send({first, first});
  send({first, huge});
  v1::UploadRequest long_name = first;
  long_name.mutable_header()->set_assignment_id(std::string(100'000, 'a'));
  send({long_name});
  v1::UploadRequest many = first;
  for (int i = 0; i < 100'000; ++i) many.mutable_header()->add_scalars(i);
  send({many});

  const v1::Round round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.funnel().accepted(), 0U);
  EXPECT_EQ(round.funnel().outstanding(), kDevices);
  EXPECT_EQ(UploadHonestly(0), "ACCEPTED");
}

// T-23. Who may not talk is not listened to.
TEST_F(WireFaultsTest, Certificates_MissingForeignOrExpired_AreRefused) {
  AssignEverybody();
  if (HasFatalFailure()) return;
  OsRandom random;
  const Time now = SystemClock().Now();
  const auto hours = [](int n) { return Duration(std::chrono::hours(n)); };
  const crypto::PrivateKeyPem key = Take(crypto::NewP256Key());
  const std::string request = Take(crypto::NewCertificateRequest(key, ""));
  const std::string pem(key.ExposeSecret());
  const crypto::CertificateAuthority ours =
      Take(crypto::CertificateAuthority::Load(
          server->ca_certificate(),
          Take(crypto::ParseP256Key(
              ReadText(server->data_dir() / "keys" / "ca.key.pem")))));
  // The same name as ours, another key.
  const crypto::CertificateAuthority foreign =
      Take(crypto::CertificateAuthority::Create(
          Take(crypto::ParseCertificate(server->ca_certificate())).common_name,
          now, hours(24), random));
  const struct {
    const char* what;
    std::string certificate;
  } kTable[] = {
      {"none", ""},
      {"foreign",
       Take(foreign.IssueDevice(request, kPopulation, credentials[0].id, now,
                                hours(1), random))},
      // The CA is valid from an hour before it was made: long enough for a
      // certificate that ended since.
      {"expired", Take(ours.IssueDevice(request, kPopulation, credentials[0].id,
                                        now - std::chrono::minutes(58),
                                        std::chrono::minutes(1), random))},
      {"for servers",
       Take(ours.IssueServer(key, {"localhost"}, now, hours(1), random))},
      {"another population",
       Take(ours.IssueDevice(request, "elsewhere", credentials[0].id, now,
                             hours(1), random))},
      {"a device never enrolled",
       Take(ours.IssueDevice(request, kPopulation, "nobody", now, hours(1),
                             random))},
  };
  const uint64_t connections = Take(server->Info()).tls_connections();
  for (const auto& row : kTable) {
    SCOPED_TRACE(row.what);
    RawDevice device(*server,
                     {credentials[0].id, row.certificate.empty() ? "" : pem,
                      row.certificate});
    const Result<v1::CheckInResponse> answer = device.CheckIn();
    ASSERT_FALSE(answer.ok());
    EXPECT_THAT(answer.status().code(),
                AnyOf(StatusCode::kUnauthenticated, StatusCode::kUnavailable,
                      StatusCode::kPermissionDenied))
        << answer.status();
    const Bytes update = OneHotUpdate(kDevices, 0);
    EXPECT_THAT(
        device.Upload(OneHotHeader(assignments[0], update), update).Name(),
        AnyOf("UNAUTHENTICATED", "UNAVAILABLE", "PERMISSION_DENIED",
              "BAD_TOKEN"));
  }
  EXPECT_GE(Take(server->Info()).tls_connections(), connections);
  const v1::Round round = Take(server->GetRound(kTask, 1));
  EXPECT_EQ(round.funnel().outstanding(), kDevices);
  EXPECT_EQ(UploadHonestly(0), "ACCEPTED");
}

TEST_F(WireFaultsTest, Plaintext_ToTheTlsPorts_IsNotAnswered) {
  for (const std::string& address :
       {server->device_address(), server->admin_address()}) {
    SCOPED_TRACE(address);
    const auto stub = v1::DeviceService::NewStub(
        grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    v1::CheckInResponse answer;
    EXPECT_EQ(stub->CheckIn(ShortContext().get(), v1::CheckInRequest(), &answer)
                  .error_code(),
              grpc::StatusCode::UNAVAILABLE);
    const size_t colon = address.rfind(':');
    addrinfo* info = nullptr;
    ASSERT_EQ(getaddrinfo(address.substr(0, colon).c_str(),
                          address.substr(colon + 1).c_str(), nullptr, &info),
              0);
    const int fd = socket(info->ai_family, SOCK_STREAM, 0);
    ASSERT_EQ(connect(fd, info->ai_addr, info->ai_addrlen), 0);
    freeaddrinfo(info);
    constexpr char kRequest[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    ASSERT_GT(send(fd, kRequest, sizeof kRequest - 1, MSG_NOSIGNAL), 0);
    std::string said;
    std::array<char, 256> buffer{};
    for (;;) {
      const ssize_t count = recv(fd, buffer.data(), buffer.size(), 0);
      if (count <= 0) break;
      said.append(buffer.data(), static_cast<size_t>(count));
    }
    close(fd);
    // At most a TLS alert.
    EXPECT_LE(said.size(), 16U);
    EXPECT_THAT(said, ::testing::Not(HasSubstr("HTTP")));
  }
  EXPECT_EQ(Take(server->GetRound(kTask, 1)).state(), v1::Round::SELECTING);
}

}  // namespace
}  // namespace selvage::test
