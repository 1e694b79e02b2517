// What RPC threads leave for the worker, and how the worker sleeps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "coordinator/task_driver.h"

namespace selvage::coordinator {

struct CheckInWork {
  std::shared_ptr<TaskDriver> driver;
  DeviceIdentity device;
  DeviceTraits traits;
  CheckInAnswer answer;  // what is known already
  CheckInCallback done;
};
struct EventWork {
  RoundKey round;
  RoundEvent event;
};
struct GaveUpWork {
  RoundKey round;
  std::string device;
  std::string assignment_id;
  AbandonReason reason = AbandonReason::kUnspecified;
};
struct NewTaskWork {
  TaskRow row;
  std::shared_ptr<const TaskDefinition> definition;
};
struct StoppedTaskWork {
  uint64_t task_id = 0;
};
struct HintWork {  // another coordinator changed a round of it
  uint64_t task_id = 0;
};
struct WakeWork {};  // look at the watchers, the line of uploads, draining
using Work = std::variant<CheckInWork, EventWork, GaveUpWork, VerifiedUpload,
                          NewTaskWork, StoppedTaskWork, HintWork, WakeWork>;

// Thread-safe.
class WorkQueue {
 public:
  // False, and `work` untouched, once stopped.
  bool Post(Work& work) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      if (stopped_) return false;
      items_.push_back(std::move(work));
    }
    wake_.notify_one();
    return true;
  }
  std::vector<Work> Take() {
    std::lock_guard<std::mutex> lock(mu_);
    return std::exchange(items_, {});
  }
  bool empty() {
    std::lock_guard<std::mutex> lock(mu_);
    return items_.empty();
  }
  // Returns when there is work, after `timeout`, or at once after Stop(). False
  // once stopped.
  bool Wait(Duration timeout) {
    std::unique_lock<std::mutex> lock(mu_);
    wake_.wait_for(lock, timeout,
                   [this] { return stopped_ || !items_.empty(); });
    return !stopped_;
  }
  // True once stopped; false after `timeout`.
  bool WaitForStop(Duration timeout) {
    std::unique_lock<std::mutex> lock(mu_);
    return stop_.wait_for(lock, timeout, [this] { return stopped_; });
  }
  void Stop() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      stopped_ = true;
    }
    wake_.notify_all();
    stop_.notify_all();
  }

 private:
  std::mutex mu_;
  std::condition_variable wake_;
  std::condition_variable stop_;
  std::vector<Work> items_;
  bool stopped_ = false;
};

}  // namespace selvage::coordinator
