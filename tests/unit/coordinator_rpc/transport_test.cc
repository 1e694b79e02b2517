// The sockets: TLS version, foreign and expired certificates, plaintext, bounds
// and counters.
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/rpc/listener.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/coordinator_rpc/harness.h"

namespace selvage::coordinator::test {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

using Metadata = std::vector<std::pair<std::string, std::string>>;

grpc::Status CheckIn(const std::shared_ptr<grpc::Channel>& channel,
                     const Metadata& metadata = {}) {
  auto stub = v1::DeviceService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(20));
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
  v1::CheckInRequest request;
  request.set_population("demo");
  v1::CheckInResponse response;
  return stub->CheckIn(&context, request, &response);
}

class TransportTest : public ::testing::Test {
 protected:
  std::shared_ptr<grpc::Channel> Device(
      const std::optional<Credential>& credential) {
    return harness.Channel(harness.server->device_port(), credential);
  }

  Harness harness;
};

TEST_F(TransportTest, ForeignCertificate_FailsTheHandshake) {
  harness.Start();
  const crypto::CertificateAuthority foreign =
      Take(crypto::CertificateAuthority::Create("test CA", harness.clock.Now(),
                                                std::chrono::hours(24),
                                                harness.random));
  const grpc::Status status = CheckIn(Device(harness.Issue(
      foreign, "phone-1", harness.clock.Now(), std::chrono::hours(1))));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(harness.server->verified_connections(), 0U);
  EXPECT_TRUE(CheckIn(Device(harness.Device("phone-2"))).ok());
}

TEST_F(TransportTest, ExpiredCertificate_FailsTheHandshake) {
  harness.Start();
  const grpc::Status status = CheckIn(Device(harness.Issue(
      harness.authority, "phone-1", harness.clock.Now() - std::chrono::hours(3),
      std::chrono::hours(1))));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(harness.server->verified_connections(), 0U);
}

TEST_F(TransportTest, ServerCertificateAsClient_IsRefused) {
  harness.Start();
  const grpc::Status status =
      CheckIn(Device(Credential{harness.options.tls->private_key_pem,
                                harness.options.tls->certificate_pem}));
  EXPECT_THAT(status.error_code(), AnyOf(grpc::StatusCode::UNAVAILABLE,
                                         grpc::StatusCode::UNAUTHENTICATED));
}

TEST_F(TransportTest, PlaintextToTheTlsPorts_IsRefusedAndHarmless) {
  harness.Start();
  for (const int port :
       {harness.server->device_port(), harness.server->admin_port()}) {
    EXPECT_EQ(CheckIn(Harness::Open(port, grpc::InsecureChannelCredentials()))
                  .error_code(),
              grpc::StatusCode::UNAVAILABLE);
  }
  EXPECT_TRUE(CheckIn(Device(harness.Device("phone-1"))).ok());
}

// What `openssl s_client` says to the port, with the CA known.
std::string RunClient(const Harness& harness, int port,
                      const std::string& version) {
  const std::filesystem::path ca =
      std::filesystem::path(::testing::TempDir()) /
      ("selvage_ca_" + std::to_string(port) + version + ".pem");
  std::ofstream(ca) << harness.authority.certificate_pem();
  const std::string command =
      "openssl s_client -connect 127.0.0.1:" + std::to_string(port) + " " +
      version + " -alpn h2 -CAfile " + ca.string() + " </dev/null 2>&1";
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> buffer{};
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), count);
  }
  pclose(pipe);
  std::filesystem::remove(ca);
  return output;
}

