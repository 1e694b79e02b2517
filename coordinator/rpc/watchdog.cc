#include "coordinator/rpc/watchdog.h"

#include <chrono>
#include <utility>

namespace selvage::coordinator {

struct Watchdog::State {
  State(grpc::CallbackServerContext* call, Duration p, int n, uint64_t least)
      : period(p), progress_min(least), context(call), periods_left(n) {}

  const Duration period;
  const uint64_t progress_min;
  std::atomic<bool> moved{false};
  std::atomic<uint64_t> progress{0};
  Mutex mu;
  // Null once the call is over.
  grpc::CallbackServerContext* context SELVAGE_GUARDED_BY(mu);
  int periods_left SELVAGE_GUARDED_BY(mu);
  // A new one for every period: setting an alarm again from its own callback
  // would destroy the callback that runs.
  std::unique_ptr<grpc::Alarm> alarm SELVAGE_GUARDED_BY(mu);
};

Watchdog::Watchdog(grpc::CallbackServerContext* context, Duration period,
                   int periods_max, uint64_t progress_min)
    : state_(
          std::make_shared<State>(context, period, periods_max, progress_min)) {
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
  if (!moved || bytes < state->progress_min || --state->periods_left <= 0) {
    state->context->TryCancel();
    return;
  }
  Arm(state);
}

}  // namespace selvage::coordinator
