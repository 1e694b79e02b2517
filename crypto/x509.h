// Identities: ECDSA P-256 keys, certificate requests, and the small private CA
// that a coordinator runs for its population (RFC 5280, RFC 2986, RFC 7468).
//
// All of it is strict: one PEM block and nothing around it, DER to the last
// byte, named curve, uncompressed point, ECDSA-SHA-256. Everything here may be
// called from several threads at once, on one CertificateAuthority too.
//
// Device certificate: subject CN = device id, subjectAltName URI =
// "selvage://POPULATION/device/DEVICE_ID", extendedKeyUsage = clientAuth.
// Server certificate: SAN DNS/IP, extendedKeyUsage = serverAuth.
// Proxy certificate, of a balancer that ends TLS for the coordinator: subject
// CN = name, SAN URI = "selvage://proxy/NAME" and DNS/IP, extendedKeyUsage =
// serverAuth, clientAuth.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
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
// INVALID_ARGUMENT unless `pem` is one unencrypted P-256 private key ("PRIVATE
// KEY" or "EC PRIVATE KEY") and nothing else, of at most 8 KiB.
Result<PrivateKeyPem> ParseP256Key(std::string_view pem);
// SHA-256 of the DER SubjectPublicKeyInfo.
Result<Digest> PublicKeyDigest(const PrivateKeyPem& key);

// A PKCS#10 request, PEM, signed by `key`; `common_name` may be empty.
Result<std::string> NewCertificateRequest(const PrivateKeyPem& key,
                                          std::string_view common_name);

struct CertificateRequest {
  std::string common_name;
  Digest public_key_digest;
  Bytes der;
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

// The PEM certificate in a header of a proxy that ended TLS: RFC 9440's
// Client-Cert (":" base64 of the DER ":"), or PEM with the bytes of URLs'
// escapes (nginx's $ssl_client_escaped_cert). Says nothing of the certificate
// itself. INVALID_ARGUMENT if it is neither, or decodes to over 16 KiB.
Result<std::string> ParseForwardedCertificate(std::string_view header);

class CertificateAuthority {
 public:
  // A new self-signed CA, valid from `now` - 1 hour to `now` + `lifetime`
  // (within 1970..9999). INVALID_ARGUMENT if `common_name` is empty or over 64
  // bytes, `now` is outside 1970..9999 or `lifetime` is below one second.
  static Result<CertificateAuthority> Create(std::string_view common_name,
                                             Time now, Duration lifetime,
                                             RandomSource& random);
  // INVALID_ARGUMENT if the certificate is not a self-signed CA's, or the pair
  // does not belong together.
  static Result<CertificateAuthority> Load(std::string_view certificate_pem,
                                           PrivateKeyPem key);

  const std::string& certificate_pem() const { return certificate_pem_; }
  const PrivateKeyPem& key() const { return key_; }

  // A client certificate for the key of `request_pem`. The request's own names
  // and extensions are ignored. Every call draws a new serial number: who wants
  // the same certificate for the same request keeps the first.
  //
  // Validity as in Create, cut to the CA's own: a leaf never outlives its CA.
  // INVALID_ARGUMENT if the request is refused (ParseCertificateRequest), a
  // name is no identifier (DeviceName) or the validity makes no sense;
  // FAILED_PRECONDITION if the CA itself is not valid at `now`.
  Result<std::string> IssueDevice(std::string_view request_pem,
                                  std::string_view population,
                                  std::string_view device_id, Time now,
                                  Duration lifetime,
                                  RandomSource& random) const;
  // A server certificate for `key` and `names` (1..64 DNS names or IP
  // addresses, no wildcards). Errors as for IssueDevice.
  Result<std::string> IssueServer(const PrivateKeyPem& key,
                                  const std::vector<std::string>& names,
                                  Time now, Duration lifetime,
                                  RandomSource& random) const;
  // A proxy's certificate: what it is called (an identifier, see DeviceName)
  // and the names that devices connect to. Errors as for IssueServer.
  Result<std::string> IssueProxy(const PrivateKeyPem& key,
                                 std::string_view proxy_name,
                                 const std::vector<std::string>& names,
                                 Time now, Duration lifetime,
                                 RandomSource& random) const;

  // VerifyDeviceCertificate() with this CA.
  Status VerifyDevice(std::string_view leaf_pem, Time now) const;

 private:
  CertificateAuthority(std::string certificate_pem, PrivateKeyPem key)
      : certificate_pem_(std::move(certificate_pem)), key_(std::move(key)) {}

  std::string certificate_pem_;
  PrivateKeyPem key_;
};

// PERMISSION_DENIED, with a reason fit for a log, unless `leaf_pem` was signed
// by the CA whose certificate is `ca_pem`, is valid at `now`, and carries
// extendedKeyUsage clientAuth. INVALID_ARGUMENT: `ca_pem` is malformed.
Status VerifyDeviceCertificate(std::string_view ca_pem,
                               std::string_view leaf_pem, Time now);

// Both are identifiers: 1..64 of [A-Za-z0-9._-], a letter or digit first.
struct DeviceName {
  std::string population;
  std::string device_id;
};
// Parses "selvage://POPULATION/device/DEVICE_ID". INVALID_ARGUMENT otherwise.
Result<DeviceName> ParseDeviceUri(std::string_view uri);
// The NAME of "selvage://proxy/NAME", an identifier. INVALID_ARGUMENT
// otherwise.
Result<std::string> ParseProxyUri(std::string_view uri);
// That URI. INVALID_ARGUMENT if `name` is no identifier.
Result<std::string> ProxyUri(std::string_view name);

}  // namespace selvage::crypto
