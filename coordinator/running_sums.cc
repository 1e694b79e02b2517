#include "coordinator/running_sums.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace selvage::coordinator {

void RunningSums::Reset() {
  Drop();
  dropped_ = false;
}

void RunningSums::Begin(uint64_t value_count) {
  SELVAGE_CHECK(!pending_);
  if (dropped_) return;
  pending_ = true;
  if (!kept_.ids.empty()) return;
  const uint64_t bytes = value_count * sizeof(int64_t);
  if (bytes <= kBytesMax) kept_.share = room_.Take(bytes);
  if (kept_.share.empty()) Drop();
}

void RunningSums::Add(size_t stretch, aggregation::ExactSum sum) {
  if (!pending_) return;
  if (kept_.ids.empty()) {
    SELVAGE_CHECK(stretch == kept_.sums.size());
    kept_.sums.push_back(std::move(sum));
  } else if (!kept_.sums.at(stretch).MergeWith(std::move(sum)).ok()) {
    Drop();
  }
}

void RunningSums::Confirm(const std::string& id) {
  if (!pending_) return;
  pending_ = false;
  kept_.ids.insert(id);
}

void RunningSums::Drop() {
  kept_ = Kept();
  pending_ = false;
  dropped_ = true;
}

std::optional<RunningSums::Kept> RunningSums::Take(
    const std::vector<PartialRow>& rows) {
  std::set<std::string> named;
  for (const PartialRow& row : rows) named.insert(row.id);
  std::optional<Kept> kept;
  if (!pending_ && !kept_.ids.empty() &&
      std::includes(named.begin(), named.end(), kept_.ids.begin(),
                    kept_.ids.end())) {
    kept = std::move(kept_);
  }
  Drop();
  return kept;
}

}  // namespace selvage::coordinator
