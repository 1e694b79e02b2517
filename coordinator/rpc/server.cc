#include "coordinator/rpc/server.h"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "base/check.h"
#include "coordinator/rpc/convert.h"
#include "crypto/x509.h"

namespace selvage::coordinator {
namespace {

namespace tls = grpc::experimental;

constexpr int kMetadataSizeMax = 16 << 10;
constexpr int kLookaheadBytes = 256 << 10;
constexpr int kHandshakeTimeoutMs = 10'000;
// Reflection is the one service here that has threads wait for its callers.
constexpr int kReflectionThreadsMax = 16;
constexpr Duration kQuietPoll = std::chrono::milliseconds(50);
constexpr Duration kQuietMax = std::chrono::milliseconds(500);
// A person who watches a task when the server stops loses nothing.
constexpr Duration kAdminGraceMax = std::chrono::seconds(1);

// Runs once per handshake, after TLS has verified the chain: counts device
// certificates. It refuses nothing: a device is told what is wrong per call, in
// words, where a failed handshake would only say "socket closed".
class HandshakeCounter final : public tls::ExternalCertificateVerifier {
 public:
  explicit HandshakeCounter(std::shared_ptr<std::atomic<uint64_t>> verified)
      : verified_(std::move(verified)) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)> callback,
              grpc::Status* sync_status) override {
    static_cast<void>(callback);
    for (const grpc::string_ref& uri : request->uri_names()) {
      if (crypto::ParseDeviceUri({uri.data(), uri.size()}).ok()) {
        verified_->fetch_add(1, std::memory_order_relaxed);
        break;
      }
    }
    *sync_status = grpc::Status::OK;
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::shared_ptr<std::atomic<uint64_t>> verified_;
};

std::shared_ptr<grpc::ServerCredentials> Credentials(
    const std::optional<ServerTls>& server_tls,
    const std::shared_ptr<std::atomic<uint64_t>>& count_devices_in) {
  if (!server_tls.has_value()) return grpc::InsecureServerCredentials();
  const std::vector<tls::IdentityKeyCertPair> identity = {
      {server_tls->private_key_pem, server_tls->certificate_pem}};
  tls::TlsServerCredentialsOptions options(
      std::make_shared<tls::StaticDataCertificateProvider>(
          server_tls->ca_certificate_pem, identity));
  options.watch_identity_key_cert_pairs();
  if (count_devices_in != nullptr) {
    options.watch_root_certs();
    // Enroll comes without a certificate; one that comes must be good.
    options.set_cert_request_type(
        GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
    options.set_certificate_verifier(
        tls::ExternalCertificateVerifier::Create<HandshakeCounter>(
            count_devices_in));
  }
  return tls::TlsServerCredentials(options);
}

int Milliseconds(Duration d) {
  return static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
}

// Whether a builder's server has reflection: the library gives it to every
// server of a process that links it.
class Reflection final : public grpc::ServerBuilderOption {
 public:
  explicit Reflection(bool wanted) : wanted_(wanted) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    auto ours =
        std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    const std::string name = ours->name();
    std::erase_if(*plugins,
                  [&](const auto& plugin) { return plugin->name() == name; });
    if (wanted_) plugins->push_back(std::move(ours));
  }

 private:
  const bool wanted_;
};

void SetLimits(grpc::ServerBuilder& builder, int streams_max) {
  builder.SetMaxReceiveMessageSize(kMessageSizeMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, streams_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataSizeMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Ahead of what is being read a stream may send this much. The probe would
  // grow it to megabytes a stream, outside of any budget; a chunk that is being
  // read opens the window for itself.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES,
                             kLookaheadBytes);
}

Status CheckPlaintext(const std::string& address) {
  SELVAGE_ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
  if (!IsLoopback(parsed.host)) {
    return InvalidArgument(
        "insecure mode is for loopback addresses only, not " + address);
  }
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<RpcServer>> RpcServer::Bind(RpcServerOptions options,
                                                   Clock& clock,
                                                   EventSink& log) {
  SELVAGE_RETURN_IF_ERROR(ParseHostPort(options.admin_address).status());
  if (!options.tls.has_value()) {
    SELVAGE_RETURN_IF_ERROR(CheckPlaintext(options.device_address));
    SELVAGE_RETURN_IF_ERROR(CheckPlaintext(options.admin_address));
  }
  SELVAGE_ASSIGN_OR_RETURN(
      std::unique_ptr<Listener> listener,
      Listener::Bind(options.device_address, options.connections_max, log));
  return std::unique_ptr<RpcServer>(
      new RpcServer(std::move(options), std::move(listener), clock, log));
}

RpcServer::RpcServer(RpcServerOptions options,
                     std::unique_ptr<Listener> listener, Clock& clock,
                     EventSink& log)
    : options_(std::move(options)),
      clock_(clock),
      log_(log),
      listener_(std::move(listener)),
      identities_(
          clock,
          IdentityOptions{
              .insecure = !options_.tls.has_value(),
              .ca_certificate_pem = options_.tls.has_value()
                                        ? options_.tls->ca_certificate_pem
                                        : std::string(),
              .proxies = options_.proxies,
          },
          options_.telemetry),
      verified_(std::make_shared<std::atomic<uint64_t>>(0)),
      started_(clock.Now()) {}

RpcServer::~RpcServer() { Shutdown(Duration::zero()); }

Status RpcServer::Serve(DeviceApi& devices, AdminApi& people,
                        const std::string& device_endpoint) {
  SELVAGE_CHECK(device_server_ == nullptr);
  DeviceServiceOptions device_options = options_.device;
  device_options.telemetry = options_.telemetry;
  device_service_ = std::make_unique<DeviceService>(devices, identities_, log_,
                                                    clock_, device_options);
  admin_service_ = std::make_unique<AdminService>(
      people,
      [this, device_endpoint] {
        const SocketStats stats = listener_->stats();
        return TransportInfo{
            .tls_connections = verified_connections(),
            .socket_bytes_received = stats.bytes_received,
            .socket_bytes_sent = stats.bytes_sent,
            .uptime_seconds = static_cast<uint64_t>(
                std::chrono::duration_cast<std::chrono::seconds>(
                    std::max(Duration::zero(), clock_.Now() - started_))
                    .count()),
            .device_endpoint = device_endpoint,
        };
      },
      log_, options_.admin);

  grpc::EnableDefaultHealthCheckService(true);
  {
    grpc::ServerBuilder builder;
    SetLimits(builder, options_.streams_max);
    builder.AddListeningPort(options_.admin_address,
                             Credentials(options_.tls, nullptr), &admin_port_);
    builder.RegisterService(admin_service_.get());
    builder.SetOption(std::make_unique<Reflection>(options_.reflection));
    if (options_.reflection) {
      grpc::ResourceQuota quota("reflection");
      quota.SetMaxThreads(kReflectionThreadsMax);
      builder.SetResourceQuota(quota);
    }
    admin_server_ = builder.BuildAndStart();
    if (admin_server_ == nullptr) {
      return Unavailable("cannot listen on " + options_.admin_address);
    }
  }
  {
    grpc::ServerBuilder builder;
    SetLimits(builder, options_.streams_max);
    // Every method of this port wants a certificate; a health check would be
    // one that does not.
    builder.SetOption(
        std::make_unique<grpc::HealthCheckServiceServerBuilderOption>(nullptr));
    builder.SetOption(std::make_unique<Reflection>(false));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                               Milliseconds(options_.connection_idle));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                               Milliseconds(options_.connection_age));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               Milliseconds(options_.connection_age_grace));
    std::shared_ptr<tls::ExternalConnectionAcceptor> acceptor =
        builder.experimental().AddExternalConnectionAcceptor(
            grpc::ServerBuilder::experimental_type::ExternalConnectionType::
                FROM_FD,
            Credentials(options_.tls, verified_));
    builder.RegisterService(device_service_.get());
    device_server_ = builder.BuildAndStart();
    if (device_server_ == nullptr) {
      return Unavailable("cannot serve devices on " + options_.device_address);
    }
    listener_->Start([acceptor](int fd) {
      tls::ExternalConnectionAcceptor::NewConnectionParameters connection;
      connection.fd = fd;
      acceptor->HandleNewConnection(&connection);
    });
  }
  SetHealthy(true);
  return OkStatus();
}

