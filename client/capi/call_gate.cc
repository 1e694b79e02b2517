#include "client/capi/call_gate.h"

#include <unistd.h>

#include <string>

namespace selvage::capi {

thread_local CallGate::Call* CallGate::innermost_ = nullptr;

CallGate::CallGate() : process_(::getpid()) {}

CallGate::Call::~Call() {
  if (gate_ == nullptr) return;
  innermost_ = outer_;
  // A callback may have forked: nothing is ours in the child.
  if (!gate_->CheckProcess().ok()) return;
  // Under the lock to the end: whoever waits in Close() destroys the gate next.
  const std::lock_guard lock(gate_->mu_);
  if (alone_) gate_->alone_taken_ = false;
  if (--gate_->inside_ == 0) gate_->all_out_.notify_all();
}

Status CallGate::Call::EnterAlone(CallGate& gate) { return Enter(gate, true); }
Status CallGate::Call::EnterBeside(CallGate& gate) {
  return Enter(gate, false);
}

Status CallGate::Call::Enter(CallGate& gate, bool alone) {
  // Before the lock, which nobody may be there to release in a child.
  SELVAGE_RETURN_IF_ERROR(gate.CheckProcess());
  const std::lock_guard lock(gate.mu_);
  if (gate.closed_) return FailedPrecondition("this client is being closed");
  if (alone) {
    if (gate.alone_taken_) {
      return FailedPrecondition(
          gate.HasThisThread() ? "a callback must not call its own client"
                               : "another call of this client is under way");
    }
    gate.alone_taken_ = true;
  }
  ++gate.inside_;
  gate_ = &gate;
  alone_ = alone;
  outer_ = innermost_;
  innermost_ = this;
  return OkStatus();
}

Status CallGate::Close() {
  SELVAGE_RETURN_IF_ERROR(CheckProcess());
  if (HasThisThread()) {
    return FailedPrecondition("a callback must not close its own client");
  }
  std::unique_lock lock(mu_);
  if (closed_) return FailedPrecondition("this client is being closed");
  closed_ = true;
  all_out_.wait(lock, [this] { return inside_ == 0; });
  return OkStatus();
}

Status CallGate::CheckProcess() const {
  const pid_t process = ::getpid();
  if (process == process_) return OkStatus();
  return FailedPrecondition("this client was opened by process " +
                            std::to_string(process_) + ", of which this one (" +
                            std::to_string(process) +
                            ") is a fork: open another one here");
}

bool CallGate::HasThisThread() const {
  for (const Call* call = innermost_; call != nullptr; call = call->outer_) {
    if (call->gate_ == this) return true;
  }
  return false;
}

}  // namespace selvage::capi
