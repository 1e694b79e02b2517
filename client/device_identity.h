// Who this device is: a P-256 key in a file of its own (0600), the certificate
// the coordinator gave for it, and the plan keys pinned when it was given.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/transport.h"
#include "client/enrolment_bundle.h"
#include "client/store/client_store.h"
#include "crypto/x509.h"

namespace selvage::client {

struct IdentityOptions {
  Path key_file;
  std::string population;
  std::string bundle_json;  // may be empty once a bundle was kept
  std::string device_name;
  bool allow_insecure_loopback = false;
  // Seals the key file (AES-256-GCM, 32 bytes); nullptr: it is plain PEM. Used
  // by Open() only.
  const crypto::SecretBytes* key_seal = nullptr;
};

// Thread-compatible.
class DeviceIdentity {
 public:
  // Reads what there is; makes the key if there is none. `files` and `store`
  // must outlive it. INVALID_ARGUMENT: the bundle is malformed, is for another
  // population, or has no CA certificate and insecure mode was not allowed.
  // A plain key file is sealed once there is a seal. FAILED_PRECONDITION: the
  // key file is sealed and `key_seal` does not open it, or there is none.
  static Result<std::unique_ptr<DeviceIdentity>> Open(IdentityOptions options,
                                                      FileSystem& files,
                                                      ClientStore& store);

  const std::string& device_id() const { return enrolment_.device_id; }
  const std::vector<crypto::Ed25519PublicKey>& plan_keys() const {
    return enrolment_.plan_keys;
  }
  // There is a certificate and it has not expired.
  bool IsEnrolled(Time now) const;
  // Less than a third of the certificate's life is left.
  bool WantsRenewal(Time now) const;

  // FAILED_PRECONDITION if there is no bundle. `as_device`: with certificate.
  Result<Endpoint> MakeEndpoint(bool as_device) const;

  // Gets a certificate and keeps it. A repeated call with the same token and
  // key gets the same certificate, so a lost answer burns nothing. A renewal
  // (over a transport that presents the old certificate) keeps the plan keys.
  // DATA_LOSS if the answer is not for this device's key and population;
  // FAILED_PRECONDITION if the certificate that came is over at `now`: after so
  // long a silence the device needs a new token.
  Status Enroll(Transport& transport, bool renewal, Time now);

 private:
  DeviceIdentity(IdentityOptions options, ClientStore& store,
                 crypto::PrivateKeyPem key)
      : options_(std::move(options)), store_(store), key_(std::move(key)) {}

  Status CheckAnswer(const EnrollAnswer& answer, bool renewal, Time now) const;
  Status Use(Enrolment enrolment);

  const IdentityOptions options_;
  ClientStore& store_;
  const crypto::PrivateKeyPem key_;
  std::optional<EnrolmentBundle> bundle_;
  Enrolment enrolment_;
  Time not_before_{};
  Time not_after_{};
};

}  // namespace selvage::client