TEST_F(TransportTest, Tls12_IsRefusedOnBothPorts) {
  if (std::system("openssl version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "the openssl program is not installed";
  }
  harness.Start();
  for (const int port :
       {harness.server->device_port(), harness.server->admin_port()}) {
    const std::string refused = RunClient(harness, port, "-tls1_2");
    EXPECT_THAT(refused, HasSubstr("CONNECTED"));
    EXPECT_THAT(refused, HasSubstr("Cipher is (NONE)"));
    const std::string accepted = RunClient(harness, port, "-tls1_3");
    EXPECT_THAT(accepted, HasSubstr("Verification: OK"));
    EXPECT_THAT(accepted, HasSubstr("TLSv1.3"));
  }
}

TEST_F(TransportTest, ConnectionsBeyondTheBound_AreRefused) {
  harness.options.connections_max = 1;
  harness.Start();
  const auto first = Device(harness.Device("phone-1"));
  ASSERT_TRUE(CheckIn(first).ok());
  EXPECT_EQ(CheckIn(Device(harness.Device("phone-2"))).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(CheckIn(first).ok());
  EXPECT_GE(harness.server->socket_stats().connections_refused, 1U);
  EXPECT_EQ(harness.server->socket_stats().connections_accepted, 1U);
}

TEST_F(TransportTest, IdleConnection_IsEnded_AndTheNextCallConnectsAnew) {
  harness.options.connection_idle = std::chrono::milliseconds(100);
  harness.Start();
  const auto channel = Device(harness.Device("phone-1"));
  ASSERT_TRUE(CheckIn(channel).ok());
  // The channel is still there: it is the server that ends the connection.
  while (harness.server->socket_stats().connections_open != 0) {
  }
  EXPECT_TRUE(CheckIn(channel).ok());
  EXPECT_EQ(harness.server->socket_stats().connections_accepted, 2U);
}

TEST_F(TransportTest, OldConnection_IsReplaced_AndNoCallFails) {
  harness.options.connection_age = std::chrono::milliseconds(100);
  harness.Start();
  const auto channel = Device(harness.Device("phone-1"));
  while (harness.server->socket_stats().connections_accepted < 4) {
    const grpc::Status status = CheckIn(channel);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
}

TEST_F(TransportTest, CallOfAnOldConnection_HasTheGraceAndNoMore) {
  harness.options.connection_age = std::chrono::milliseconds(50);
  harness.options.connection_age_grace = std::chrono::milliseconds(100);
  harness.devices.hold_check_ins = true;
  harness.Start();
  // Nobody answers it, and its own deadline is far.
  EXPECT_EQ(CheckIn(Device(harness.Device("phone-1"))).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  harness.devices.AnswerHeld();
}

TEST_F(TransportTest, CallsBeyondTheStreamsOfAConnection_WaitTheirTurn) {
  constexpr int kStreams = 3;
  constexpr int kCalls = 20;
  harness.options.streams_max = kStreams;
  harness.devices.hold_check_ins = true;
  harness.Start();
  const auto stub =
      v1::DeviceService::NewStub(Device(harness.Device("phone-1")));
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<v1::CheckInResponse> responses(kCalls);
  std::atomic<int> ended = 0;
  v1::CheckInRequest request;
  request.set_population("demo");
  for (int i = 0; i < kCalls; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    contexts.back()->set_deadline(std::chrono::system_clock::now() +
                                  std::chrono::seconds(60));
    stub->async()->CheckIn(contexts.back().get(), &request,
                           &responses[static_cast<size_t>(i)],
                           [&ended](const grpc::Status& status) {
                             EXPECT_TRUE(status.ok());
                             ++ended;
                           });
  }
  size_t most = 0;
  while (ended < kCalls) {
    const size_t held = harness.devices.Held();
    most = std::max(most, held);
    if (held >= kStreams || harness.devices.CheckIns() == kCalls) {
      harness.devices.AnswerHeld();
    }
  }
  EXPECT_EQ(most, size_t{kStreams});
}

TEST_F(TransportTest, SocketBytes_SurviveTheConnection) {
  harness.Start();
  ASSERT_TRUE(CheckIn(Device(harness.Device("phone-1"))).ok());
  // The client's channel is gone; the server learns it from the socket.
  SocketStats stats = harness.server->socket_stats();
  while (stats.connections_open != 0) stats = harness.server->socket_stats();
  EXPECT_EQ(stats.connections_accepted, 1U);
  EXPECT_GT(stats.bytes_received, 1000U);
  EXPECT_GT(stats.bytes_sent, 1000U);
  const SocketStats later = harness.server->socket_stats();
  EXPECT_EQ(later.bytes_received, stats.bytes_received);
  EXPECT_EQ(later.bytes_sent, stats.bytes_sent);
}

TEST_F(TransportTest, Shutdown_RefusesNewCalls) {
  harness.Start();
  const auto channel = Device(harness.Device("phone-1"));
  ASSERT_TRUE(CheckIn(channel).ok());
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_EQ(CheckIn(channel).error_code(), grpc::StatusCode::UNAVAILABLE);
  harness.server->Shutdown(std::chrono::seconds(10));
}

TEST_F(TransportTest, Shutdown_CallThatRuns_HasTheGrace) {
  harness.devices.hold_check_ins = true;
  harness.Start();
  grpc::Status status;
  std::thread device(
      [&] { status = CheckIn(Device(harness.Device("phone-1"))); });
  while (harness.devices.Held() == 0) {
  }
  std::thread answer([&] {
    // After more than the time in which a server without calls ends.
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    harness.devices.AnswerHeld();
  });
  harness.server->Shutdown(std::chrono::seconds(60));
  answer.join();
  device.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(TransportTest, Insecure_BelievesTheNameOnLoopbackOnly) {
  harness.options.tls.reset();
  harness.Start();
  const auto channel = Harness::Open(harness.server->device_port(),
                                     grpc::InsecureChannelCredentials());
  EXPECT_EQ(CheckIn(channel).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CheckIn(channel, {{kInsecureDeviceKey, "phone-1"}}).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(
      CheckIn(channel, {{kInsecureDeviceKey, "selvage://demo/device/phone-1"}})
          .ok());
  EXPECT_EQ(harness.devices.last_device.device_id, "phone-1");

  for (const auto& [device, admin] :
       std::vector<std::pair<std::string, std::string>>{
           {"0.0.0.0:0", "127.0.0.1:0"}, {"127.0.0.1:0", "[::]:0"}}) {
    RpcServerOptions options = harness.options;
    options.device_address = device;
    options.admin_address = admin;
    EXPECT_THAT(RpcServer::Bind(options, harness.clock, harness.log).status(),
                selvage::test::StatusIs(StatusCode::kInvalidArgument,
                                        HasSubstr("loopback")));
  }
}

// What a proxy says of the certificate that was presented to it (RFC 9440).
std::string Forwarded(const std::string& pem) {
  const size_t begin = pem.find('\n') + 1;
  std::string base64 = pem.substr(begin, pem.find("-----END") - begin);
  std::erase(base64, '\n');
  return ":" + base64 + ":";
}

TEST_F(TransportTest, TrustedProxy_ForwardedCertificate_IsTheDevices) {
  harness.options.proxies = {"other", "edge"};
  harness.Start();
  const auto proxy = Device(harness.Proxy("edge"));
  // Calls of several devices over one connection.
  for (const std::string name : {"phone-1", "phone-2", "phone-1"}) {
    const grpc::Status status = CheckIn(
        proxy, {{kClientCertKey, Forwarded(harness.Device(name).certificate)}});
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(harness.devices.last_device.device_id, name);
    EXPECT_EQ(harness.devices.last_device.population, "demo");
  }
}

TEST_F(TransportTest, TrustedProxy_NothingGoodForwarded_IsUnauthenticated) {
  harness.options.proxies = {"edge"};
  harness.Start();
  const auto proxy = Device(harness.Proxy("edge"));
  const crypto::CertificateAuthority foreign =
      Take(crypto::CertificateAuthority::Create("test CA", harness.clock.Now(),
                                                std::chrono::hours(24),
                                                harness.random));
  const Time now = harness.clock.Now();
  const std::string good = Forwarded(harness.Device("phone-1").certificate);
  const std::string expired =
      Forwarded(harness
                    .Issue(harness.authority, "phone-1",
                           now - std::chrono::hours(3), std::chrono::hours(1))
                    .certificate);
  const struct {
    Metadata metadata;
    const char* message;
  } cases[] = {
      {{}, "forwarded no client certificate"},
      {{{kClientCertKey, good}, {kClientCertKey, good}},
       "forwarded no client certificate"},
      {{{kClientCertKey, "phone-1"}}, "client certificate: "},
      {{{kClientCertKey,
         Forwarded(harness.Issue(foreign, "phone-1", now, std::chrono::hours(1))
                       .certificate)}},
       "device certificate refused"},
      {{{kClientCertKey, expired}}, "device certificate refused"},
      {{{kClientCertKey, Forwarded(harness.authority.certificate_pem())}},
       "device certificate refused"},
      {{{kClientCertKey, Forwarded(harness.options.tls->certificate_pem)}},
       "device certificate refused"},
      {{{kClientCertKey, Forwarded(harness.Proxy("edge").certificate)}},
       "names no device"},
      {{{kInsecureDeviceKey, "selvage://demo/device/phone-1"}},
       "forwarded no client certificate"},
  };
  for (const auto& c : cases) {
    const grpc::Status status = CheckIn(proxy, c.metadata);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_THAT(status.error_message(), HasSubstr(c.message));
  }
  EXPECT_EQ(harness.devices.check_ins, 0);
  // A certificate that was good when it was first seen, and has expired since.
  ASSERT_TRUE(CheckIn(proxy, {{kClientCertKey, good}}).ok());
  harness.clock.Advance(std::chrono::minutes(59));
  EXPECT_TRUE(CheckIn(proxy, {{kClientCertKey, good}}).ok());
  harness.clock.Advance(std::chrono::minutes(2));
  EXPECT_EQ(CheckIn(proxy, {{kClientCertKey, good}}).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TransportTest, ForwardedCertificate_OfAnyoneElse_MeansNothing) {
  harness.options.proxies = {"edge"};
  harness.Start();
  const Metadata victim = {
      {kClientCertKey, Forwarded(harness.Device("victim").certificate)}};
  // A device stays who it is, nobody stays nobody, a proxy that is not named
  // is nobody.
  ASSERT_TRUE(CheckIn(Device(harness.Device("phone-1")), victim).ok());
  EXPECT_EQ(harness.devices.last_device.device_id, "phone-1");
  EXPECT_EQ(CheckIn(Device(std::nullopt), victim).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  const grpc::Status status = CheckIn(Device(harness.Proxy("edge-2")), victim);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(status.error_message(), HasSubstr("edge-2 is not trusted"));
  EXPECT_EQ(harness.devices.check_ins, 1);
}

TEST_F(TransportTest, NoProxies_IsTheDefault) {
  harness.Start();
  EXPECT_EQ(CheckIn(Device(harness.Proxy("edge")),
                    {{kClientCertKey,
                      Forwarded(harness.Device("phone-1").certificate)}})
                .error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TransportTest, TakenPort_IsUnavailableByName) {
  harness.Start();
  RpcServerOptions options = harness.options;
  options.device_address =
      "127.0.0.1:" + std::to_string(harness.server->device_port());
  EXPECT_THAT(RpcServer::Bind(options, harness.clock, harness.log).status(),
              selvage::test::StatusIs(StatusCode::kUnavailable,
                                      HasSubstr(options.device_address)));
  options.device_address = "127.0.0.1:0";
  options.admin_address =
      "127.0.0.1:" + std::to_string(harness.server->admin_port());
  auto server = Take(RpcServer::Bind(options, harness.clock, harness.log));
  EXPECT_THAT(server->Serve(harness.devices, harness.people, ""),
              selvage::test::StatusIs(StatusCode::kUnavailable,
                                      HasSubstr(options.admin_address)));
}

TEST(ParseHostPortTest, TableOfAddresses) {
  const auto parsed = ParseHostPort("[::1]:8443");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->host, "::1");
  EXPECT_EQ(parsed->port, 8443);
  for (const char* bad :
       {"", "localhost", ":80", "localhost:", "localhost:x", "localhost:65536",
        "localhost:-1", "::1:80", "[]:80", "[::1:80", "a:8 "}) {
    EXPECT_FALSE(ParseHostPort(bad).ok()) << bad;
  }
  for (const char* loopback : {"localhost", "127.0.0.1", "127.9.9.9", "::1"}) {
    EXPECT_TRUE(IsLoopback(loopback)) << loopback;
  }
  for (const char* other : {"0.0.0.0", "10.0.0.1", "::", "example.org"}) {
    EXPECT_FALSE(IsLoopback(other)) << other;
  }
}

}  // namespace
}  // namespace selvage::coordinator::test
