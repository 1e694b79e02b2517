#include "client/agent/fleet.h"

#include <algorithm>
#include <chrono>

namespace selvage::agent {

Fleet::Fleet(FleetOptions options, std::vector<FleetDevice> devices,
             Clock& clock, RandomSource& random, OnOutcome on_outcome)
    : options_(std::move(options)),
      devices_(std::move(devices)),
      clock_(clock),
      on_outcome_(std::move(on_outcome)) {
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
  cancel_.Cancel();
  const std::lock_guard lock(mu_);
  stopping_ = true;
  changed_.notify_all();
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
    const Result<client::RunOutcome> outcome =
        devices_[device].client->RunOnce({}, cancel_);
    if (outcome.ok()) {
      const std::lock_guard lock(outcome_mu_);
      on_outcome_(devices_[device], *outcome);
    }
    const std::lock_guard lock(mu_);
    if (!outcome.ok()) {
      if (error_.ok()) {
        error_ = outcome.status().WithContext(devices_[device].name);
      }
      stopping_ = true;
      cancel_.Cancel();
    } else if (options_.once ||
               (!options_.until_task.empty() &&
                outcome->result == client::RunResult::kInstalled &&
                outcome->task == options_.until_task)) {
      done_.insert(device);
    } else {
      due_.push({outcome->next_run, device});
    }
    changed_.notify_all();
  }
}

}  // namespace selvage::agent
