#include "crypto/identity_key.h"

#include <algorithm>
#include <string>

#include <openssl/ec.h>
#include <openssl/ecdsa.h>

#include "base/check.h"
#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

// Everything of a P-256 SubjectPublicKeyInfo up to the 64 bytes of the point:
// named curve, uncompressed.
constexpr std::array<uint8_t, 27> kPrefix = {
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48,
    0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48,
    0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
constexpr size_t kPointSize = 65;
constexpr uint8_t kUncompressed = 4;
constexpr std::string_view kTlsKeyLabel = "selvage/v1 tls key\n";

using EcdsaSigPtr = OpenSslPtr<ECDSA_SIG, ECDSA_SIG_free>;

PkeyPtr Decode(ByteSpan der) {
  const unsigned char* in = der.data();
  PkeyPtr key(d2i_PUBKEY(nullptr, &in, static_cast<long>(der.size())));
  if (key == nullptr || in != der.data() + der.size()) return nullptr;
  return key;
}

// The DER that OpenSSL verifies, of r || s; empty if OpenSSL failed.
Bytes DerOf(ByteSpan signature) {
  const int half = static_cast<int>(kP256SignatureSize / 2);
  const EcdsaSigPtr pair(ECDSA_SIG_new());
  BignumPtr r(BN_bin2bn(signature.data(), half, nullptr));
  BignumPtr s(BN_bin2bn(signature.data() + half, half, nullptr));
  if (pair == nullptr || r == nullptr || s == nullptr ||
      ECDSA_SIG_set0(pair.get(), r.get(), s.get()) != 1) {
    return {};
  }
  (void)r.release();  // `pair` owns them now
  (void)s.release();
  const int size = i2d_ECDSA_SIG(pair.get(), nullptr);
  if (size <= 0) return {};
  Bytes der(static_cast<size_t>(size));
  unsigned char* out = der.data();
  i2d_ECDSA_SIG(pair.get(), &out);
  return der;
}

}  // namespace

bool IsP256PublicKeyInfo(ByteSpan der) {
  return der.size() == kP256PublicKeySize &&
         std::equal(kPrefix.begin(), kPrefix.end(), der.begin());
}

Result<P256PublicKey> P256PublicKey::Parse(ByteSpan bytes) {
  const ErrorScope errors;
  std::array<uint8_t, kP256PublicKeySize> der{};
  if (bytes.size() == kPointSize && bytes[0] == kUncompressed) {
    std::copy(kPrefix.begin(), kPrefix.end(), der.begin());
    std::copy(bytes.begin() + 1, bytes.end(), der.begin() + kPrefix.size());
  } else if (IsP256PublicKeyInfo(bytes)) {
    std::copy(bytes.begin(), bytes.end(), der.begin());
  } else {
    return InvalidArgument("a public key of " + std::to_string(bytes.size()) +
                           " bytes is not an uncompressed P-256 key (" +
                           std::to_string(kP256PublicKeySize) +
                           " bytes of DER, or " + std::to_string(kPointSize) +
                           " of the point)");
  }
  const PkeyPtr key = Decode(der);
  const PkeyCtxPtr check(
      key == nullptr ? nullptr
                     : EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  if (check == nullptr || EVP_PKEY_public_check(check.get()) != 1) {
    return InvalidArgument("the public key is not a point of P-256");
  }
  return P256PublicKey(der);
}

Status VerifyP256(const P256PublicKey& key, const Digest& digest,
                  ByteSpan signature) {
  const ErrorScope errors;
  const Status refusal = DataLoss("the P-256 signature does not fit");
  if (signature.size() != kP256SignatureSize) return refusal;
  const Bytes der = DerOf(signature);
  const PkeyPtr decoded = Decode(key.der());
  if (der.empty() || decoded == nullptr) return refusal;
  const PkeyCtxPtr ctx(
      EVP_PKEY_CTX_new_from_pkey(nullptr, decoded.get(), nullptr));
  if (ctx == nullptr || EVP_PKEY_verify_init(ctx.get()) != 1 ||
      EVP_PKEY_verify(ctx.get(), der.data(), der.size(), digest.bytes.data(),
                      digest.bytes.size()) != 1) {
    return refusal;
  }
  return OkStatus();
}

Digest TlsKeyDigest(std::string_view population, std::string_view device_name,
                    ByteSpan nonce, ByteSpan request_der) {
  SELVAGE_CHECK(population.find('\0') == std::string_view::npos &&
                device_name.find('\0') == std::string_view::npos);
  const uint8_t zero[] = {0};
  Sha256Hasher hasher;
  hasher.Update(AsBytes(kTlsKeyLabel));
  hasher.Update(AsBytes(population));
  hasher.Update(zero);
  hasher.Update(AsBytes(device_name));
  hasher.Update(zero);
  hasher.Update(nonce);
  hasher.Update(request_der);
  return std::move(hasher).Finish();
}

}  // namespace selvage::crypto
