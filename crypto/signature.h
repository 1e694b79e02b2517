// Ed25519 (RFC 8032): plans are signed with it.
#pragma once

#include <array>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "crypto/secret.h"

namespace selvage::crypto {

using Ed25519PublicKey = std::array<uint8_t, 32>;
using Ed25519Signature = std::array<uint8_t, 64>;

struct Ed25519KeyPair {
  SecretBytes private_key;  // 32-byte seed
  Ed25519PublicKey public_key{};
};

Ed25519KeyPair NewEd25519KeyPair(RandomSource& random);

// INVALID_ARGUMENT if the seed is not 32 bytes.
Result<Ed25519PublicKey> Ed25519PublicKeyOf(const SecretBytes& private_key);

// Every caller puts a label in front of its message ("selvage/v1 plan\n..."),
// so that a signature made for one purpose is worthless for another.
Result<Ed25519Signature> SignEd25519(const SecretBytes& private_key,
                                     ByteSpan message);

// DATA_LOSS if the signature does not fit, whatever the reason.
Status VerifyEd25519(const Ed25519PublicKey& public_key, ByteSpan message,
                     ByteSpan signature);

}  // namespace selvage::crypto
