#include "client/device_identity.h"

#include <algorithm>

#include "base/random.h"
#include "crypto/aead.h"
#include "crypto/identity_key.h"

namespace selvage::client {
namespace {

constexpr uint64_t kKeySizeMax = 8 << 10;
constexpr size_t kPlanKeysMax = 16;
// A keystore that asks its user, or a slow secure element; not one that hangs.
constexpr Duration kSignMax = std::chrono::minutes(1);
// A nonce that was too old once is asked for again.
constexpr int kSignaturesMax = 2;

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

// NOT_FOUND: there is no file.
Result<crypto::PrivateKeyPem> ReadKey(FileSystem& files, const Path& path,
                                      const crypto::SecretBytes* seal) {
  SELVAGE_ASSIGN_OR_RETURN(Bytes contents, ReadFile(files, path, kKeySizeMax));
  const std::string_view text = AsText(contents);
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
  std::fill(contents.begin(), contents.end(), uint8_t{0});
  if (key.ok() && seal != nullptr) {
    SELVAGE_RETURN_IF_ERROR(WriteKey(files, path, *key, seal));
  }
  return key;
}

}  // namespace

Result<std::unique_ptr<DeviceIdentity>> DeviceIdentity::Open(
    IdentityOptions options, FileSystem& files, ClientStore& store) {
  std::unique_ptr<DeviceIdentity> identity(
      new DeviceIdentity(std::move(options), files, store));
  SELVAGE_RETURN_IF_ERROR(identity->LoadKey());
  bool fresh = false;
  SELVAGE_RETURN_IF_ERROR(identity->LoadBundle(fresh));
  SELVAGE_RETURN_IF_ERROR(identity->LoadEnrolment(fresh));
  return identity;
}

Status DeviceIdentity::LoadKey() {
  Result<crypto::PrivateKeyPem> key =
      ReadKey(files_, options_.key_file, seal());
  if (key.ok()) {
    key_ = *std::move(key);
    return OkStatus();
  }
  if (options_.identity_key != nullptr) return OkStatus();
  if (key.status().code() != StatusCode::kNotFound) return key.status();
  SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem made, crypto::NewP256Key());
  SELVAGE_RETURN_IF_ERROR(WriteKey(files_, options_.key_file, made, seal()));
  key_ = std::move(made);
  return OkStatus();
}

Status DeviceIdentity::LoadBundle(bool& fresh) {
  SELVAGE_ASSIGN_OR_RETURN(std::optional<std::string> kept, store_.Bundle());
  fresh = !options_.bundle_json.empty() && kept != options_.bundle_json;
  if (fresh) kept = options_.bundle_json;
  if (!kept.has_value()) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(EnrolmentBundle bundle, ParseEnrolmentBundle(*kept));
  if (bundle.population != options_.population) {
    return InvalidArgument("the bundle is for population " + bundle.population +
                           ", not " + options_.population);
  }
  if (bundle.ca_certificate.empty() && !options_.allow_insecure_loopback) {
    return InvalidArgument(
        "the bundle has no CA certificate, and allow_insecure_loopback is "
        "not set");
  }
  bundle_ = std::move(bundle);
  return OkStatus();
}

Status DeviceIdentity::LoadEnrolment(bool fresh) {
  SELVAGE_ASSIGN_OR_RETURN(std::optional<Enrolment> enrolment,
                           store_.LoadEnrolment());
  const bool foreign =
      enrolment.has_value() && enrolment->identity_key != IdentityDigest();
  // First this: without the new bundle the old enrolment could not be used.
  if (foreign && fresh) SELVAGE_RETURN_IF_ERROR(store_.ForgetEnrolment());
  if (fresh) SELVAGE_RETURN_IF_ERROR(store_.SetBundle(options_.bundle_json));
  if (!enrolment.has_value() || (foreign && fresh)) return OkStatus();
  if (foreign) {
    const std::string name = "device " + enrolment->device_id;
    const std::string remedy = "; a new bundle enrols this one anew";
    unusable_ = FailedPrecondition(
        enrolment->identity_key.empty()
            ? name + " was enrolled without an identity key" + remedy
        : options_.identity_key == nullptr
            ? name + " was enrolled with an identity key, and the host gives " +
                  "none" + remedy
            : name + " was enrolled with the identity key " +
                  enrolment->identity_key.ToHex().substr(0, 16) +
                  ", and the host gives " +
                  IdentityDigest().ToHex().substr(0, 16) + remedy);
    return OkStatus();
  }
  if (Status status = Use(*enrolment); !status.ok()) {
    // A certificate that does not fit is one to get again, not a reason to
    // stop: the key file may have been replaced.
    if (options_.identity_key != nullptr) enrolment_ = *std::move(enrolment);
  }
  return OkStatus();
}

