// AES-256-GCM (NIST SP 800-38D): confidentiality and integrity under one key.
#pragma once

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "crypto/secret.h"

namespace selvage::crypto {

inline constexpr size_t kAeadKeySize = 32;
// Sealed = 12-byte random nonce || ciphertext || 16-byte tag.
inline constexpr size_t kAeadOverhead = 12 + 16;

// Encrypts `plaintext` and authenticates it together with `associated_data`.
// A key may seal at most 2^32 messages (random nonces; SP 800-38D, 8.3): use
// one key per round, not one for ever. Thread-safe. INVALID_ARGUMENT if
// key.size() != kAeadKeySize.
Result<Bytes> Seal(const SecretBytes& key, ByteSpan plaintext,
                   ByteSpan associated_data, RandomSource& random);

// DATA_LOSS for every failure alike: wrong key, wrong associated data,
// truncated or altered bytes.
Result<Bytes> Open(const SecretBytes& key, ByteSpan sealed,
                   ByteSpan associated_data);

SecretBytes NewAeadKey(RandomSource& random);

}  // namespace selvage::crypto
