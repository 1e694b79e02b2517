// The updates of a round as robust rules read them: a block of coordinates at a
// time, wherever they lie. Rules need memory for update_count() x block_size()
// values and a result, never for all updates at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"

namespace selvage::aggregation {

// Elements [begin, begin + count) of an update.
struct ElementRange {
  size_t begin = 0;
  size_t count = 0;
  friend bool operator==(const ElementRange&, const ElementRange&) = default;
};

// Those of `values`, an update's elements from `first` on, that lie in `range`.
template <typename Float>
std::span<Float> Within(const ElementRange& range, size_t first,
                        std::span<Float> values) {
  const size_t begin = std::max(range.begin, first);
  const size_t end = std::min(range.begin + range.count, first + values.size());
  if (begin >= end) return {};
  return values.subspan(begin - first, end - begin);
}

// Finite values only. The order of the updates is the implementation's, and it
// must not depend on when they arrived: ties and rounding follow it.
class UpdateBlocks {
 public:
  virtual ~UpdateBlocks() = default;

  virtual size_t update_count() const = 0;
  virtual size_t element_count() const = 0;
  virtual size_t block_size() const = 0;  // >= 1; of all blocks but the last
  virtual uint32_t weight(size_t update) const = 0;  // >= 1

  // Fills `out`, of block(index).count elements. Thread-safe.
  virtual Status Read(size_t update, size_t index,
                      std::span<float> out) const = 0;

  size_t block_count() const {
    return (element_count() + block_size() - 1) / block_size();
  }
  ElementRange block(size_t index) const {
    const size_t begin = index * block_size();
    return {begin, std::min(block_size(), element_count() - begin)};
  }
};

}  // namespace selvage::aggregation
