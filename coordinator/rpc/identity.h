// Who is calling: the device named by the verified client certificate.
#pragma once

#include <string>
#include <unordered_map>

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

// Thread-safe.
class IdentityReader {
 public:
  // `insecure`: believe kInsecureDeviceKey instead of a certificate. `clock`
  // and `telemetry`, which may be null, must outlive the reader.
  IdentityReader(Clock& clock, bool insecure, Telemetry* telemetry = nullptr)
      : clock_(clock), insecure_(insecure), telemetry_(telemetry) {}

  // UNAUTHENTICATED unless the connection presented a certificate of our CA
  // (TLS verified the chain) that is valid now, is for clients, and has exactly
  // one selvage:// name. Looked at on every call, since a connection may
  // outlive its certificate.
  Result<DeviceIdentity> Read(const grpc::CallbackServerContext& context)
      SELVAGE_EXCLUDES(mu_);
  // The same of a caller that need not have one: its lack is told to nobody.
  Result<DeviceIdentity> ReadOptional(
      const grpc::CallbackServerContext& context) SELVAGE_EXCLUDES(mu_);

 private:
  struct Leaf {
    DeviceIdentity device;
    Time not_before{};
    Time not_after{};
  };
  static Result<Leaf> ParseLeaf(const std::string& pem);

  Clock& clock_;
  const bool insecure_;
  Telemetry* const telemetry_;
  Mutex mu_;
  // By PEM: parsing costs 0.1 ms, and a device says the same thing every time.
  std::unordered_map<std::string, Leaf> leaves_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator
