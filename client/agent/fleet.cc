#include "client/agent/fleet.h"

#include <algorithm>
#include <chrono>

#include "client/agent/device.h"

namespace selvage::agent {

Fleet::Fleet(FleetOptions options, std::vector<FleetDevice> devices,
             Clock& clock, RandomSource& random, OnResult on_result)
    : options_(std::move(options)),
      devices_(std::move(devices)),
      clock_(clock),
      on_result_(std::move(on_result)) {
  const Time now = clock_.Now();
  for (size_t i = 0; i < devices_.size(); ++i) {
    const double share = UniformUnit(random);
    due_.push(
        {now + Duration(static_cast<int64_t>(
                   share * static_cast<double>(options_.stagger.count()))),
         i});
  }
}

Status Fleet::Run() {
  std::vector<std::jthread> workers;
  const size_t threads =
      std::min(devices_.size(), static_cast<size_t>(options_.threads));
  for (size_t i = 0; i < threads; ++i) {
    workers.emplace_back([this] { Work(); });
  }
  workers.clear();  // joins
  return error_;
}

void Fleet::Stop() {
  cancel_.Now();
  const std::lock_guard lock(mu_);
  stopping_ = true;
  changed_.notify_all();
}

Result<host::RunResult> Fleet::RunSession(size_t device) {
  try {
    return devices_[device].client->RunOnce({}, &cancel_);
  } catch (const host::Error& error) {
    return StatusOf(error).WithContext(devices_[device].name);
  }
}

void Fleet::Work() {
  for (;;) {
    size_t device = 0;
    {
      std::unique_lock lock(mu_);
      for (;;) {
        if (stopping_ || done_.size() == devices_.size()) return;
        if (due_.empty()) {
          changed_.wait(lock);  // the others are all in sessions
          continue;
        }
        const Duration wait = due_.top().at - clock_.Now();
        if (wait <= Duration::zero()) break;
        // The clock may be set while we wait: look at it again now and then.
        changed_.wait_for(lock,
                          std::min<Duration>(wait, std::chrono::seconds(1)));
      }
      device = due_.top().device;
      due_.pop();
    }
    const Result<host::RunResult> result = RunSession(device);
    if (result.ok()) {
      const std::lock_guard lock(result_mu_);
      on_result_(devices_[device], *result);
    }
    const std::lock_guard lock(mu_);
    if (!result.ok()) {
      if (error_.ok()) error_ = result.status();
      stopping_ = true;
      cancel_.Now();
    } else if (options_.once || (!options_.until_task.empty() &&
                                 result->outcome == SELVAGE_INSTALLED &&
                                 result->task == options_.until_task)) {
      done_.insert(device);
    } else {
      due_.push({FromMicros(result->next_run_us), device});
    }
    changed_.notify_all();
  }
}

}  // namespace selvage::agent
