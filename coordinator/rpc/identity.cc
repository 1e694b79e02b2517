#include "coordinator/rpc/identity.h"

#include <grpc/grpc_security_constants.h>

#include <optional>
#include <utility>
#include <vector>

#include "crypto/x509.h"

namespace selvage::coordinator {
namespace {

// About 4 MiB of certificates.
constexpr size_t kLeavesMax = 4096;

}  // namespace

Result<IdentityReader::Leaf> IdentityReader::ParseLeaf(const std::string& pem) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Certificate certificate,
                           crypto::ParseCertificate(pem));
  std::optional<crypto::DeviceName> name;
  for (const std::string& uri : certificate.uris) {
    Result<crypto::DeviceName> parsed = crypto::ParseDeviceUri(uri);
    if (!parsed.ok()) continue;
    if (name.has_value()) {
      return InvalidArgument("the certificate names two devices");
    }
    name = *std::move(parsed);
  }
  if (!name.has_value()) {
    return InvalidArgument("the certificate names no device");
  }
  if (certificate.is_ca) return InvalidArgument("the certificate is a CA's");
  return Leaf{{std::move(name->population), std::move(name->device_id)},
              certificate.not_before,
              certificate.not_after};
}

Result<DeviceIdentity> IdentityReader::Read(
    const grpc::CallbackServerContext& context) {
  Result<DeviceIdentity> device = ReadOptional(context);
  if (!device.ok() && telemetry_ != nullptr) {
    telemetry_->AuthFailed(AuthFailure::kCertificate);
  }
  return device;
}

Result<DeviceIdentity> IdentityReader::ReadOptional(
    const grpc::CallbackServerContext& context) {
  if (insecure_) {
    const auto& metadata = context.client_metadata();
    const auto it = metadata.find(kInsecureDeviceKey);
    if (it == metadata.end() || metadata.count(kInsecureDeviceKey) != 1) {
      return Unauthenticated("no device name was given");
    }
    Result<crypto::DeviceName> name = crypto::ParseDeviceUri(
        std::string_view(it->second.data(), it->second.size()));
    if (!name.ok()) return Unauthenticated("the device name is malformed");
    return DeviceIdentity{name->population, name->device_id};
  }

  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) {
    return Unauthenticated("no client certificate was presented");
  }
  const std::vector<grpc::string_ref> pems =
      auth->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (pems.size() != 1) {
    return Unauthenticated("no client certificate was presented");
  }
  const std::string pem(pems.front().data(), pems.front().size());

  std::optional<Leaf> leaf;
  {
    const MutexLock lock(mu_);
    const auto it = leaves_.find(pem);
    if (it != leaves_.end()) leaf = it->second;
  }
  if (!leaf.has_value()) {
    Result<Leaf> parsed = ParseLeaf(pem);
    if (!parsed.ok()) {
      return Unauthenticated("client certificate: " +
                             std::string(parsed.status().message()));
    }
    leaf = *std::move(parsed);
    const MutexLock lock(mu_);
    if (leaves_.size() >= kLeavesMax) leaves_.clear();
    leaves_.emplace(pem, *leaf);
  }
  const Time now = clock_.Now();
  if (now < leaf->not_before || now > leaf->not_after) {
    return Unauthenticated("the client certificate is not valid now");
  }
  return leaf->device;
}

}  // namespace selvage::coordinator
