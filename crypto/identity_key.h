// The public half of ECDSA P-256 keys (FIPS 186-5) that stay in a keystore, and
// the signatures that a keystore makes with them over a digest: the identity of
// devices whose TLS keys are short-lived.
//
// Strict, as crypto/x509.h is: one encoding for every key, so that its digest
// is the key's name.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"
#include "crypto/digest.h"

namespace selvage::crypto {

// DER SubjectPublicKeyInfo of a named-curve, uncompressed P-256 key (RFC 5480):
// 27 fixed bytes and the 64 of the point.
inline constexpr size_t kP256PublicKeySize = 91;
// r || s, 32 bytes each, big-endian (IEEE P1363), as most keystores can give.
inline constexpr size_t kP256SignatureSize = 64;

// Whether `der` has that form; says nothing of the point.
bool IsP256PublicKeyInfo(ByteSpan der);

// A key whose point was checked.
class P256PublicKey {
 public:
  // INVALID_ARGUMENT unless `bytes` is a SubjectPublicKeyInfo as above, or the
  // 65 bytes of an uncompressed point (X9.62: 4, x, y), of a point that is on
  // P-256.
  static Result<P256PublicKey> Parse(ByteSpan bytes);

  ByteSpan der() const { return der_; }
  // SHA-256 of der(), as for the keys of certificates.
  Digest digest() const { return Sha256(der_); }

  friend bool operator==(const P256PublicKey&, const P256PublicKey&) = default;

 private:
  explicit P256PublicKey(const std::array<uint8_t, kP256PublicKeySize>& der)
      : der_(der) {}

  std::array<uint8_t, kP256PublicKeySize> der_;
};

// DATA_LOSS if the signature (64 bytes as above) does not fit, whatever the
// reason. A signature that fits has a twin that fits, too (n - s): it proves
// who signed, and is no name for what was signed.
Status VerifyP256(const P256PublicKey& key, const Digest& digest,
                  ByteSpan signature);

// What an identity key signs to have a certificate made for a TLS key: SHA-256
// of "selvage/v1 tls key\n" || population || 0 || device_name || 0 || nonce ||
// request_der. REQUIRES: population and device_name have no zero byte.
Digest TlsKeyDigest(std::string_view population, std::string_view device_name,
                    ByteSpan nonce, ByteSpan request_der);

}  // namespace selvage::crypto