crypto::Digest DeviceIdentity::IdentityDigest() const {
  return options_.identity_key == nullptr
             ? crypto::Digest{}
             : options_.identity_key->public_key().digest();
}

Status DeviceIdentity::Use(Enrolment enrolment) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Certificate certificate,
                           crypto::ParseCertificate(enrolment.certificate_pem));
  if (!key_.has_value()) return DataLoss("the certificate's key is gone");
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest own,
                           crypto::PublicKeyDigest(*key_));
  if (certificate.public_key_digest != own) {
    return DataLoss("the certificate is for another key");
  }
  not_before_ = certificate.not_before;
  not_after_ = certificate.not_after;
  enrolment_ = std::move(enrolment);
  return OkStatus();
}

bool DeviceIdentity::IsEnrolled(Time now) const {
  return !enrolment_.device_id.empty() &&
         (options_.identity_key != nullptr || now < not_after_);
}

bool DeviceIdentity::NeedsCertificate(Time now) const {
  return IsEnrolled(now) && now >= not_after_;
}

bool DeviceIdentity::WantsRenewal(Time now) const {
  return IsEnrolled(now) && not_after_ - now < (not_after_ - not_before_) / 3;
}

Result<Endpoint> DeviceIdentity::MakeEndpoint(bool as_device) const {
  SELVAGE_RETURN_IF_ERROR(unusable_);
  if (!bundle_.has_value()) {
    return FailedPrecondition("there is no enrolment bundle yet");
  }
  Endpoint endpoint;
  endpoint.address = bundle_->endpoint;
  endpoint.ca_certificate = bundle_->ca_certificate;
  endpoint.insecure = bundle_->ca_certificate.empty();
  if (as_device && key_.has_value()) {
    endpoint.certificate_pem = enrolment_.certificate_pem;
    endpoint.private_key_pem = key_->ExposeSecret();
    endpoint.device_uri =
        "selvage://" + options_.population + "/device/" + enrolment_.device_id;
  }
  return endpoint;
}

Status DeviceIdentity::CheckAnswer(const EnrollAnswer& answer,
                                   const crypto::PrivateKeyPem& key,
                                   bool renewal, Time now) const {
  if (answer.population != options_.population) {
    return DataLoss("enrolled in population " + answer.population + ", not " +
                    options_.population);
  }
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Certificate certificate,
                           crypto::ParseCertificate(answer.certificate_pem));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest own,
                           crypto::PublicKeyDigest(key));
  if (certificate.public_key_digest != own) {
    return DataLoss("the certificate that came is for another key");
  }
  if (now >= certificate.not_after) {
    return FailedPrecondition(
        options_.identity_key != nullptr
            ? "the certificate that came has expired: this device's clock is "
              "ahead"
            : "the certificate that came has expired: this device needs a new "
              "token");
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

EnrollRequest DeviceIdentity::NewRequest(bool renewal) const {
  EnrollRequest request;
  request.device_name = renewal ? enrolment_.device_id : options_.device_name;
  if (!renewal) {
    request.token_id = bundle_->token_id;
    request.token_secret = bundle_->token_secret;
  }
  return request;
}

Status DeviceIdentity::Enroll(Transport& transport, bool renewal,
                              Clock& clock) {
  SELVAGE_RETURN_IF_ERROR(unusable_);
  if (!bundle_.has_value()) {
    return FailedPrecondition("there is no enrolment bundle yet");
  }
  EnrollRequest request = NewRequest(renewal);
  if (options_.identity_key == nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(request.csr_pem, crypto::NewCertificateRequest(
                                                  *key_, request.device_name));
    SELVAGE_ASSIGN_OR_RETURN(EnrollAnswer answer, transport.Enroll(request));
    SELVAGE_RETURN_IF_ERROR(CheckAnswer(answer, *key_, renewal, clock.Now()));
    return Keep(std::move(answer), renewal);
  }
  SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem tls_key, crypto::NewP256Key());
  SELVAGE_ASSIGN_OR_RETURN(
      EnrollAnswer answer,
      AskWithSignature(transport, std::move(request), tls_key, clock));
  SELVAGE_RETURN_IF_ERROR(CheckAnswer(answer, tls_key, renewal, clock.Now()));
  // The key first: a certificate without its key is one to get again, which
  // the identity key can do at any time.
  SELVAGE_RETURN_IF_ERROR(WriteKey(files_, options_.key_file, tls_key, seal()));
  key_ = std::move(tls_key);
  return Keep(std::move(answer), renewal);
}

