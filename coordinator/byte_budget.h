// Admission by bytes: memory is bounded because what does not fit is not let
// in.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "base/mutex.h"

namespace selvage::coordinator {

// Thread-safe.
class ByteBudget {
 public:
  // What was let in, until this goes away. Move-only. May outlive the budget.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept
        : used_(std::move(other.used_)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    Share& operator=(Share&& other) noexcept {
      if (this != &other) {
        Release();
        used_ = std::move(other.used_);
        bytes_ = std::exchange(other.bytes_, 0);
      }
      return *this;
    }
    ~Share() { Release(); }

    bool empty() const { return used_ == nullptr; }
    uint64_t bytes() const { return bytes_; }

   private:
    friend class ByteBudget;
    struct Used {
      Mutex mu;
      uint64_t bytes SELVAGE_GUARDED_BY(mu) = 0;
    };
    Share(std::shared_ptr<Used> used, uint64_t bytes)
        : used_(std::move(used)), bytes_(bytes) {}
    void Release() {
      if (used_ == nullptr) return;
      MutexLock lock(used_->mu);
      used_->bytes -= bytes_;
    }

    std::shared_ptr<Used> used_;
    uint64_t bytes_ = 0;
  };

  explicit ByteBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // empty() if it does not fit. Something always fits into an unused budget,
  // whatever its size: a limit that is too small slows down, it does not stop.
  Share Take(uint64_t bytes) {
    MutexLock lock(used_->mu);
    const bool fits = used_->bytes == 0 || (bytes <= bytes_max_ &&
                                            used_->bytes <= bytes_max_ - bytes);
    if (!fits) return Share();
    used_->bytes += bytes;
    return Share(used_, bytes);
  }

  uint64_t used() const {
    MutexLock lock(used_->mu);
    return used_->bytes;
  }

 private:
  const uint64_t bytes_max_;
  const std::shared_ptr<Share::Used> used_ = std::make_shared<Share::Used>();
};

}  // namespace selvage::coordinator
