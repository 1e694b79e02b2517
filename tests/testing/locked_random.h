// Randomness that several threads may take from.
#pragma once

#include <cstdint>
#include <span>

#include "base/mutex.h"
#include "base/random.h"

namespace selvage::test {

// Deterministic as far as the order of the callers is. Thread-safe.
class LockedRandom final : public RandomSource {
 public:
  explicit LockedRandom(uint64_t seed) : random_(seed) {}
  void Fill(std::span<uint8_t> out) override {
    const MutexLock lock(mu_);
    random_.Fill(out);
  }

 private:
  Mutex mu_;
  SeededRandom random_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::test
