#include "client/agent/device_loop.h"

#include <algorithm>
#include <utility>

#include "client/agent/device.h"

namespace selvage::agent {

DeviceLoop::DeviceLoop(DeviceLoopOptions options, DeviceLoopHooks hooks,
                       host::Client& client, Spool* spool, Waiter& waiter,
                       Clock& clock, RandomSource& random, EventSink& events)
    : options_(std::move(options)),
      hooks_(std::move(hooks)),
      client_(client),
      spool_(spool),
      waiter_(waiter),
      clock_(clock),
      events_(events),
      schedule_(options_.schedule, clock.Now(), random) {
  if (options_.once) schedule_.Hurry(clock.Now());
}

Result<bool> DeviceLoop::TakeSpool() {
  if (spool_ == nullptr) return false;
  const Result<SpoolPass> pass = spool_->Import(client_, stopping_);
  if (!pass.ok()) {
    // A full disk, for instance: what is in the spool stays there.
    events_.Write(LogLevel::kError, "spool_waits",
                  {{"reason", pass.status().ToString()}});
    return false;
  }
  if (pass->examples > 0) trained_.clear();
  return pass->more;
}

Result<Time> DeviceLoop::RunSession() {
  const host::RunResult result = client_.RunOnce({}, &cancel_);
  hooks_.on_result(result);
  finished_ = !options_.until_task.empty() &&
              result.outcome == SELVAGE_INSTALLED &&
              result.task == options_.until_task;
  return FromMicros(result.next_run_us);
}

Result<Time> DeviceLoop::TrainHere() {
  for (const std::string& task : client_.Tasks()) {
    if (stopping_.load()) break;
    if (trained_.contains(task)) continue;
    try {
      const uint64_t steps = client_.TrainLocally(task, {}, &cancel_);
      events_.Write(LogLevel::kInfo, "trained_locally",
                    {{"task", task}, {"steps", steps}});
      if (steps == 0) continue;  // no examples yet
      if (!stopping_.load()) trained_.insert(task);
      host::RunResult result;
      result.outcome = SELVAGE_INSTALLED;
      result.task = task;
      result.reason = std::to_string(steps) + " steps, offline";
      hooks_.on_result(result);
    } catch (const host::Error& error) {
      // Too few examples yet, or a training that is paused.
      events_.Write(LogLevel::kWarning, "not_trained",
                    {{"task", task}, {"reason", error.what()}});
    }
  }
  return clock_.Now();
}

Status DeviceLoop::Run() try {
  hooks_.on_tasks(client_.Tasks());
  while (!stopping_.load() && !finished_) {
    hooks_.alive();
    if (hurry_.exchange(false)) {
      schedule_.Hurry(clock_.Now());
    }
    // A folder's hint brings us here too, so every turn looks at it: that costs
    // one listing.
    SELVAGE_ASSIGN_OR_RETURN(const bool more, TakeSpool());
    if (options_.once && more) continue;
    if (stopping_.load()) break;
    if (schedule_.Due(clock_.Now()) <= clock_.Now()) {
      hooks_.on_status("in a session");
      SELVAGE_ASSIGN_OR_RETURN(const Time window,
                               options_.offline ? TrainHere() : RunSession());
      hooks_.on_tasks(client_.Tasks());
      schedule_.Ran(clock_.Now(), window);
      if (options_.once) break;
      continue;
    }
    const Time due = schedule_.Due(clock_.Now());
    hooks_.on_status("the next session is due at " + FormatTime(due));
    if (more) continue;
    waiter_.WaitUntil(spool_ == nullptr
                          ? due
                          : std::min(due, clock_.Now() + options_.scan_every));
  }
  return OkStatus();
} catch (const host::Error& error) {
  return StatusOf(error);
}

void DeviceLoop::Stop() {
  stopping_.store(true);
  cancel_.Now();
  waiter_.Wake();
}

void DeviceLoop::Hurry() {
  hurry_.store(true);
  waiter_.Wake();
}

}  // namespace selvage::agent
