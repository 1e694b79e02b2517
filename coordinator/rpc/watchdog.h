// Ends a streaming call whose peer has stopped moving.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include "base/mutex.h"
#include "base/status.h"
#include "base/time.h"

namespace selvage::coordinator {

// Ends the call if a whole `period` passes without Progress(), or with less of
// it than `progress_min` bytes, or if it is still there after `periods_max` of
// them: `expired` is told, with DEADLINE_EXCEEDED and the reason, and a period
// later, or at once if there is no `expired`, the call is cancelled; its
// reactor sees that as it sees any other cancellation. Thread-safe.
class Watchdog {
 public:
  // `expired` is called once, on a thread of gRPC's, and must not destroy the
  // watchdog.
  Watchdog(grpc::CallbackServerContext* context, Duration period,
           int periods_max, uint64_t progress_min = 0,
           std::function<void(const Status&)> expired = nullptr);
  // The call's context is not touched any more afterwards, and `expired` does
  // not run.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void Progress(uint64_t bytes = 0);
  // This period counts as enough.
  void Excuse();

 private:
  // Outlives the call by the time an alarm needs to be cancelled.
  struct State;
  // REQUIRES: state->mu is held.
  static void Arm(const std::shared_ptr<State>& state);
  static void OnAlarm(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace selvage::coordinator
