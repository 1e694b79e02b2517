// A keystore as a phone has one: makes a P-256 key, never gives it away, and
// signs digests with it. Link OpenSSL::Crypto.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/bytes.h"
#include "base/check.h"
#include "crypto/digest.h"

namespace selvage::test {

class FakeKeystore {
 public:
  FakeKeystore() : key_(EVP_EC_gen("P-256"), EVP_PKEY_free) {
    SELVAGE_CHECK(key_ != nullptr);
  }

  // DER SubjectPublicKeyInfo.
  Bytes PublicKey() const {
    Bytes der(static_cast<size_t>(i2d_PUBKEY(key_.get(), nullptr)));
    unsigned char* out = der.data();
    i2d_PUBKEY(key_.get(), &out);
    return der;
  }

  // r || s.
  Bytes Sign(const crypto::Digest& digest) const {
    const std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> ctx(
        EVP_PKEY_CTX_new(key_.get(), nullptr), EVP_PKEY_CTX_free);
    std::array<uint8_t, 128> der{};
    size_t size = der.size();
    SELVAGE_CHECK(EVP_PKEY_sign_init(ctx.get()) == 1 &&
                  EVP_PKEY_sign(ctx.get(), der.data(), &size,
                                digest.bytes.data(), digest.bytes.size()) == 1);
    const unsigned char* in = der.data();
    const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> pair(
        d2i_ECDSA_SIG(nullptr, &in, static_cast<long>(size)), ECDSA_SIG_free);
    SELVAGE_CHECK(pair != nullptr);
    Bytes raw(64);
    BN_bn2binpad(ECDSA_SIG_get0_r(pair.get()), raw.data(), 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(pair.get()), raw.data() + 32, 32);
    return raw;
  }

 private:
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
};

}  // namespace selvage::test