void RpcServer::SetHealthy(bool healthy) {
  if (admin_server_ == nullptr) return;
  grpc::HealthCheckServiceInterface& health =
      *admin_server_->GetHealthCheckService();
  health.SetServingStatus(healthy);
  // Names are known to it once they have a status.
  health.SetServingStatus(v1::AdminService::service_full_name(), healthy);
  health.SetServingStatus(v1::DeviceService::service_full_name(), healthy);
}

void RpcServer::Shutdown(Duration grace) {
  listener_->StopAccepting();
  if (device_server_ != nullptr) ShutdownDevices(grace);
  if (admin_server_ != nullptr) {
    admin_server_->Shutdown(std::chrono::system_clock::now() +
                            std::min(grace, kAdminGraceMax));
  }
}

// A device that sleeps does not answer gRPC's GOAWAY, which waits for it for
// 20 s: once no call is left, its connection is ended without it.
void RpcServer::ShutdownDevices(Duration grace) {
  std::mutex mu;
  std::condition_variable ended_changed;
  bool ended = false;
  std::thread disconnect([&] {
    Duration quiet{};
    std::unique_lock<std::mutex> lock(mu);
    while (!ended_changed.wait_for(lock, kQuietPoll, [&] { return ended; })) {
      quiet = device_service_->CallsRunning() ? Duration::zero()
                                              : quiet + kQuietPoll;
      // Time for the last answers to arrive.
      if (quiet >= kQuietMax) listener_->Disconnect();
    }
  });
  device_server_->Shutdown(std::chrono::system_clock::now() + grace);
  {
    const std::lock_guard<std::mutex> lock(mu);
    ended = true;
  }
  ended_changed.notify_all();
  disconnect.join();
}

}  // namespace selvage::coordinator
