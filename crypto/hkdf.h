// HKDF (RFC 5869): keys for each use from one secret.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "crypto/secret.h"

namespace selvage::crypto {

// HKDF-SHA-256 (RFC 5869): extract with `salt`, expand with `info`.
//
// `info` separates the keys derived from one secret: give every use its own
// label, e.g. "selvage/v1 pairwise mask". `salt` may be empty.
//
// INVALID_ARGUMENT if size is 0 or above 255 * 32 bytes (RFC 5869, 2.3).
// INTERNAL if OpenSSL fails.
Result<SecretBytes> HkdfSha256(const SecretBytes& input_key,
                               std::span<const uint8_t> salt,
                               std::span<const uint8_t> info, size_t size);

}  // namespace selvage::crypto
