#include "crypto/secret.h"

#include <openssl/crypto.h>

namespace selvage::crypto {

void SecretBytes::Wipe() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

bool operator==(const SecretBytes& a, const SecretBytes& b) {
  return a.size() == b.size() &&
         CRYPTO_memcmp(a.bytes_.data(), b.bytes_.data(), a.size()) == 0;
}

}  // namespace selvage::crypto
