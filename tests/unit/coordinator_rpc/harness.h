// A whole RpcServer on free loopback ports, with fakes behind it and a CA of
// its own.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "base/random.h"
#include "base/time.h"
#include "coordinator/rpc/server.h"
#include "crypto/tls_policy.h"
#include "crypto/x509.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/memory_sink.h"
#include "tests/unit/coordinator_rpc/fake_apis.h"

namespace selvage::coordinator::test {

inline constexpr char kAdminToken[] = "correct-horse-battery-staple";

template <typename T>
T Take(Result<T> result) {
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) std::abort();
  return *std::move(result);
}

// A message without fields; a default-made ByteBuffer is no message at all.
inline grpc::ByteBuffer EmptyMessage() {
  const grpc::Slice empty;
  return grpc::ByteBuffer(&empty, 1);
}

// A key and what a CA said about it.
struct Credential {
  std::string key;
  std::string certificate;
};

class Harness {
 public:
  // TLS checks certificates against the machine's clock, so the fake one
  // begins there.
  Harness()
      : authority(Take(crypto::CertificateAuthority::Create(
            "test CA", SystemClock().Now() - std::chrono::hours(24),
            std::chrono::hours(24 * 365), random))) {
    EXPECT_TRUE(crypto::RequireTls13().ok());
    clock.Advance(SystemClock().Now() - clock.Now());
    const crypto::PrivateKeyPem key = Take(crypto::NewP256Key());
    options.device_address = "127.0.0.1:0";
    options.admin_address = "127.0.0.1:0";
    options.tls = ServerTls{
        authority.certificate_pem(),
        Take(authority.IssueServer(key, {"localhost", "127.0.0.1"}, clock.Now(),
                                   std::chrono::hours(24), random)),
        std::string(key.ExposeSecret())};
    options.admin.bearer_token = kAdminToken;
  }
  ~Harness() {
    if (server != nullptr) server->Shutdown(Duration::zero());
  }

  void Start() {
    server = Take(RpcServer::Bind(options, clock, log));
    const Status served = server->Serve(devices, people, "localhost:1");
    ASSERT_TRUE(served.ok()) << served;
  }

  Credential Device(const std::string& name,
                    Duration lifetime = std::chrono::hours(1)) {
    return Issue(authority, name, clock.Now(), lifetime);
  }

  Credential Issue(const crypto::CertificateAuthority& ca,
                   const std::string& name, Time now, Duration lifetime) {
    const crypto::PrivateKeyPem key = Take(crypto::NewP256Key());
    return {std::string(key.ExposeSecret()),
            Take(ca.IssueDevice(Take(crypto::NewCertificateRequest(key, "")),
                                "demo", name, now, lifetime, random))};
  }

  // Of a balancer with this name.
  Credential Proxy(const std::string& name) {
    const crypto::PrivateKeyPem key = Take(crypto::NewP256Key());
    return {std::string(key.ExposeSecret()),
            Take(authority.IssueProxy(key, name, {"localhost"}, clock.Now(),
                                      std::chrono::hours(1), random))};
  }

  std::shared_ptr<grpc::Channel> Channel(
      int port, const std::optional<Credential>& credential) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = authority.certificate_pem();
    if (credential.has_value()) {
      tls.pem_private_key = credential->key;
      tls.pem_cert_chain = credential->certificate;
    }
    return Open(port, grpc::SslCredentials(tls));
  }

  static std::shared_ptr<grpc::Channel> Open(
      int port, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    grpc::ChannelArguments arguments;
    // Two channels with one credential must not share a connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxSendMessageSize(-1);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                     credentials, arguments);
  }

  std::unique_ptr<v1::DeviceService::Stub> DeviceStub(
      const std::optional<Credential>& credential) {
    return v1::DeviceService::NewStub(
        Channel(server->device_port(), credential));
  }
  std::unique_ptr<v1::AdminService::Stub> AdminStub() {
    return v1::AdminService::NewStub(
        Channel(server->admin_port(), std::nullopt));
  }

  OsRandom random;
  selvage::test::FakeClock clock;
  selvage::test::MemorySink log;
  crypto::CertificateAuthority authority;
  RpcServerOptions options;
  FakeDeviceApi devices;
  FakeAdminApi people;
  std::unique_ptr<RpcServer> server;
};

}  // namespace selvage::coordinator::test
