// What B3 is measured against: gRPC over mutual TLS moving the same bytes, and
// nothing else. Same chunks out of buffers of the same size, same malloc
// settings, same receiver-side SHA-256.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace selvage::bench {

// PEM of one CA, a server and a client certificate.
struct BareIdentity {
  std::string ca;
  std::string server_key;
  std::string server_certificate;
  std::string client_key;
  std::string client_certificate;
};
Result<BareIdentity> NewBareIdentity();

// Serves until standard input ends; prints its port. The body of the process
// that the benchmark starts with --bare-server.
int RunBareServer(const std::string& identity_directory);
Status WriteIdentity(const BareIdentity& identity,
                     const std::string& directory);
Result<BareIdentity> ReadIdentity(const std::string& directory);

// One device's connection. Thread-compatible.
class BareClient {
 public:
  BareClient(const BareIdentity& identity, int port);
  ~BareClient();
  // Moves `bytes` down, then up. `hashed`: each receiver takes the SHA-256.
  Status Move(uint64_t bytes, bool hashed);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace selvage::bench
