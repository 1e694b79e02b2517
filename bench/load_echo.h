// What selvage-load is measured against: a gRPC server over mutual TLS that
// answers constants and does nothing else.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "bench/bare_stream.h"

namespace selvage::bench {

// In a process of its own, until this goes out of scope. Its methods:
//   /bare/nothing        an answer to a check-in without work
//   /bare/assign         an answer to a check-in that gives an assignment
//   /bare/upload/BYTES   an upload of so many bytes, hashed, and a receipt
class BareServer {
 public:
  // Forks: before this process uses gRPC. Devices are told to come back after
  // `retry_min_ms` to `retry_max_ms`.
  static Result<std::unique_ptr<BareServer>> Start(uint64_t retry_min_ms,
                                                   uint64_t retry_max_ms);
  ~BareServer();
  BareServer(const BareServer&) = delete;
  BareServer& operator=(const BareServer&) = delete;

  // Blocks until it listens.
  Result<std::string> Address();
  const BareIdentity& identity() const { return identity_; }

 private:
  BareServer() = default;

  BareIdentity identity_;
  pid_t child_ = -1;
  int from_child_ = -1;
  int to_child_ = -1;
  int port_ = 0;
};

}  // namespace selvage::bench
