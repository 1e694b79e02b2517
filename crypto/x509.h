// Identities: ECDSA P-256 keys, certificate requests, and the small private CA
// that a coordinator runs for its population (RFC 5280, RFC 2986, RFC 7468).
//
// Device certificate: subject CN = device id, subjectAltName URI =
// "selvage://POPULATION/device/DEVICE_ID", extendedKeyUsage = clientAuth.
// Server certificate: SAN DNS/IP, extendedKeyUsage = serverAuth.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "crypto/digest.h"
#include "crypto/secret.h"

namespace selvage::crypto {

// A P-256 private key as PKCS#8 PEM. Wiped when it goes away.
struct PrivateKeyPem {
  SecretBytes pem;
  std::string_view ExposeSecret() const { return AsText(pem.ExposeSecret()); }
};

Result<PrivateKeyPem> NewP256Key();
// INVALID_ARGUMENT unless `pem` holds one P-256 private key.
Result<PrivateKeyPem> ParseP256Key(std::string_view pem);
// SHA-256 of the DER SubjectPublicKeyInfo.
Result<Digest> PublicKeyDigest(const PrivateKeyPem& key);

// A PKCS#10 request, PEM, signed by `key`; `common_name` may be empty.
Result<std::string> NewCertificateRequest(const PrivateKeyPem& key,
                                          std::string_view common_name);

struct CertificateRequest {
  std::string common_name;
  Digest public_key_digest;
};
// Checks the request's own signature. INVALID_ARGUMENT if it is malformed, over
// 8 KiB, not P-256, or the signature does not fit.
Result<CertificateRequest> ParseCertificateRequest(std::string_view pem);

struct Certificate {
  std::string common_name;
  std::vector<std::string> uris;   // SAN entries
  std::vector<std::string> names;  // DNS and IP SAN entries
  std::string serial_hex;
  Digest public_key_digest;
  Time not_before{};
  Time not_after{};
  bool is_ca = false;
};
// INVALID_ARGUMENT if malformed or over 16 KiB.
Result<Certificate> ParseCertificate(std::string_view pem);

class CertificateAuthority {
 public:
  // A new self-signed CA, valid from `now` - 1 hour for `lifetime`.
  static Result<CertificateAuthority> Create(std::string_view common_name,
                                             Time now, Duration lifetime,
                                             RandomSource& random);
  // INVALID_ARGUMENT if the pair does not belong together.
  static Result<CertificateAuthority> Load(std::string_view certificate_pem,
                                           PrivateKeyPem key);

  const std::string& certificate_pem() const { return certificate_pem_; }
  const PrivateKeyPem& key() const { return key_; }

  // A client certificate for the key of `request_pem`. The request's own names
  // and extensions are ignored.
  Result<std::string> IssueDevice(std::string_view request_pem,
                                  std::string_view population,
                                  std::string_view device_id, Time now,
                                  Duration lifetime,
                                  RandomSource& random) const;
  // A server certificate for `key` and `names` (DNS names or IP addresses).
  Result<std::string> IssueServer(const PrivateKeyPem& key,
                                  const std::vector<std::string>& names,
                                  Time now, Duration lifetime,
                                  RandomSource& random) const;

  // PERMISSION_DENIED, with a reason fit for a log, unless `leaf_pem` was
  // signed by this CA, is valid at `now`, and carries extendedKeyUsage
  // clientAuth.
  Status VerifyDevice(std::string_view leaf_pem, Time now) const;

 private:
  CertificateAuthority(std::string certificate_pem, PrivateKeyPem key)
      : certificate_pem_(std::move(certificate_pem)), key_(std::move(key)) {}

  std::string certificate_pem_;
  PrivateKeyPem key_;
};

struct DeviceName {
  std::string population;
  std::string device_id;
};
// Parses "selvage://POPULATION/device/DEVICE_ID".
Result<DeviceName> ParseDeviceUri(std::string_view uri);

}  // namespace selvage::crypto
