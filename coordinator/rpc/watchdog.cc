#include "coordinator/rpc/watchdog.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

namespace selvage::coordinator {

struct Watchdog::State {
  State(grpc::CallbackServerContext* call, Duration p, int n, uint64_t least,
        std::function<void(const Status&)> told)
      : period(p),
        periods_max(n),
        progress_min(least),
        context(call),
        periods_left(n),
        expired(std::move(told)) {}

  const Duration period;
  const int periods_max;
  const uint64_t progress_min;
  std::atomic<bool> moved{false};
  std::atomic<uint64_t> progress{0};
  Mutex mu;
  // Null once the call is over.
  grpc::CallbackServerContext* context SELVAGE_GUARDED_BY(mu);
  int periods_left SELVAGE_GUARDED_BY(mu);
  // Null once it was called.
  std::function<void(const Status&)> expired SELVAGE_GUARDED_BY(mu);
  // A new one for every period: setting an alarm again from its own callback
  // would destroy the callback that runs.
  std::unique_ptr<grpc::Alarm> alarm SELVAGE_GUARDED_BY(mu);
};

Watchdog::Watchdog(grpc::CallbackServerContext* context, Duration period,
                   int periods_max, uint64_t progress_min,
                   std::function<void(const Status&)> expired)
    : state_(std::make_shared<State>(context, period, periods_max, progress_min,
                                     std::move(expired))) {
  const MutexLock lock(state_->mu);
  Arm(state_);
}

Watchdog::~Watchdog() {
  std::unique_ptr<grpc::Alarm> alarm;
  {
    const MutexLock lock(state_->mu);
    state_->context = nullptr;
    alarm = std::move(state_->alarm);
  }
  // Cancels; the callback still runs, and finds no context.
  alarm.reset();
}

void Watchdog::Progress(uint64_t bytes) {
  state_->moved.store(true, std::memory_order_relaxed);
  state_->progress.fetch_add(bytes, std::memory_order_relaxed);
}

void Watchdog::Excuse() { Progress(state_->progress_min); }

void Watchdog::Arm(const std::shared_ptr<State>& state) {
  state->alarm = std::make_unique<grpc::Alarm>();
  // gRPC's own timer, on gRPC's clock: the service's injected Clock decides
  // nothing here.
  state->alarm->Set(std::chrono::system_clock::now() + state->period,
                    [state](bool expired) {
                      if (expired) OnAlarm(state);
                    });
}

void Watchdog::OnAlarm(const std::shared_ptr<State>& state) {
  const MutexLock lock(state->mu);
  if (state->context == nullptr) return;
  const bool moved = state->moved.exchange(false, std::memory_order_relaxed);
  const uint64_t bytes = state->progress.exchange(0, std::memory_order_relaxed);
  const bool slow = !moved || bytes < state->progress_min;
  if (!slow && --state->periods_left > 0) {
    Arm(state);
    return;
  }
  if (state->periods_left < 0 || state->expired == nullptr) {
    state->context->TryCancel();
    return;
  }
  state->periods_left = -1;
  Arm(state);
  // With the lock: whoever destroys the watchdog waits for it.
  const double seconds = std::chrono::duration<double>(state->period).count();
  std::exchange(state->expired, nullptr)(DeadlineExceeded(
      slow ? std::to_string(bytes) + " bytes came in " +
                 std::to_string(seconds) + " s, expected are at least " +
                 std::to_string(std::max<uint64_t>(state->progress_min, 1))
           : "the stream is still open after " +
                 std::to_string(seconds * state->periods_max) + " s"));
}

}  // namespace selvage::coordinator
