// Who is calling: the device named by the verified client certificate, its own
// connection's or the one that a trusted proxy says was presented to it.
#pragma once

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <grpcpp/server_context.h>

#include "base/mutex.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/telemetry.h"

namespace selvage::coordinator {

// In insecure mode, and only there, the caller's word for who it is: its
// device URI, "selvage://POPULATION/device/DEVICE_ID".
inline constexpr char kInsecureDeviceKey[] = "selvage-insecure-device";

// The header of a trusted proxy with the certificate that the device presented
// to it: crypto::ParseForwardedCertificate. From anyone else it means nothing.
inline constexpr char kClientCertKey[] = "client-cert";

struct IdentityOptions {
  // Believe kInsecureDeviceKey instead of a certificate.
  bool insecure = false;
  // Issuer of the devices' certificates, for those that proxies forward; TLS
  // checks the others.
  std::string ca_certificate_pem;
  // Names of balancers that end TLS for the coordinator and are believed about
  // whose it was (docs/decisions/0016). Each has a certificate of our CA with
  // its name (crypto::ProxyUri).
  std::vector<std::string> proxies;
};

// Thread-safe.
class IdentityReader {
 public:
  // `clock` and `telemetry`, which may be null, must outlive the reader.
  IdentityReader(Clock& clock, IdentityOptions options,
                 Telemetry* telemetry = nullptr)
      : clock_(clock), options_(std::move(options)), telemetry_(telemetry) {}

  // UNAUTHENTICATED unless the connection presented a certificate of our CA
  // (TLS verified the chain) that is valid now, is for clients, and has exactly
  // one selvage:// name. Looked at on every call, since a connection may
  // outlive its certificate. If that certificate is a trusted proxy's, all of
  // it, the chain too, is asked of the one certificate that it forwards.
  Result<DeviceIdentity> Read(const grpc::CallbackServerContext& context)
      SELVAGE_EXCLUDES(mu_);
  // The same of a caller that need not have one: its lack is told to nobody.
  Result<DeviceIdentity> ReadOptional(
      const grpc::CallbackServerContext& context) SELVAGE_EXCLUDES(mu_);

 private:
  // A certificate; of a device or of a proxy.
  struct Leaf {
    DeviceIdentity device;
    std::string proxy;  // its name, or empty
    Time not_before{};
    Time not_after{};
  };
  static Result<Leaf> ParseLeaf(const std::string& pem);
  Result<Leaf> ParseForwarded(const std::string& header) const;
  // What `text` says, a PEM certificate or a proxy's header, if it is valid
  // now.
  Result<Leaf> Look(const std::string& text, bool forwarded)
      SELVAGE_EXCLUDES(mu_);

  Clock& clock_;
  const IdentityOptions options_;
  Telemetry* const telemetry_;
  Mutex mu_;
  // By PEM, or "f" and the header: parsing costs 0.1 ms, and a device says the
  // same thing every time.
  std::unordered_map<std::string, Leaf> leaves_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator
