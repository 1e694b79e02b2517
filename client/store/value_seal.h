// Values of the store, sealed one by one with AES-256-GCM and bound to where
// they belong: what is moved to another row, column or store does not open.
//
// The store has a data key of its own, made with it and kept in it, sealed
// under the storage key (the host's, or that of a file). So a new storage key
// means one new seal, and nobody's key seals more than one store's values:
// the bound of random nonces (2^32 seals, SP 800-38D 8.3) is per store.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "crypto/secret.h"

namespace selvage::client {

// Where a value belongs. `row` says which row, and may bind more of it.
struct ValuePlace {
  std::string_view table;
  std::string_view column;
  ByteSpan row;
};

// Thread-safe. Nonces come from the operating system, never from an injected
// generator: one with a seed would repeat them under the same key.
class ValueSeal {
 public:
  // REQUIRES: 32 bytes.
  explicit ValueSeal(crypto::SecretBytes data_key)
      : data_key_(std::move(data_key)) {}

  Result<Bytes> Seal(const ValuePlace& place, ByteSpan plain) const;
  // DATA_LOSS, naming table and column, for every failure alike.
  Result<Bytes> Open(const ValuePlace& place, ByteSpan sealed) const;

  const crypto::SecretBytes& data_key() const { return data_key_; }

 private:
  crypto::SecretBytes data_key_;
};

// The data key under a storage key, as the store keeps it. INVALID_ARGUMENT if
// the storage key is not 32 bytes.
Result<Bytes> WrapDataKey(const crypto::SecretBytes& storage_key,
                          const crypto::SecretBytes& data_key);
// DATA_LOSS if the bytes are not what was kept, FAILED_PRECONDITION if they are
// and the storage key is another.
Result<crypto::SecretBytes> UnwrapDataKey(
    const crypto::SecretBytes& storage_key, ByteSpan wrapped);

}  // namespace selvage::client
