#include "crypto/signature.h"

#include "base/check.h"
#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

constexpr size_t kSeedSize = 32;

Result<PkeyPtr> PrivateKey(const SecretBytes& seed) {
  if (seed.size() != kSeedSize) {
    return InvalidArgument("an Ed25519 private key is 32 bytes, not " +
                           std::to_string(seed.size()));
  }
  PkeyPtr key(EVP_PKEY_new_raw_private_key(
      EVP_PKEY_ED25519, nullptr, seed.ExposeSecret().data(), seed.size()));
  if (key == nullptr) return Internal("OpenSSL has no Ed25519");
  return key;
}

}  // namespace

Ed25519KeyPair NewEd25519KeyPair(RandomSource& random) {
  Ed25519KeyPair pair{.private_key = SecretBytes(kSeedSize)};
  random.Fill(pair.private_key.writable());
  const Result<Ed25519PublicKey> public_key =
      Ed25519PublicKeyOf(pair.private_key);
  SELVAGE_CHECK(public_key.ok());
  pair.public_key = *public_key;
  return pair;
}

Result<Ed25519PublicKey> Ed25519PublicKeyOf(const SecretBytes& private_key) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr key, PrivateKey(private_key));
  Ed25519PublicKey out{};
  size_t size = out.size();
  if (EVP_PKEY_get_raw_public_key(key.get(), out.data(), &size) != 1 ||
      size != out.size()) {
    return Internal("EVP_PKEY_get_raw_public_key(Ed25519)");
  }
  return out;
}

Result<Ed25519Signature> SignEd25519(const SecretBytes& private_key,
                                     ByteSpan message) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr key, PrivateKey(private_key));
  const MdCtxPtr ctx(EVP_MD_CTX_new());
  if (ctx == nullptr) return Internal("EVP_MD_CTX_new");
  Ed25519Signature signature{};
  size_t size = signature.size();
  if (EVP_DigestSignInit(ctx.get(), nullptr, nullptr, nullptr, key.get()) !=
          1 ||
      EVP_DigestSign(ctx.get(), signature.data(), &size, message.data(),
                     message.size()) != 1 ||
      size != signature.size()) {
    return Internal("EVP_DigestSign(Ed25519)");
  }
  return signature;
}

Status VerifyEd25519(const Ed25519PublicKey& public_key, ByteSpan message,
                     ByteSpan signature) {
  const ErrorScope errors;
  const PkeyPtr key(EVP_PKEY_new_raw_public_key(
      EVP_PKEY_ED25519, nullptr, public_key.data(), public_key.size()));
  const MdCtxPtr ctx(EVP_MD_CTX_new());
  if (key == nullptr || ctx == nullptr ||
      signature.size() != Ed25519Signature{}.size() ||
      EVP_DigestVerifyInit(ctx.get(), nullptr, nullptr, nullptr, key.get()) !=
          1 ||
      EVP_DigestVerify(ctx.get(), signature.data(), signature.size(),
                       message.data(), message.size()) != 1) {
    return DataLoss("the Ed25519 signature does not fit");
  }
  return OkStatus();
}

}  // namespace selvage::crypto
