// X25519 (RFC 7748), for the pairwise keys of secure aggregation.
#pragma once

#include <array>

#include "base/random.h"
#include "base/status.h"
#include "crypto/secret.h"

namespace selvage::crypto {

using X25519PublicKey = std::array<uint8_t, 32>;

struct X25519KeyPair {
  SecretBytes private_key;
  X25519PublicKey public_key{};
};

X25519KeyPair NewX25519KeyPair(RandomSource& random);

// The shared secret; feed it to HkdfSha256 before use. INVALID_ARGUMENT if the
// private key is not 32 bytes or the result is all zeros (a low-order point).
Result<SecretBytes> X25519(const SecretBytes& private_key,
                           const X25519PublicKey& peer);

}  // namespace selvage::crypto
