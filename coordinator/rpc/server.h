// The coordinator's two ports: devices (mutual TLS) and people (TLS and a
// bearer token).
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/rpc/admin_service.h"
#include "coordinator/rpc/device_service.h"
#include "coordinator/rpc/listener.h"
#include "coordinator/telemetry.h"

namespace selvage::coordinator {

struct ServerTls {
  std::string ca_certificate_pem;  // the only issuer of device certificates
  std::string certificate_pem;
  std::string private_key_pem;
};

struct RpcServerOptions {
  std::string device_address = "0.0.0.0:8443";  // port 0: any free one
  std::string admin_address = "127.0.0.1:8444";
  // nullopt: plaintext, refused on anything but loopback addresses.
  std::optional<ServerTls> tls;
  uint64_t connections_max = 10'000;  // on the device port
  int streams_max = 100;              // calls at a time of one connection
  // Of a device's connection: without a call; in all, as balancers in front
  // balance connections and not calls; and what running calls get after that.
  Duration connection_idle = std::chrono::minutes(2);
  Duration connection_age = std::chrono::minutes(30);
  Duration connection_age_grace = std::chrono::minutes(15);
  // IdentityOptions::proxies; needs `tls`.
  std::vector<std::string> proxies;
  // grpc.reflection on the admin port; the device port never has it.
  bool reflection = true;
  DeviceServiceOptions device;
  AdminServiceOptions admin;
  Telemetry* telemetry = nullptr;  // null: nobody watches
};

// Crypto::RequireTls13() must have been called before Bind(). Thread-safe.
class RpcServer {
 public:
  // Takes the device port, so that its number is known; connections wait in
  // the kernel's queue until Serve(). `clock` and `log` must outlive the
  // server. INVALID_ARGUMENT: an address, or plaintext beyond loopback.
  // UNAVAILABLE: the port is taken.
  static Result<std::unique_ptr<RpcServer>> Bind(RpcServerOptions options,
                                                 Clock& clock, EventSink& log);
  ~RpcServer();  // Shutdown(0)
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int device_port() const { return listener_->port(); }
  int admin_port() const { return admin_port_; }  // 0 before Serve()

  // Once. Both APIs must outlive the server. `device_endpoint` is what
  // GetServerInfo tells. UNAVAILABLE: the admin port is taken.
  Status Serve(DeviceApi& devices, AdminApi& people,
               const std::string& device_endpoint);

  // What load balancers and probes see on the admin port's health service: of
  // "", selvage.v1.AdminService and selvage.v1.DeviceService. Others are
  // NOT_FOUND.
  void SetHealthy(bool healthy);

  // Refuses new connections and calls, waits up to `grace` for running ones,
  // then cancels them. Returns when none is left, which does not take a peer
  // that sleeps on a connection without a call. Idempotent.
  void Shutdown(Duration grace);

  SocketStats socket_stats() const { return listener_->stats(); }
  // TLS connections that presented a device certificate of our CA.
  uint64_t verified_connections() const { return *verified_; }

 private:
  RpcServer(RpcServerOptions options, std::unique_ptr<Listener> listener,
            Clock& clock, EventSink& log);

  void ShutdownDevices(Duration grace);

  const RpcServerOptions options_;
  Clock& clock_;
  EventSink& log_;
  const std::unique_ptr<Listener> listener_;
  IdentityReader identities_;
  const std::shared_ptr<std::atomic<uint64_t>> verified_;
  const Time started_;
  int admin_port_ = 0;
  std::unique_ptr<DeviceService> device_service_;
  std::unique_ptr<AdminService> admin_service_;
  std::unique_ptr<grpc::Server> device_server_;
  std::unique_ptr<grpc::Server> admin_server_;
};

}  // namespace selvage::coordinator
