// What systemd hears of a service with WatchdogSec (sd_watchdog_enabled(3)).
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/time.h"

namespace selvage::coordinator {

// How long systemd waits for a sign of life of process `self`, from
// WATCHDOG_USEC and WATCHDOG_PID; zero: it expects none, or the variables are
// not ones of systemd's.
Duration WatchdogPeriod(const std::optional<std::string>& usec,
                        const std::optional<std::string>& pid, pid_t self);

// Whether there is a sign of life to give: something has moved since the last
// one.
class Pulse {
 public:
  bool Moved(uint64_t turns) {
    const bool moved = last_ != turns;
    last_ = turns;
    return moved;
  }

 private:
  std::optional<uint64_t> last_;
};

// Calls `tell` every `interval`, from a thread of its own, as long as `turns`
// grows. It says nothing for somebody who hangs.
class Heartbeat {
 public:
  Heartbeat(Duration interval, std::function<uint64_t()> turns,
            std::function<void()> tell);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  void Run(Duration interval, const std::function<uint64_t()>& turns,
           const std::function<void()>& tell);

  std::mutex mu_;
  std::condition_variable stop_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace selvage::coordinator
