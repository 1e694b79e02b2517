// Ctrl-C as a value: long calls register how to be cancelled.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "base/time.h"

namespace selvage::cli {

// Thread-safe.
class Interrupt {
 public:
  virtual ~Interrupt() = default;

  // Runs every registered callback, once.
  void Trigger();
  bool triggered() const;

  // Returns true at once when interrupted, false after `duration`.
  virtual bool WaitFor(Duration duration);

  // Runs `cancel` when Trigger() is called, or now if it was; until the
  // registration goes away. `cancel` must not block nor register.
  class Registration {
   public:
    Registration(Interrupt& interrupt, std::function<void()> cancel);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    Interrupt& interrupt_;
    uint64_t id_;
  };

 private:
  mutable std::mutex mu_;
  std::condition_variable changed_;
  bool triggered_ = false;
  uint64_t next_id_ = 0;
  std::map<uint64_t, std::function<void()>> callbacks_;
};

}  // namespace selvage::cli
