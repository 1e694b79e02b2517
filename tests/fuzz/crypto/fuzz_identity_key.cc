// Whatever bytes come as an identity key or its signature: refused, or a key
// with one encoding, under which a made-up signature does not fit.
#include "base/check.h"
#include "crypto/identity_key.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace crypto = selvage::crypto;
  const selvage::ByteSpan bytes(data, size);
  const size_t key_size =
      size > crypto::kP256PublicKeySize ? crypto::kP256PublicKeySize : size;
  const auto key = crypto::P256PublicKey::Parse(bytes.first(key_size));
  if (!key.ok()) return 0;
  const auto again = crypto::P256PublicKey::Parse(key->der());
  SELVAGE_CHECK(again.ok() && *again == *key);
  const selvage::Status status =
      crypto::VerifyP256(*key, key->digest(), bytes.subspan(key_size));
  SELVAGE_CHECK(!status.ok());
  return 0;
}
