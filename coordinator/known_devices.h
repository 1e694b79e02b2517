// Which devices are enrolled, as far as it is worth memory: how many there are
// in the database costs a coordinator nothing.
#pragma once

#include <cstdint>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "coordinator/api.h"
#include "crypto/digest.h"

namespace selvage::coordinator {

// A set that forgets: at least the `generation` devices that were added last
// are in it, and at most twice as many. A device is 64 bits of SHA-256: to make
// one that passes for another, which has a certificate of the coordinator's
// like any other, takes 2^64 tries over their number. Thread-compatible.
class KnownDevices {
 public:
  static constexpr size_t kGeneration = size_t{1} << 18;

  explicit KnownDevices(size_t generation = kGeneration)
      : generation_(generation) {}

  void Add(const DeviceIdentity& device) {
    const uint64_t mark = MarkOf(device);
    if (recent_.contains(mark)) return;
    if (recent_.size() >= generation_) earlier_ = std::exchange(recent_, {});
    recent_.insert(mark);
  }
  bool Contains(const DeviceIdentity& device) const {
    const uint64_t mark = MarkOf(device);
    return recent_.contains(mark) || earlier_.contains(mark);
  }

 private:
  static uint64_t MarkOf(const DeviceIdentity& device) {
    // Names have no zero byte.
    const crypto::Digest digest =
        crypto::Sha256(AsBytes(device.population + '\0' + device.device_id));
    uint64_t mark = 0;
    std::memcpy(&mark, digest.span().data(), sizeof mark);
    return mark;
  }

  const size_t generation_;
  std::unordered_set<uint64_t> recent_;
  std::unordered_set<uint64_t> earlier_;
};

}  // namespace selvage::coordinator
