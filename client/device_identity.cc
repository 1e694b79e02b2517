#include "client/device_identity.h"

#include <algorithm>

#include "base/random.h"
#include "crypto/aead.h"

namespace selvage::client {
namespace {

constexpr uint64_t kKeySizeMax = 8 << 10;
constexpr size_t kPlanKeysMax = 16;

// In front of a sealed key; also what is authenticated with it.
constexpr std::string_view kSealedKeyHead = "selvage/v1 sealed device key\n";

Status WriteKey(FileSystem& files, const Path& path,
                const crypto::PrivateKeyPem& key,
                const crypto::SecretBytes* seal) {
  if (seal == nullptr) {
    return WriteFileDurably(files, path, AsBytes(key.ExposeSecret()), 0600)
        .WithContext("writing the device key");
  }
  OsRandom random;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes sealed,
                           crypto::Seal(*seal, AsBytes(key.ExposeSecret()),
                                        AsBytes(kSealedKeyHead), random));
  Bytes contents = ToBytes(kSealedKeyHead);
  AppendBytes(contents, sealed);
  return WriteFileDurably(files, path, contents, 0600)
      .WithContext("writing the sealed device key");
}

Result<crypto::PrivateKeyPem> ParseKey(std::string_view pem) {
  Result<crypto::PrivateKeyPem> key = crypto::ParseP256Key(pem);
  if (!key.ok()) return DataLoss("the device key file is damaged");
  return key;
}

Result<crypto::PrivateKeyPem> LoadOrMakeKey(FileSystem& files, const Path& path,
                                            const crypto::SecretBytes* seal) {
  Result<Bytes> contents = ReadFile(files, path, kKeySizeMax);
  if (!contents.ok()) {
    if (contents.status().code() != StatusCode::kNotFound) {
      return contents.status();
    }
    SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem key, crypto::NewP256Key());
    SELVAGE_RETURN_IF_ERROR(WriteKey(files, path, key, seal));
    return key;
  }
  const std::string_view text = AsText(*contents);
  if (text.substr(0, kSealedKeyHead.size()) == kSealedKeyHead) {
    if (seal == nullptr) {
      return FailedPrecondition(
          "the device key file is sealed, and the host gives no storage key");
    }
    Result<Bytes> pem =
        crypto::Open(*seal, AsBytes(text.substr(kSealedKeyHead.size())),
                     AsBytes(kSealedKeyHead));
    if (!pem.ok()) {
      return FailedPrecondition(
          "the device key file is damaged, or sealed with another storage key");
    }
    Result<crypto::PrivateKeyPem> key = ParseKey(AsText(*pem));
    std::fill(pem->begin(), pem->end(), uint8_t{0});
    return key;
  }
  Result<crypto::PrivateKeyPem> key = ParseKey(text);
  std::fill(contents->begin(), contents->end(), uint8_t{0});
  if (key.ok() && seal != nullptr) {
    SELVAGE_RETURN_IF_ERROR(WriteKey(files, path, *key, seal));
  }
  return key;
}

}  // namespace

Result<std::unique_ptr<DeviceIdentity>> DeviceIdentity::Open(
    IdentityOptions options, FileSystem& files, ClientStore& store) {
  SELVAGE_ASSIGN_OR_RETURN(
      crypto::PrivateKeyPem key,
      LoadOrMakeKey(files, options.key_file, options.key_seal));
  options.key_seal = nullptr;
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
