#include "crypto/hkdf.h"

#include <string>

#include <openssl/core_names.h>
#include <openssl/params.h>

#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

constexpr size_t kSha256Size = 32;
constexpr size_t kMaxOutputSize = 255 * kSha256Size;

// OSSL_PARAM takes void* but does not write through it. A null pointer would
// mean "not given" even for a size of 0, which RFC 5869 allows everywhere.
OSSL_PARAM OctetParam(const char* name, std::span<const uint8_t> bytes) {
  static constexpr uint8_t kNothing = 0;
  const uint8_t* data = bytes.empty() ? &kNothing : bytes.data();
  return OSSL_PARAM_construct_octet_string(name, const_cast<uint8_t*>(data),
                                           bytes.size());
}

}  // namespace

Result<SecretBytes> HkdfSha256(const SecretBytes& input_key,
                               std::span<const uint8_t> salt,
                               std::span<const uint8_t> info, size_t size) {
  if (size == 0 || size > kMaxOutputSize) {
    return InvalidArgument("HKDF output size " + std::to_string(size) +
                           " is outside 1.." + std::to_string(kMaxOutputSize));
  }
  const ErrorScope errors;
  const KdfPtr kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  if (kdf == nullptr) return Internal("OpenSSL has no HKDF");
  const KdfCtxPtr ctx(EVP_KDF_CTX_new(kdf.get()));
  if (ctx == nullptr) return Internal("EVP_KDF_CTX_new");

  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OctetParam(OSSL_KDF_PARAM_KEY, input_key.ExposeSecret()),
      OctetParam(OSSL_KDF_PARAM_SALT, salt),
      OctetParam(OSSL_KDF_PARAM_INFO, info),
      OSSL_PARAM_construct_end(),
  };
  SecretBytes out(size);
  if (EVP_KDF_derive(ctx.get(), out.writable().data(), size, params) != 1) {
    return Internal("EVP_KDF_derive(HKDF-SHA-256)");
  }
  return out;
}

}  // namespace selvage::crypto
