// A key that stays in the host's keystore: who this device is, if the host
// lends one. It signs the requests for short-lived TLS keys.
#pragma once

#include "base/bytes.h"
#include "base/status.h"
#include "crypto/digest.h"
#include "crypto/identity_key.h"

namespace selvage::client {

// Called by the thread that is in RunOnce(), for each new certificate.
class IdentityKey {
 public:
  virtual ~IdentityKey() = default;

  // The same every time.
  virtual const crypto::P256PublicKey& public_key() const = 0;

  // ECDSA P-256 over `digest`, r || s, 64 bytes. Whatever it gives is checked.
  // UNAVAILABLE: not now (the keystore is locked); asked again in a later
  // session.
  virtual Result<Bytes> Sign(const crypto::Digest& digest) = 0;
};

}  // namespace selvage::client
