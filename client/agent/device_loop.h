// The life of a single device: takes what arrives in the spool, and runs a
// session when one is due. All calls on the client come from Run()'s thread.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/agent/schedule.h"
#include "client/agent/spool.h"
#include "client/agent/waiter.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

struct DeviceLoopOptions {
  ScheduleOptions schedule = {};
  // The spool is looked at this often, whatever its folder's hints say.
  Duration scan_every = std::chrono::seconds(30);
  // Trains every installed model on what is here, at the start and whenever
  // examples have come since, and never uses the network.
  bool offline = false;
  std::string until_task = {};  // done once it is installed; empty: never
  bool once = false;            // one look at the spool, one session, done
};

struct DeviceLoopHooks {
  // After each session; offline: after each training, as INSTALLED of a task.
  std::function<void(const host::RunResult& result)> on_result;
  // The tasks that are installed, at the start and when it may have changed.
  std::function<void(std::vector<std::string> tasks)> on_tasks;
  // What goes on, for people.
  std::function<void(const std::string& status)> on_status;
  // Now and then while Run() is alive.
  std::function<void()> alive;
};

class DeviceLoop {
 public:
  // All must outlive it; `spool` may be nullptr.
  DeviceLoop(DeviceLoopOptions options, DeviceLoopHooks hooks,
             host::Client& client, Spool* spool, Waiter& waiter, Clock& clock,
             RandomSource& random, EventSink& events);

  // Blocks until done or Stop(). An error is a misuse of the client.
  Status Run();
  // Thread-safe: a training stops within one step, an import within a batch.
  void Stop();
  // Thread-safe: looks at the spool and runs a session now, if the library
  // finds that one is due.
  void Hurry();

 private:
  // True if another pass would find more.
  Result<bool> TakeSpool();
  // When to come back, by the library.
  Result<Time> RunSession();
  Result<Time> TrainHere();

  const DeviceLoopOptions options_;
  const DeviceLoopHooks hooks_;
  host::Client& client_;
  Spool* const spool_;
  Waiter& waiter_;
  Clock& clock_;
  EventSink& events_;
  Schedule schedule_;
  host::Cancel cancel_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> hurry_{false};
  bool finished_ = false;
  // Offline: tasks whose last training saw all examples. These come by the
  // spool alone: the store is open in one process.
  std::set<std::string> trained_;
};

}  // namespace selvage::agent
