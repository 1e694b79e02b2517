#include "client/store/value_seal.h"

#include <algorithm>
#include <string>

#include "crypto/aead.h"
#include "crypto/digest.h"
#include "crypto/hkdf.h"

namespace selvage::client {
namespace {

constexpr std::string_view kWrapLabel = "selvage/v1 store data key";

void PutText(Bytes& out, ByteSpan text) {
  AppendLe(out, static_cast<uint32_t>(text.size()));
  AppendBytes(out, text);
}

// Lengths in front, so that no two places read the same.
Bytes AssociatedData(const ValuePlace& place) {
  Bytes out;
  PutText(out, AsBytes("selvage/v1 store value"));
  PutText(out, AsBytes(place.table));
  PutText(out, AsBytes(place.column));
  PutText(out, place.row);
  return out;
}

Result<crypto::SecretBytes> WrappingKey(
    const crypto::SecretBytes& storage_key) {
  if (storage_key.size() != crypto::kAeadKeySize) {
    return InvalidArgument("the storage key has " +
                           std::to_string(storage_key.size()) + " bytes, not " +
                           std::to_string(crypto::kAeadKeySize));
  }
  return crypto::HkdfSha256(storage_key, {}, AsBytes(kWrapLabel),
                            crypto::kAeadKeySize);
}

}  // namespace

Result<Bytes> ValueSeal::Seal(const ValuePlace& place, ByteSpan plain) const {
  OsRandom random;
  return crypto::Seal(data_key_, plain, AssociatedData(place), random);
}

Result<Bytes> ValueSeal::Open(const ValuePlace& place, ByteSpan sealed) const {
  Result<Bytes> plain = crypto::Open(data_key_, sealed, AssociatedData(place));
  if (plain.ok()) return plain;
  return DataLoss("a value of " + std::string(place.table) + "." +
                  std::string(place.column) + " is damaged (" +
                  std::to_string(sealed.size()) + " bytes)");
}

Result<Bytes> WrapDataKey(const crypto::SecretBytes& storage_key,
                          const crypto::SecretBytes& data_key) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::SecretBytes key,
                           WrappingKey(storage_key));
  OsRandom random;
  SELVAGE_ASSIGN_OR_RETURN(
      Bytes wrapped,
      crypto::Seal(key, data_key.ExposeSecret(), AsBytes(kWrapLabel), random));
  // Tells a damaged store from a wrong key.
  AppendBytes(wrapped, crypto::Sha256(wrapped).span());
  return wrapped;
}

Result<crypto::SecretBytes> UnwrapDataKey(
    const crypto::SecretBytes& storage_key, ByteSpan wrapped) {
  constexpr size_t kSealedSize = crypto::kAeadKeySize + crypto::kAeadOverhead;
  if (wrapped.size() != kSealedSize + 32 ||
      !crypto::EqualConstantTime(
          crypto::Sha256(wrapped.first(kSealedSize)).span(),
          wrapped.subspan(kSealedSize))) {
    return DataLoss("the store's data key is damaged");
  }
  SELVAGE_ASSIGN_OR_RETURN(const crypto::SecretBytes key,
                           WrappingKey(storage_key));
  Result<Bytes> plain =
      crypto::Open(key, wrapped.first(kSealedSize), AsBytes(kWrapLabel));
  if (!plain.ok()) {
    return FailedPrecondition(
        "the storage key is not the one that the store was sealed with");
  }
  crypto::SecretBytes out(plain->size());
  std::copy(plain->begin(), plain->end(), out.writable().begin());
  std::fill(plain->begin(), plain->end(), uint8_t{0});
  return out;
}

}  // namespace selvage::client
