#include "client/store/storage_keys.h"

#include <algorithm>
#include <string>

#include "base/random.h"
#include "crypto/aead.h"
#include "crypto/hkdf.h"

namespace selvage::client {
namespace {

Status CheckSize(const std::string& what, size_t size) {
  if (size == crypto::kAeadKeySize) return OkStatus();
  return FailedPrecondition(what + " has " + std::to_string(size) +
                            " bytes, not " +
                            std::to_string(crypto::kAeadKeySize));
}

}  // namespace

Result<const crypto::SecretBytes*> StorageKeys::Get(bool create) {
  if (key_.has_value()) return &*key_;
  if (host_ != nullptr) {
    Result<crypto::SecretBytes> key = host_->LoadOrCreate();
    if (!key.ok()) return key.status().WithContext("the host's storage key");
    SELVAGE_RETURN_IF_ERROR(CheckSize("the host's storage key", key->size()));
    key_.emplace(*std::move(key));
    return &*key_;
  }
  Result<crypto::SecretBytes> kept = FromFile();
  if (kept.ok()) {
    key_.emplace(*std::move(kept));
    return &*key_;
  }
  if (kept.status().code() != StatusCode::kNotFound) return kept.status();
  if (!create) {
    return FailedPrecondition("the store is sealed, and its storage key " +
                              key_file_.string() + " is not there");
  }
  OsRandom random;
  crypto::SecretBytes key = crypto::NewAeadKey(random);
  SELVAGE_RETURN_IF_ERROR(
      WriteFileDurably(files_, key_file_, key.ExposeSecret(), 0600)
          .WithContext("writing the storage key"));
  key_.emplace(std::move(key));
  return &*key_;
}

Result<crypto::SecretBytes> StorageKeys::FromFile() {
  Result<Bytes> bytes = ReadFile(files_, key_file_, /*size_max=*/4096);
  if (!bytes.ok()) {
    if (bytes.status().code() == StatusCode::kResourceExhausted) {
      return FailedPrecondition("the storage key " + key_file_.string() +
                                " has more than 4096 bytes, not " +
                                std::to_string(crypto::kAeadKeySize));
    }
    return bytes.status();
  }
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("the storage key " + key_file_.string(), bytes->size()));
  crypto::SecretBytes key(bytes->size());
  std::copy(bytes->begin(), bytes->end(), key.writable().begin());
  std::fill(bytes->begin(), bytes->end(), uint8_t{0});
  return key;
}

Status StorageKeys::RemoveFile() {
  const Status removed = files_.Remove(key_file_);
  if (removed.code() == StatusCode::kNotFound) return OkStatus();
  SELVAGE_RETURN_IF_ERROR(removed);
  return files_.SyncDirectory(key_file_.parent_path());
}

Result<crypto::SecretBytes> StorageKeys::Derive(std::string_view use) const {
  if (!key_.has_value()) {
    return FailedPrecondition("there is no storage key yet");
  }
  return crypto::HkdfSha256(*key_, {}, AsBytes(use), crypto::kAeadKeySize);
}

}  // namespace selvage::client
