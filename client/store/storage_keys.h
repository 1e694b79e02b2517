// The storage key: the host's, or the 32 bytes of a 0600 file.
#pragma once

#include <optional>

#include "base/file_system.h"
#include "base/status.h"
#include "client/core/host_data.h"
#include "crypto/secret.h"

namespace selvage::client {

// Thread-compatible.
class StorageKeys {
 public:
  // `host` may be null; `files` and `host` must outlive it.
  StorageKeys(FileSystem& files, Path key_file, StorageKeySource* host)
      : files_(files), key_file_(std::move(key_file)), host_(host) {}

  bool from_host() const { return host_ != nullptr; }

  // The key that seals from now on. `create`: nothing was sealed yet, so a file
  // that is not there is made, durable before this returns. Otherwise a missing
  // file is FAILED_PRECONDITION. A file or a host's key of another size is
  // FAILED_PRECONDITION too; a host's error is passed on.
  Result<const crypto::SecretBytes*> Get(bool create);

  // What the file holds, whoever gives the key now. NOT_FOUND.
  Result<crypto::SecretBytes> FromFile();
  // Once nothing is sealed under the file's key any more.
  Status RemoveFile();

  // A key for another use than the store's own. FAILED_PRECONDITION before
  // Get() gave one.
  Result<crypto::SecretBytes> Derive(std::string_view use) const;

 private:
  FileSystem& files_;
  const Path key_file_;
  StorageKeySource* const host_;
  std::optional<crypto::SecretBytes> key_;
};

}  // namespace selvage::client
