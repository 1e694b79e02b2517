// The other side of B3: devices that speak to a real coordinator through the
// real transport and session machine, and whose trainer returns at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/random.h"
#include "base/status.h"
#include "client/core/session.h"
#include "client/core/transport.h"

namespace selvage::bench {

// What every device sends; all devices share one.
struct Contribution {
  Bytes encoded;
  crypto::Digest digest;
  plan::CodecName codec = plan::CodecName::kFloat32;
};

// Thread-compatible.
class FleetDevice {
 public:
  // Enrols with the bundle of a token.
  static Result<std::unique_ptr<FleetDevice>> Enrol(
      const std::string& bundle_json, uint64_t seed);

  // Sessions until one has contributed; its receipt was ACCEPTED. What was
  // fetched was verified.
  Status Contribute(const Contribution& contribution);

  uint64_t bytes_down() const { return bytes_down_; }

 private:
  FleetDevice(uint64_t seed) : random_(seed) {}

  client::SessionEvent Perform(const client::SessionAction& action,
                               const Contribution& contribution);
  Status FetchOne(const crypto::Digest& digest);

  SeededRandom random_;
  std::string population_;
  std::unique_ptr<client::Transport> transport_;
  client::Session session_;
  // Per task, so that the coordinator offers nothing it has.
  std::map<std::string, uint64_t> installed_;
  std::map<crypto::Digest, size_t> cached_;  // sizes of what was fetched
  uint64_t bytes_down_ = 0;
};

}  // namespace selvage::bench
