#include "crypto/key_agreement.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

constexpr size_t kScalarSize = 32;
constexpr size_t kSecretSize = 32;

PkeyPtr RawPrivateKey(const SecretBytes& key) {
  return PkeyPtr(EVP_PKEY_new_raw_private_key(
      EVP_PKEY_X25519, nullptr, key.ExposeSecret().data(), key.size()));
}

}  // namespace

X25519KeyPair NewX25519KeyPair(RandomSource& random) {
  X25519KeyPair pair{.private_key = SecretBytes(kScalarSize)};
  random.Fill(pair.private_key.writable());
  const PkeyPtr key = RawPrivateKey(pair.private_key);
  SELVAGE_CHECK(key != nullptr);
  size_t size = pair.public_key.size();
  SELVAGE_CHECK(EVP_PKEY_get_raw_public_key(key.get(), pair.public_key.data(),
                                            &size) == 1);
  SELVAGE_CHECK(size == pair.public_key.size());
  return pair;
}

Result<SecretBytes> X25519(const SecretBytes& private_key,
                           const X25519PublicKey& peer) {
  if (private_key.size() != kScalarSize) {
    return InvalidArgument("an X25519 private key is 32 bytes, not " +
                           std::to_string(private_key.size()));
  }
  const ErrorScope errors;
  const PkeyPtr mine = RawPrivateKey(private_key);
  const PkeyPtr theirs(EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr,
                                                   peer.data(), peer.size()));
  if (mine == nullptr || theirs == nullptr) {
    return Internal("OpenSSL has no X25519");
  }
  const PkeyCtxPtr ctx(EVP_PKEY_CTX_new(mine.get(), nullptr));
  if (ctx == nullptr || EVP_PKEY_derive_init(ctx.get()) != 1 ||
      EVP_PKEY_derive_set_peer(ctx.get(), theirs.get()) != 1) {
    return Internal("EVP_PKEY_derive_set_peer(X25519)");
  }
  SecretBytes secret(kSecretSize);
  size_t size = secret.size();
  // OpenSSL itself refuses an all-zero result (RFC 7748, 6.1).
  if (EVP_PKEY_derive(ctx.get(), secret.writable().data(), &size) != 1 ||
      size != secret.size() || secret == SecretBytes(kSecretSize)) {
    return InvalidArgument("the peer's X25519 public key has low order");
  }
  return secret;
}

}  // namespace selvage::crypto