Status DeviceIdentity::Keep(EnrollAnswer answer, bool renewal) {
  Enrolment enrolment;
  enrolment.device_id = answer.device_id;
  enrolment.certificate_pem = std::move(answer.certificate_pem);
  // Pinned once: who may sign plans does not change with a certificate.
  enrolment.plan_keys =
      renewal ? enrolment_.plan_keys : std::move(answer.plan_public_keys);
  enrolment.identity_key = IdentityDigest();
  if (Status status = store_.SaveEnrolment(enrolment); !status.ok()) {
    // The key of the old certificate is gone.
    if (options_.identity_key != nullptr) not_after_ = Time{};
    return status;
  }
  return Use(std::move(enrolment));
}

Result<EnrollAnswer> DeviceIdentity::AskWithSignature(
    Transport& transport, EnrollRequest request,
    const crypto::PrivateKeyPem& tls_key, Clock& clock) {
  const ByteSpan key = options_.identity_key->public_key().der();
  request.population = options_.population;
  request.identity_public_key = Bytes(key.begin(), key.end());
  SELVAGE_ASSIGN_OR_RETURN(EnrollAnswer answer, transport.Enroll(request));
  if (answer.nonce.empty()) {
    return FailedPrecondition(
        "the coordinator gave no nonce: it does not know identity keys");
  }
  SELVAGE_ASSIGN_OR_RETURN(request.csr_pem, crypto::NewCertificateRequest(
                                                tls_key, request.device_name));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateRequest csr,
                           crypto::ParseCertificateRequest(request.csr_pem));
  for (int i = 0; i < kSignaturesMax && !answer.nonce.empty(); ++i) {
    request.identity_nonce = std::move(answer.nonce);
    SELVAGE_ASSIGN_OR_RETURN(
        request.identity_signature,
        Sign(crypto::TlsKeyDigest(request.population, request.device_name,
                                  request.identity_nonce, csr.der),
             clock));
    SELVAGE_ASSIGN_OR_RETURN(answer, transport.Enroll(request));
  }
  if (!answer.nonce.empty()) {
    return Unavailable(
        "the coordinator's nonce was too old when it was signed");
  }
  return answer;
}

Result<Bytes> DeviceIdentity::Sign(const crypto::Digest& digest, Clock& clock) {
  const Time asked = clock.Now();
  Result<Bytes> signature = options_.identity_key->Sign(digest);
  if (!signature.ok()) {
    return signature.status().WithContext("signing with the identity key");
  }
  const Duration took = clock.Now() - asked;
  if (took > kSignMax) {
    return DeadlineExceeded(
        "the host took " +
        std::to_string(
            std::chrono::duration_cast<std::chrono::seconds>(took).count()) +
        " s to sign with the identity key, the bound is 60 s");
  }
  if (signature->size() != crypto::kP256SignatureSize) {
    return FailedPrecondition(
        "the host's signature has " + std::to_string(signature->size()) +
        " bytes, not " + std::to_string(crypto::kP256SignatureSize));
  }
  if (!crypto::VerifyP256(options_.identity_key->public_key(), digest,
                          *signature)
           .ok()) {
    return FailedPrecondition(
        "the host's signature does not fit its identity key");
  }
  return signature;
}

}  // namespace selvage::client
