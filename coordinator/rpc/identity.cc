#include "coordinator/rpc/identity.h"

#include <grpc/grpc_security_constants.h>

#include <algorithm>
#include <iterator>
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
  std::string proxy;
  for (const std::string& uri : certificate.uris) {
    if (Result<std::string> parsed = crypto::ParseProxyUri(uri); parsed.ok()) {
      proxy = *std::move(parsed);
      continue;
    }
    Result<crypto::DeviceName> parsed = crypto::ParseDeviceUri(uri);
    if (!parsed.ok()) continue;
    if (name.has_value()) {
      return InvalidArgument("the certificate names two devices");
    }
    name = *std::move(parsed);
  }
  if (certificate.is_ca) return InvalidArgument("the certificate is a CA's");
  if (name.has_value() == !proxy.empty()) {
    return InvalidArgument(name.has_value()
                               ? "the certificate names a device and a proxy"
                               : "the certificate names no device");
  }
  Leaf leaf;
  leaf.not_before = certificate.not_before;
  leaf.not_after = certificate.not_after;
  if (name.has_value()) {
    leaf.device = {std::move(name->population), std::move(name->device_id)};
  }
  leaf.proxy = std::move(proxy);
  return leaf;
}

Result<IdentityReader::Leaf> IdentityReader::ParseForwarded(
    const std::string& header) const {
  SELVAGE_ASSIGN_OR_RETURN(const std::string pem,
                           crypto::ParseForwardedCertificate(header));
  SELVAGE_RETURN_IF_ERROR(crypto::VerifyDeviceCertificate(
      options_.ca_certificate_pem, pem, clock_.Now()));
  return ParseLeaf(pem);
}

Result<IdentityReader::Leaf> IdentityReader::Look(const std::string& text,
                                                  bool forwarded) {
  const std::string key = forwarded ? "f" + text : text;
  std::optional<Leaf> leaf;
  {
    const MutexLock lock(mu_);
    const auto it = leaves_.find(key);
    if (it != leaves_.end()) leaf = it->second;
  }
  if (!leaf.has_value()) {
    Result<Leaf> parsed = forwarded ? ParseForwarded(text) : ParseLeaf(text);
    if (!parsed.ok()) {
      return Unauthenticated("client certificate: " +
                             std::string(parsed.status().message()));
    }
    leaf = *std::move(parsed);
    const MutexLock lock(mu_);
    if (leaves_.size() >= kLeavesMax) leaves_.clear();
    leaves_.emplace(key, *leaf);
  }
  const Time now = clock_.Now();
  if (now < leaf->not_before || now > leaf->not_after) {
    return Unauthenticated("the client certificate is not valid now");
  }
  return *std::move(leaf);
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
  if (options_.insecure) {
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
  SELVAGE_ASSIGN_OR_RETURN(
      Leaf leaf,
      Look(std::string(pems.front().data(), pems.front().size()), false));
  if (leaf.proxy.empty()) return std::move(leaf.device);

  if (std::find(options_.proxies.begin(), options_.proxies.end(), leaf.proxy) ==
      options_.proxies.end()) {
    return Unauthenticated("the proxy " + leaf.proxy + " is not trusted");
  }
  const auto [first, last] =
      context.client_metadata().equal_range(kClientCertKey);
  if (first == last || std::next(first) != last) {
    return Unauthenticated("the proxy " + leaf.proxy +
                           " forwarded no client certificate");
  }
  SELVAGE_ASSIGN_OR_RETURN(
      Leaf forwarded,
      Look(std::string(first->second.data(), first->second.size()), true));
  if (!forwarded.proxy.empty()) {
    return Unauthenticated(
        "client certificate: the certificate names no "
        "device");
  }
  return std::move(forwarded.device);
}

}  // namespace selvage::coordinator
