// What a ClientStore needs around it: a storage key, a clock, a log.
#pragma once

#include <algorithm>
#include <memory>
#include <sstream>
#include <string>

#include "base/file_system.h"
#include "base/log.h"
#include "client/store/client_store.h"
#include "tests/testing/fake_clock.h"

namespace selvage::test {

// A host that keeps the storage key.
class HostKey final : public client::StorageKeySource {
 public:
  Result<crypto::SecretBytes> LoadOrCreate() override {
    ++calls;
    if (!status.ok()) return status;
    crypto::SecretBytes key(size);
    std::fill(key.writable().begin(), key.writable().end(), fill);
    return key;
  }

  uint8_t fill = 7;
  size_t size = 32;
  Status status;
  int calls = 0;
};

struct StoreParts {
  StoreParts() { clock.Advance(std::chrono::hours(24 * 365 * 53)); }

  client::ClientStoreOptions Options(const Path& path, const std::string& vfs) {
    keys = std::make_unique<client::StorageKeys>(files, key_file, host);
    return {.path = path,
            .vfs = vfs,
            .keys = *keys,
            .clock = clock,
            .events = events,
            .bytes_max = bytes_max};
  }
  Result<std::unique_ptr<client::ClientStore>> Open(
      const Path& path, const std::string& vfs = "") {
    return client::ClientStore::Open(Options(path, vfs));
  }

  FakeClock clock;
  std::ostringstream log;
  StreamEventSink events{log, clock, StreamEventSink::Format::kText,
                         LogLevel::kDebug};
  PosixFileSystem files;
  HostKey host_key;
  client::StorageKeySource* host = &host_key;  // nullptr: the key file
  Path key_file = "/nonexistent/storage.key";
  std::unique_ptr<client::StorageKeys> keys;
  uint64_t bytes_max = 0;
};

}  // namespace selvage::test
