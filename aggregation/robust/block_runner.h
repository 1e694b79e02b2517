// Work on the blocks of updates by several threads, with sums that do not
// depend on how many there are. Not for use outside of aggregation/robust.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "aggregation/robust/update_blocks.h"
#include "base/status.h"

namespace selvage::aggregation::robust {

// One block of all updates: update u's values are row(u).
class Rows {
 public:
  ElementRange range;
  size_t update_count = 0;

  std::span<float> row(size_t update) {
    return std::span(values_).subspan(update * range.count, range.count);
  }
  std::span<const float> row(size_t update) const {
    return std::span(values_).subspan(update * range.count, range.count);
  }
  // INTERNAL for a value that is not finite. -0 becomes 0.
  Status Load(const UpdateBlocks& updates, size_t index);

 private:
  std::vector<float> values_;
};

// Calls compute(slot, rows) for every block that `wanted` (empty: all) names,
// for up to `threads` blocks at once, each with another slot below `threads`;
// then reduce(slot), if there is one, for those blocks one after the other in
// their order.
struct BlockWork {
  std::function<bool(const ElementRange&)> wanted;
  std::function<void(size_t slot, Rows& rows)> compute;
  std::function<void(size_t slot)> reduce;
};
Status RunBlocks(const UpdateBlocks& updates, size_t threads,
                 const BlockWork& work);

// Calls f(begin, count) for the parts of `range` that lie in `ranges`
// (ascending, disjoint), relative to the range's beginning.
template <typename F>
void ForEachOverlap(const ElementRange& range,
                    std::span<const ElementRange> ranges, F f) {
  for (const ElementRange& other : ranges) {
    const size_t begin = std::max(range.begin, other.begin);
    const size_t end =
        std::min(range.begin + range.count, other.begin + other.count);
    if (begin < end) f(begin - range.begin, end - begin);
  }
}

}  // namespace selvage::aggregation::robust
