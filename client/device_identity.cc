#include "client/device_identity.h"

#include <algorithm>

namespace selvage::client {
namespace {

constexpr uint64_t kKeySizeMax = 8 << 10;
constexpr size_t kPlanKeysMax = 16;

Result<crypto::PrivateKeyPem> LoadOrMakeKey(FileSystem& files,
                                            const Path& path) {
  Result<Bytes> pem = ReadFile(files, path, kKeySizeMax);
  if (pem.ok()) {
    Result<crypto::PrivateKeyPem> key = crypto::ParseP256Key(AsText(*pem));
    std::fill(pem->begin(), pem->end(), uint8_t{0});
    if (!key.ok()) return DataLoss("the device key file is damaged");
    return key;
  }
  if (pem.status().code() != StatusCode::kNotFound) return pem.status();
  SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem key, crypto::NewP256Key());
  SELVAGE_RETURN_IF_ERROR(
      WriteFileDurably(files, path, AsBytes(key.ExposeSecret()), 0600)
          .WithContext("writing the device key"));
  return key;
}

}  // namespace

Result<std::unique_ptr<DeviceIdentity>> DeviceIdentity::Open(
    IdentityOptions options, FileSystem& files, ClientStore& store) {
  SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem key,
                           LoadOrMakeKey(files, options.key_file));
  std::unique_ptr<DeviceIdentity> identity(
      new DeviceIdentity(std::move(options), store, std::move(key)));
  const IdentityOptions& own = identity->options_;

  SELVAGE_ASSIGN_OR_RETURN(std::optional<std::string> kept, store.Bundle());
  const bool fresh = !own.bundle_json.empty() && kept != own.bundle_json;
  if (fresh) kept = own.bundle_json;
  if (kept.has_value()) {
    SELVAGE_ASSIGN_OR_RETURN(EnrolmentBundle bundle,
                             ParseEnrolmentBundle(*kept));
    if (bundle.population != own.population) {
      return InvalidArgument("the bundle is for population " +
                             bundle.population + ", not " + own.population);
    }
    if (bundle.ca_certificate.empty() && !own.allow_insecure_loopback) {
      return InvalidArgument(
          "the bundle has no CA certificate, and allow_insecure_loopback is "
          "not set");
    }
    if (fresh) SELVAGE_RETURN_IF_ERROR(store.SetBundle(*kept));
    identity->bundle_ = std::move(bundle);
  }
  SELVAGE_ASSIGN_OR_RETURN(std::optional<Enrolment> enrolment,
                           store.LoadEnrolment());
  if (enrolment.has_value()) {
    // A certificate that does not fit is one to get again, not a reason to
    // stop: the key file may have been replaced.
    (void)identity->Use(*std::move(enrolment));
  }
  return identity;
}

Status DeviceIdentity::Use(Enrolment enrolment) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Certificate certificate,
                           crypto::ParseCertificate(enrolment.certificate_pem));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest own,
                           crypto::PublicKeyDigest(key_));
  if (certificate.public_key_digest != own) {
    return DataLoss("the certificate is for another key");
  }
  not_before_ = certificate.not_before;
  not_after_ = certificate.not_after;
  enrolment_ = std::move(enrolment);
  return OkStatus();
}

bool DeviceIdentity::IsEnrolled(Time now) const {
  return !enrolment_.device_id.empty() && now < not_after_;
}

bool DeviceIdentity::WantsRenewal(Time now) const {
  return IsEnrolled(now) && not_after_ - now < (not_after_ - not_before_) / 3;
}

Result<Endpoint> DeviceIdentity::MakeEndpoint(bool as_device) const {
  if (!bundle_.has_value()) {
    return FailedPrecondition("there is no enrolment bundle yet");
  }
  Endpoint endpoint;
  endpoint.address = bundle_->endpoint;
  endpoint.ca_certificate = bundle_->ca_certificate;
  endpoint.insecure = bundle_->ca_certificate.empty();
  if (as_device) {
    endpoint.certificate_pem = enrolment_.certificate_pem;
    endpoint.private_key_pem = key_.ExposeSecret();
    endpoint.device_uri =
        "selvage://" + options_.population + "/device/" + enrolment_.device_id;
  }
  return endpoint;
}

Status DeviceIdentity::CheckAnswer(const EnrollAnswer& answer, bool renewal,
                                   Time now) const {
  if (answer.population != options_.population) {
    return DataLoss("enrolled in population " + answer.population + ", not " +
                    options_.population);
  }
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Certificate certificate,
                           crypto::ParseCertificate(answer.certificate_pem));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest own,
                           crypto::PublicKeyDigest(key_));
  if (certificate.public_key_digest != own) {
    return DataLoss("the certificate that came is for another key");
  }
  if (now >= certificate.not_after) {
    return FailedPrecondition(
        "the certificate that came has expired: this device needs a new token");
  }
  const std::string uri =
      "selvage://" + options_.population + "/device/" + answer.device_id;
  if (!crypto::ParseDeviceUri(uri).ok() || certificate.uris.size() != 1 ||
      certificate.uris.front() != uri) {
    return DataLoss("the certificate that came is not for this device");
  }
  if (renewal && answer.device_id != enrolment_.device_id) {
    return DataLoss("the renewed certificate is for another device id");
  }
  if (!renewal && (answer.plan_public_keys.empty() ||
                   answer.plan_public_keys.size() > kPlanKeysMax)) {
    return DataLoss("enrolment gave " +
                    std::to_string(answer.plan_public_keys.size()) +
                    " plan keys, not 1.." + std::to_string(kPlanKeysMax));
  }
  return OkStatus();
}

Status DeviceIdentity::Enroll(Transport& transport, bool renewal, Time now) {
  if (!bundle_.has_value()) {
    return FailedPrecondition("there is no enrolment bundle yet");
  }
  const std::string& name =
      renewal ? enrolment_.device_id : options_.device_name;
  EnrollRequest request;
  SELVAGE_ASSIGN_OR_RETURN(request.csr_pem,
                           crypto::NewCertificateRequest(key_, name));
  request.device_name = name;
  if (!renewal) {
    request.token_id = bundle_->token_id;
    request.token_secret = bundle_->token_secret;
  }
  SELVAGE_ASSIGN_OR_RETURN(EnrollAnswer answer, transport.Enroll(request));
  SELVAGE_RETURN_IF_ERROR(CheckAnswer(answer, renewal, now));
  Enrolment enrolment;
  enrolment.device_id = answer.device_id;
  enrolment.certificate_pem = std::move(answer.certificate_pem);
  // Pinned once: who may sign plans does not change with a certificate.
  enrolment.plan_keys =
      renewal ? enrolment_.plan_keys : std::move(answer.plan_public_keys);
  SELVAGE_RETURN_IF_ERROR(store_.SaveEnrolment(enrolment));
  return Use(std::move(enrolment));
}

}  // namespace selvage::client
