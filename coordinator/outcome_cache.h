// How recent rounds ended, so that "what became of my update" costs no
// database read.
#pragma once

#include <map>
#include <optional>

#include "base/mutex.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

// Thread-safe.
class OutcomeCache {
 public:
  static constexpr size_t kRoundsMax = 4096;

  void Put(const RoundKey& round, OutcomeState outcome) {
    MutexLock lock(mu_);
    outcomes_[round] = outcome;
    order_[next_++] = round;
    if (order_.size() > kRoundsMax) {
      outcomes_.erase(order_.begin()->second);
      order_.erase(order_.begin());
    }
  }
  std::optional<OutcomeState> Find(const RoundKey& round) const {
    MutexLock lock(mu_);
    const auto it = outcomes_.find(round);
    if (it == outcomes_.end()) return std::nullopt;
    return it->second;
  }

 private:
  mutable Mutex mu_;
  std::map<RoundKey, OutcomeState> outcomes_ SELVAGE_GUARDED_BY(mu_);
  std::map<uint64_t, RoundKey> order_ SELVAGE_GUARDED_BY(mu_);
  uint64_t next_ SELVAGE_GUARDED_BY(mu_) = 0;
};

}  // namespace selvage::coordinator
