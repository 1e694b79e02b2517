// Who this device is: a P-256 key in a file of its own (0600), the certificate
// the coordinator gave for it, and the plan keys pinned when it was given.
//
// With an identity key of the host's keystore, that key is who the device is.
// The one in the file is the TLS key of one certificate, made for it and thrown
// away with it; the identity key signs the request for the next one, however
// long ago the last one ended (docs/decisions/0007).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/identity_key.h"
#include "client/core/transport.h"
#include "client/enrolment_bundle.h"
#include "client/store/client_store.h"
#include "crypto/x509.h"

namespace selvage::client {

struct IdentityOptions {
  Path key_file;  // of one kind of key only: not the same with an identity key
  std::string population;
  std::string bundle_json;  // may be empty once a bundle was kept
  std::string device_name;
  bool allow_insecure_loopback = false;
  // Seals the key file (AES-256-GCM, 32 bytes); nullopt: it is plain PEM.
  std::optional<crypto::SecretBytes> key_seal = std::nullopt;
  IdentityKey* identity_key = nullptr;  // must outlive the identity
};

// Thread-compatible.
class DeviceIdentity {
 public:
  // Reads what there is; makes the key if there is none. `files` and `store`
  // must outlive it. INVALID_ARGUMENT: the bundle is malformed, is for another
  // population, or has no CA certificate and insecure mode was not allowed.
  // A plain key file is sealed once there is a seal. FAILED_PRECONDITION: the
  // key file is sealed and `key_seal` does not open it, or there is none.
  //
  // With an identity key, a key file that cannot be read is no error: another
  // key is made. An enrolment under another identity key, or under none (or
  // under one, and the host gives none now) is not used: if the bundle is new,
  // it is forgotten, and the device enrols as another one; if not, MakeEndpoint
  // and Enroll say what is wrong.
  static Result<std::unique_ptr<DeviceIdentity>> Open(IdentityOptions options,
                                                      FileSystem& files,
                                                      ClientStore& store);

  const std::string& device_id() const { return enrolment_.device_id; }
  const std::vector<crypto::Ed25519PublicKey>& plan_keys() const {
    return enrolment_.plan_keys;
  }
  // The coordinator knows this device: there is a certificate which has not
  // expired, or an identity key to get the next one with.
  bool IsEnrolled(Time now) const;
  // Enrolled, but there is no certificate that is valid: Enroll(renewal) comes
  // before anything else. Only with an identity key.
  bool NeedsCertificate(Time now) const;
  // Less than a third of the certificate's life is left.
  bool WantsRenewal(Time now) const;
  // Whether the transport of a renewal presents the certificate: with an
  // identity key it presents none.
  bool RenewsAsDevice() const { return options_.identity_key == nullptr; }

  // FAILED_PRECONDITION if there is no bundle. `as_device`: with certificate.
  Result<Endpoint> MakeEndpoint(bool as_device) const;

  // Gets a certificate and keeps it. A repeated call with the same token and
  // key gets the same certificate, so a lost answer burns nothing. A renewal
  // (over a transport that presents the old certificate) keeps the plan keys.
  // DATA_LOSS if the answer is not for this device's key and population;
  // FAILED_PRECONDITION if the certificate that came is over already: after so
  // long a silence the device needs a new token.
  //
  // With an identity key: two calls of the transport, and the host signs in
  // between. What Sign() answers is the error if it fails; DEADLINE_EXCEEDED if
  // it took longer than a minute, FAILED_PRECONDITION if what it gave is no
  // signature of its key, UNAVAILABLE if the nonce got too old meanwhile.
  Status Enroll(Transport& transport, bool renewal, Clock& clock);

 private:
  DeviceIdentity(IdentityOptions options, FileSystem& files, ClientStore& store)
      : options_(std::move(options)), files_(files), store_(store) {}

  Status LoadKey();
  Status LoadBundle(bool& fresh);
  Status LoadEnrolment(bool fresh);
  const crypto::SecretBytes* seal() const {
    return options_.key_seal.has_value() ? &*options_.key_seal : nullptr;
  }
  // Of the identity key; empty: there is none.
  crypto::Digest IdentityDigest() const;

  EnrollRequest NewRequest(bool renewal) const;
  Result<EnrollAnswer> AskWithSignature(Transport& transport,
                                        EnrollRequest request,
                                        const crypto::PrivateKeyPem& tls_key,
                                        Clock& clock);
  Result<Bytes> Sign(const crypto::Digest& digest, Clock& clock);
  Status CheckAnswer(const EnrollAnswer& answer,
                     const crypto::PrivateKeyPem& key, bool renewal,
                     Time now) const;
  Status Keep(EnrollAnswer answer, bool renewal);
  Status Use(Enrolment enrolment);

  const IdentityOptions options_;
  FileSystem& files_;
  ClientStore& store_;
  Status unusable_;  // why the enrolment is not used, if it is not
  // With an identity key: nullopt before the first certificate.
  std::optional<crypto::PrivateKeyPem> key_;
  std::optional<EnrolmentBundle> bundle_;
  Enrolment enrolment_;
  Time not_before_{};
  Time not_after_{};
};

}  // namespace selvage::client
