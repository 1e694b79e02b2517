// Runs the sessions of one or many devices of this process when they are due:
// the host's part of the bargain (the library never schedules itself).
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <queue>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

struct FleetDevice {
  std::string name;
  host::Client* client = nullptr;  // must outlive the fleet
};

struct FleetOptions {
  int threads = 1;
  // First sessions are spread over this long, so that a fleet does not arrive
  // at once.
  Duration stagger{};
  // The fleet is done when every device has installed the final model of this
  // task. Empty: never.
  std::string until_task = {};
  bool once = false;  // one session per device, then done
};

class Fleet {
 public:
  // `on_result` comes on worker threads, one at a time.
  using OnResult = std::function<void(const FleetDevice& device,
                                      const host::RunResult& result)>;

  Fleet(FleetOptions options, std::vector<FleetDevice> devices, Clock& clock,
        RandomSource& random, OnResult on_result);

  // Blocks until done or Stop(). The first misuse error of a client ends it.
  Status Run();
  // Thread-safe: cancels running sessions and ends Run().
  void Stop();

 private:
  struct Due {
    Time at;
    size_t device;
    friend bool operator>(const Due& a, const Due& b) { return a.at > b.at; }
  };

  Result<host::RunResult> RunSession(size_t device);
  void Work();

  const FleetOptions options_;
  const std::vector<FleetDevice> devices_;
  Clock& clock_;
  const OnResult on_result_;
  host::Cancel cancel_;

  // std::mutex, not base Mutex: workers wait on a condition variable.
  std::mutex mu_;
  std::condition_variable changed_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::set<size_t> done_;
  bool stopping_ = false;
  Status error_;
  std::mutex result_mu_;  // held while on_result_ runs
};

}  // namespace selvage::agent
