#include "crypto/digest.h"

#include <algorithm>

#include <openssl/crypto.h>

#include "base/check.h"
#include "crypto/openssl_ptr.h"

namespace selvage::crypto {

std::string Digest::ToHex() const { return selvage::ToHex(bytes); }

Result<Digest> Digest::FromHex(std::string_view hex) {
  if (hex.size() != 64) {
    return InvalidArgument("a digest is 64 hexadecimal digits, not " +
                           std::to_string(hex.size()));
  }
  SELVAGE_ASSIGN_OR_RETURN(const Bytes raw, selvage::FromHex(hex));
  return FromBytes(raw);
}

Result<Digest> Digest::FromBytes(ByteSpan raw) {
  Digest digest;
  if (raw.size() != digest.bytes.size()) {
    return InvalidArgument("a digest is 32 bytes, not " +
                           std::to_string(raw.size()));
  }
  std::copy(raw.begin(), raw.end(), digest.bytes.begin());
  return digest;
}

std::ostream& operator<<(std::ostream& os, const Digest& digest) {
  return os << digest.ToHex();
}

Digest Sha256(ByteSpan bytes) {
  Digest digest;
  SELVAGE_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.bytes.data(),
                           nullptr, EVP_sha256(), nullptr) == 1);
  return digest;
}

struct Sha256Hasher::State {
  MdCtxPtr ctx{EVP_MD_CTX_new()};
};

Sha256Hasher::Sha256Hasher() : state_(std::make_unique<State>()) {
  SELVAGE_CHECK(state_->ctx != nullptr);
  SELVAGE_CHECK(EVP_DigestInit_ex(state_->ctx.get(), EVP_sha256(), nullptr) ==
                1);
}

Sha256Hasher::~Sha256Hasher() = default;
Sha256Hasher::Sha256Hasher(Sha256Hasher&&) noexcept = default;
Sha256Hasher& Sha256Hasher::operator=(Sha256Hasher&&) noexcept = default;

void Sha256Hasher::Update(ByteSpan bytes) {
  SELVAGE_CHECK(state_ != nullptr);
  SELVAGE_CHECK(
      EVP_DigestUpdate(state_->ctx.get(), bytes.data(), bytes.size()) == 1);
}

Digest Sha256Hasher::Finish() && {
  SELVAGE_CHECK(state_ != nullptr);
  const std::unique_ptr<State> state = std::move(state_);
  Digest digest;
  SELVAGE_CHECK(
      EVP_DigestFinal_ex(state->ctx.get(), digest.bytes.data(), nullptr) == 1);
  return digest;
}

Digest HmacSha256(ByteSpan key, ByteSpan message) {
  static constexpr uint8_t kNothing = 0;  // OpenSSL reads a null key as "none"
  Digest digest;
  size_t size = 0;
  SELVAGE_CHECK(EVP_Q_mac(nullptr, "HMAC", nullptr, "SHA256", nullptr,
                          key.empty() ? &kNothing : key.data(), key.size(),
                          message.empty() ? &kNothing : message.data(),
                          message.size(), digest.bytes.data(),
                          digest.bytes.size(), &size) != nullptr);
  SELVAGE_CHECK(size == digest.bytes.size());
  return digest;
}

bool EqualConstantTime(ByteSpan a, ByteSpan b) {
  return a.size() == b.size() &&
         (a.empty() || CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace selvage::crypto
