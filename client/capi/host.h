// What a host gave in C (options, callbacks, engine, data source) as what the
// client takes in C++.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/capi/selvage.h"
#include "client/client.h"

namespace selvage::capi {

// One tensor's bytes, copied. INVALID_ARGUMENT if its size is not what dtype
// and shape say.
Result<std::vector<Bytes>> ReadTensors(const selvage_tensor* tensors,
                                       uint64_t count);
Result<plan::DType> ReadDType(int32_t dtype);
// 0: none.
std::optional<Time> ReadTimestamp(int64_t micros);

// Owns everything that a client depends on.
class Host {
 public:
  static Result<std::unique_ptr<Host>> Create(const selvage_options& options);
  // Closes the host's engine if KeepEngine() was called.
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  const client::ClientOptions& options() const { return options_; }
  client::ClientDependencies Dependencies();
  // The client is open: the engine's end is now up to us.
  void KeepEngine() { keep_engine_ = true; }

 private:
  Host() = default;

  Status TakeOptions(const selvage_options& options);
  Status TakeFloor(const selvage_privacy_floor* floor);
  Status TakeLimits(const selvage_limits* limits);
  Status TakeCallbacks(const selvage_callbacks* callbacks);
  Status TakeIdentityKey();
  Status TakeEngine(const selvage_engine* engine, const char* library);

  client::ClientOptions options_;
  selvage_callbacks callbacks_{};
  selvage_engine engine_{};
  bool keep_engine_ = false;

  std::unique_ptr<Clock> clock_;
  std::unique_ptr<RandomSource> random_;
  std::unique_ptr<EventSink> events_;
  PosixFileSystem files_;
  std::unique_ptr<client::StorageKeySource> storage_key_;
  std::unique_ptr<client::IdentityKey> identity_key_;
  std::unique_ptr<client::DataSource> data_source_;
  std::unique_ptr<client::Trainer> trainer_;
};

}  // namespace selvage::capi
