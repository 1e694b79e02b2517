// How many bytes of an update go into one message: many where they go fast,
// since each message costs both sides a little; few where they do not, since a
// message must arrive whole within the deadline of its operation, and what
// arrives in part is sent again after a break.
//
// Thread-compatible.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "base/time.h"

namespace selvage::client {

class ChunkSizer {
 public:
  // A link that moves 1 KiB/s, the least a coordinator puts up with by default,
  // moves this much in half of the 30 s that both sides wait for a message.
  static constexpr size_t kLeast = size_t{16} << 10;
  static constexpr Duration kFast = std::chrono::milliseconds(500);
  static constexpr Duration kSlow = std::chrono::seconds(2);

  // Begins with `most` bytes, and never takes more.
  explicit ChunkSizer(size_t most)
      : most_(std::max<size_t>(1, most)), size_(most_) {}

  size_t size() const { return size_; }

  // A message of size() bytes, or the last one, was taken after this time.
  void Sent(Duration took) {
    if (took <= kFast) {
      size_ = std::min(most_, size_ * 2);
    } else if (took > kSlow) {
      size_ = std::min(most_, std::max(kLeast, size_ / 2));
    }
  }
  // The stream broke.
  void Broke() { size_ = std::min(most_, std::max(kLeast, size_ / 4)); }

 private:
  const size_t most_;
  size_t size_;
};

}  // namespace selvage::client
